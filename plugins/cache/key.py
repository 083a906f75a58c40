"""Under what an answer is kept: a digest of whose it is, where it came from, and all of the request that shapes it.

A key cannot be made without a scope, and a scope only from what the house knows of the caller: every part has its
length before it, so that nothing which a body says can pass for another part.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NewType

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxy.plugin import Request, Target

Scope = NewType("Scope", bytes)
Origin = NewType("Origin", bytes)

STORED: Final = "cache1:"

_VOLATILE: Final = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream",
        "stream_options",
        "user",
    }
)
IGNORED: Final[Mapping[str, frozenset[str]]] = {
    "chat": _VOLATILE,
    "completions": _VOLATILE,
    "embeddings": _VOLATILE,
    "responses": frozenset({"stream", "stream_options"}),
    "generate": frozenset(),
}
"""By endpoint, what does not shape the answer. Responses repeat the others to whoever gets them."""

_CREDENTIALS: Final = ("authorization", "api-key", "x-api-key", "cookie")
_SAY_NOTHING: Final = frozenset({"", "bearer", "basic"})
"""A scheme alone, as clients write it that have no key."""

_TELLING: Final = ("openai-beta", "openai-organization", "openai-project")
"""Header fields that shape the answer."""


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


SHARED: Final = Scope(_framed([b"shared"]))


def principals(name: str) -> Scope:
    return Scope(_framed([b"principal " + name.encode("utf-8", "surrogatepass")]))


def callers(request: Request) -> Scope | None:
    """Of the credential that the caller sends; None where nothing says who that is."""
    headers, told = request.headers, ""
    for name in _CREDENTIALS:
        if name in headers:
            for value in headers.getall(name):
                if value.strip().lower() not in _SAY_NOTHING:
                    told += f"{name}:{len(value)}:{value}"
    return Scope(_framed([b"credential " + told.encode("utf-8", "surrogateescape")])) if told else None


def origin_of(route: str, targets: Iterable[Target], path: str, bases: Mapping[str, str]) -> Origin:
    """Where a route's answers come from, another model or server being another. `bases`: where the upstreams are."""
    told = [(target.upstream, bases.get(target.upstream), target.model, target.static) for target in targets]
    return Origin(_framed([orjson.dumps([route, told]), path.encode("utf-8", "surrogateescape")]))


def key_of(scope: Scope, origin: Origin, request: Request, shape: str, asked: dict[str, Any]) -> str | None:
    """`asked`: the request's JSON, `shape` its endpoint. None where it cannot be written again."""
    ignored, headers, told = IGNORED[shape], request.headers, scope + origin
    shaping = asked if ignored.isdisjoint(asked) else {name: asked[name] for name in asked if name not in ignored}
    try:
        canonical = orjson.dumps(shaping, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson reads deeper than it writes
        return None
    for name in _TELLING:
        if name in headers:
            told += _framed([name.encode(), headers[name].encode("utf-8", "surrogateescape")])
    return STORED + sha256(told + canonical).hexdigest()


def says_once(body: bytes, asked: dict[str, Any]) -> bool:
    """Whether no object holds a key twice, so that every parser reads the same: a member that is lost has quotes."""
    return b"\\u0022" not in body and body.count(b'"') == orjson.dumps(asked).count(b'"')
