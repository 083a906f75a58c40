"""Which header fields travel, in which direction (DESIGN §7).

Only what must go is removed; the rest keeps its spelling, order and repetitions. `Trailer` travels, since trailers do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Fields = list[tuple[bytes, bytes]]
"""Header fields as they are on the wire, in order."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)
CREDENTIALS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"})
KEY_PROTOCOLS = (b"openai-insecure-api-key.", b"xai-client-secret.")
FORWARDED = "x-forwarded-"
OWN = b"x-weir-"
"""Ours, also where the upstream is another Weir."""

_LINE_BREAK = re.compile(rb"[\r\n\0]")
_NAMES = 2048  # verdicts kept at hand: apps send the same few names

_REQUEST_DROP = HOP_BY_HOP | {"host", "x-weir-prompt-version"}
_RESPONSE_DROP = frozenset(name.encode() for name in HOP_BY_HOP)
_RESPONSE_DROP_REPLACED = _RESPONSE_DROP | {b"set-cookie", b"set-cookie2"}


_READABLE = (b"Accept-Encoding", b"identity")


def upstream_fields(
    fields: Sequence[tuple[bytes, bytes]], connection: Iterable[str], *, passthrough: bool, readable: bool = False
) -> Fields:
    """What an upstream may see of a request's header; `passthrough` lets the caller's credential and cookies by.

    `connection` are the values of its Connection fields. `Host` is the upstream's own, set when the request is written.
    With `readable`, an answer is asked for that plugins can read.
    """
    kept = _GO_UP[passthrough, readable].kept(fields)
    if readable:
        kept.append(_READABLE)
    named = connection_named(tuple(connection))
    return [field for field in kept if _text(field[0]).lower() not in named] if named else kept


def upgrade_fields(fields: Fields, *, passthrough: bool) -> Fields:
    """Those of a request for a WebSocket, as `upstream_fields` left them, with the hop-by-hop ones of the next hop.

    Browsers cannot set a credential, so they offer it as a subprotocol: the others are left to be chosen from.
    """
    if not passthrough:
        fields = [field for each in fields if (field := _without_key(each)) is not None]
    return [*fields, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


def _without_key(field: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """None where nothing but a credential is offered."""
    name, value = field
    if name.lower() != b"sec-websocket-protocol":
        return field
    offered = [each.strip() for each in value.split(b",")]
    kept = [each for each in offered if not each.lower().startswith(KEY_PROTOCOLS)]
    if len(kept) == len(offered):
        return field
    return (name, b", ".join(kept)) if kept else None


def downstream_fields(fields: Fields, index: dict[bytes, bytes], *, passthrough: bool) -> Fields:
    """What the app may see of a response's header; `index` has it by lower-case names."""
    kept = _RETURN[passthrough].kept(fields)
    if b"connection" not in index:
        return kept
    values = tuple(value.decode("latin-1") for name, value in fields if name.lower() == b"connection")
    named = {name.encode("latin-1") for name in connection_named(values)}
    return [field for field in kept if field[0].lower() not in named] if named else kept


@lru_cache(_NAMES)
def _returns(name: bytes) -> bool:
    return (lower := name.lower()) not in _RESPONSE_DROP_REPLACED and not lower.startswith(OWN)


@lru_cache(_NAMES)
def _returns_passthrough(name: bytes) -> bool:
    return (lower := name.lower()) not in _RESPONSE_DROP and not lower.startswith(OWN)


@lru_cache(_NAMES)
def _goes_up(name: bytes) -> bool:
    return _text(name).lower() not in CREDENTIALS and _goes_up_passthrough(name)


@lru_cache(_NAMES)
def _goes_up_passthrough(name: bytes) -> bool:
    return (lower := _text(name).lower()) not in _REQUEST_DROP and not lower.startswith(FORWARDED)


@lru_cache(_NAMES)
def _goes_up_readable(name: bytes) -> bool:
    return _goes_up(name) and not _accepts(name)


@lru_cache(_NAMES)
def _goes_up_readable_passthrough(name: bytes) -> bool:
    return _goes_up_passthrough(name) and not _accepts(name)


def _accepts(name: bytes) -> bool:
    return name.lower() == b"accept-encoding"


class Sieve:
    """Keeps the fields with the names that `stays` lets by; most headers have the same names as the one before."""

    __slots__ = ("_names", "_stays", "_verdicts")

    def __init__(self, stays: Callable[[bytes], bool]) -> None:
        self._stays = stays
        self._names: list[bytes] = []
        self._verdicts: list[bool] = []

    def kept(self, fields: Sequence[tuple[bytes, bytes]]) -> Fields:
        names = [name for name, _ in fields]
        if names != self._names:
            self._names, self._verdicts = names, [self._stays(name) for name in names]
        return list(compress(fields, self._verdicts))


_GO_UP = {
    (False, False): Sieve(_goes_up),
    (True, False): Sieve(_goes_up_passthrough),
    (False, True): Sieve(_goes_up_readable),
    (True, True): Sieve(_goes_up_readable_passthrough),
}
"""By `passthrough` and `readable`."""
_RETURN = {False: Sieve(_returns), True: Sieve(_returns_passthrough)}


@lru_cache(_NAMES)
def connection_named(values: tuple[str, ...]) -> frozenset[str]:
    """The fields that `Connection` names as hop-by-hop.

    Never those that frame or describe the message: a request must not be able to unsay them.
    """
    named = {token.strip().lower() for value in values for token in value.split(",")}
    return frozenset(named - {"", "close", "keep-alive", "content-length", "content-type", "content-encoding", "host"})


def encode(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> Fields:
    """Decoded as UTF-8 with surrogates, so the way back gives the same bytes."""
    return [(_bytes(name), _bytes(value)) for name, value in headers.items()]


def is_value(text: str) -> bool:
    """Whether a credential can stand in a field: plain ASCII, and something of it."""
    return bool(text) and text.isascii() and text.isprintable()


def unbroken(fields: Fields) -> Fields:
    """With blanks where a plugin put line breaks: they would be the start of other fields."""
    return [(_LINE_BREAK.sub(b" ", name), _LINE_BREAK.sub(b" ", value)) for name, value in fields]


def decode(fields: Fields) -> CIMultiDict[str]:
    return CIMultiDict([(_text(name), _text(value)) for name, value in fields])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
