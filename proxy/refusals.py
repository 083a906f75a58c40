"""An upstream's error answer: JSON passes as it came, anything else is told in OpenAI's shape, with the status kept.

Our own credential at the upstream is masked wherever it would appear in one; in the header it is so already.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import orjson

from proxy.encoding import Unreadable, decoded
from proxy.errors import ProxyError, error_body
from proxy.response import Response
from proxy.upstream.incoming import whole

if TYPE_CHECKING:
    from proxy.headers import Fields
    from proxy.upstream.openai import OpenAI

MAX_BYTES = 16 * 2**20
SEARCHED_BYTES = 16 * 1024
SHOWN_CHARACTERS = 500

_MARKUP = re.compile(r"(?is)<(script|style|head)\b.*?</\1>|<[^>]*>")
_DESCRIBING = frozenset({b"content-type", b"content-length", b"content-encoding", b"etag"})


async def held(response: Response, upstream: OpenAI) -> Response:
    """The error answer with its whole body, ready to pass."""
    assert response.incoming is not None
    try:
        body = await whole(response.incoming, MAX_BYTES)
    except ProxyError:
        body = b""
    text = _plain(body, response.field(b"content-encoding"))
    if not _is_json(text):
        return _told(response, upstream, text)
    masked = upstream.credential.mask.hide(text)
    if masked == text:
        return _with_body(response, response.fields(), body)
    return _with_body(response, _undescribed(response, but=b"content-type"), masked)


def _told(response: Response, upstream: OpenAI, text: bytes) -> Response:
    said = _cut(upstream.credential.mask.hide(_words(text).encode()).decode()) or "nothing"
    message = f"upstream '{upstream.name}' answered {response.status} and said: {said}"
    fields = [*_undescribed(response), (b"Content-Type", b"application/json")]
    return _with_body(response, fields, error_body(message, "upstream_error", f"upstream_{response.status}"))


def _with_body(response: Response, fields: Fields, body: bytes) -> Response:
    answer = Response.of_fields(response, fields)
    answer.body = body
    return answer


def _undescribed(response: Response, but: bytes = b"") -> Fields:
    return [field for field in response.fields() if field[0].lower() not in _DESCRIBING - {but}]


def _plain(body: bytes, encoding: bytes) -> bytes:
    try:
        text = decoded(body, encoding)
    except Unreadable:
        return b""
    return text if len(text) <= MAX_BYTES else b""


def _is_json(text: bytes) -> bool:
    try:
        return isinstance(orjson.loads(text), dict | list)
    except ValueError:
        return False


def _words(page: bytes) -> str:
    """What a page says, without its markup."""
    return " ".join(html.unescape(_MARKUP.sub(" ", page[:SEARCHED_BYTES].decode("utf-8", "replace"))).split())


def _cut(words: str) -> str:
    """To a length that a log line can bear."""
    return words if len(words) <= SHOWN_CHARACTERS else words[:SHOWN_CHARACTERS] + "…"
