"""Under what an answer is kept: a digest of whose it is, where it came from, and all of the request that shapes it.

A key cannot be made without a scope, and a scope only from what the house knows of the caller: every part has its
length before it, so that nothing which a body says can pass for another part.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NewType

import orjson

from proxy.plugin import PRINCIPAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxy.plugin import Exchange, Request, Target

Scope = NewType("Scope", bytes)
Origin = NewType("Origin", bytes)

SHARED: Final = Scope(b"shared")

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
}
"""By endpoint, what does not shape the answer. Responses repeat the others to whoever gets them."""

_CREDENTIALS: Final = ("authorization", "api-key", "x-api-key", "cookie")
_TELLING: Final = ("openai-beta", "openai-organization", "openai-project")
"""Header fields that shape the answer."""


def scope_of(exchange: Exchange) -> Scope | None:
    """Whose answers the caller may get; None where nothing says who calls."""
    principal = exchange.get(PRINCIPAL, None)
    if principal is not None:
        return Scope(_framed([b"principal", principal.name.encode("utf-8", "surrogatepass")]))
    headers = exchange.request.headers
    told = [
        part
        for name in _CREDENTIALS
        for value in headers.getall(name, ())
        if _says_something(value)
        for part in (name.encode(), value.encode("utf-8", "surrogateescape"))
    ]
    return Scope(_framed([b"credential", *told])) if told else None


def origin_of(route: str, targets: Iterable[Target], bases: Mapping[str, str]) -> Origin:
    """Where a route's answers come from: another model or server behind the same route is another origin."""
    told = [(target.upstream, bases.get(target.upstream), target.model, target.static) for target in targets]
    return Origin(orjson.dumps([route, told]))


def key_of(scope: Scope, origin: Origin, request: Request, asked: dict[str, Any]) -> str | None:
    """`asked`: the request's JSON. None where it cannot be written again."""
    ignored, headers = IGNORED[request.endpoint], request.headers
    shaping = {name: value for name, value in asked.items() if name not in ignored}
    try:
        canonical = orjson.dumps(shaping, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # orjson reads deeper than it writes
        return None
    telling = [headers.get(name, "").encode("utf-8", "surrogateescape") for name in _TELLING]
    target = request.target.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(_framed([scope, origin, target, *telling, canonical]), digest_size=32).hexdigest()


def says_once(body: bytes, asked: dict[str, Any]) -> bool:
    """Whether no object holds a key twice, so that every parser reads the same: a member that is lost has quotes."""
    return b"\\u0022" not in body and body.count(b'"') == orjson.dumps(asked).count(b'"')


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _says_something(value: str) -> bool:
    """Not a scheme alone, as clients write that have no key."""
    return value.strip().lower() not in {"", "bearer", "basic"}
