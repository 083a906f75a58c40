"""The credential that a request brings, and the refusal of all that is none.

Every way of being wrong gets the same answer, so that none of them tells a stranger more than the others. A credential
beside a malformed or another one is refused as well: who reads which of two is how checks are got around.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.plugin import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.plugin import Request

MAX_LENGTH = 4096
AUTHORIZATION = "authorization"
FIELDS = (AUTHORIZATION, "api-key", "x-api-key")
PROTOCOLS = "sec-websocket-protocol"
KEY_PROTOCOL = "openai-insecure-api-key."
"""What a browser, which cannot set a header, offers as a subprotocol of its WebSocket."""

_MESSAGE = "no valid API key came with this request; send one as 'Authorization: Bearer KEY', 'api-key' or 'x-api-key'"
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_NOTHING: tuple[str, ...] = ()


def refused(message: str = _MESSAGE) -> Unauthorized:
    return Unauthorized(message, headers={"www-authenticate": "Bearer"})


def expired() -> Unauthorized:
    return refused("the API key or token of this request has expired; ask for a new one")


def presented(request: Request) -> str:
    """The one credential, printable ASCII; raises Unauthorized."""
    found, headers = "", request.headers
    for name in FIELDS:
        if values := headers.getall(name, _NOTHING):
            if len(values) > 1:
                raise refused()
            found = _joined(found, _bearer(values[0]) if name is AUTHORIZATION else values[0])
    if request.is_upgrade and PROTOCOLS in headers:
        for text in _offered(headers.getall(PROTOCOLS)):
            found = _joined(found, text)
    if not found:
        raise refused()
    return found


def is_jwt(text: str) -> bool:
    return _JWT.fullmatch(text) is not None


def _joined(found: str, text: str) -> str:
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= MAX_LENGTH or (found and text != found):
        raise refused()
    return text


def _bearer(value: str) -> str:
    """Nothing where it is of another scheme."""
    scheme, _, text = value.partition(" ")
    return text.strip(" ") if scheme.lower() == "bearer" else ""


def _offered(values: list[str]) -> Iterator[str]:
    for value in values:
        for protocol in value.split(","):
            name = protocol.strip(" \t")
            if name.startswith(KEY_PROTOCOL):
                yield name.removeprefix(KEY_PROTOCOL)
