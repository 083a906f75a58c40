"""An upstream's error answer: JSON passes as it came, anything else is told in OpenAI's shape, with the status kept.

Our own credential at the upstream is masked wherever it would appear in one.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson

from proxy.encoding import Unreadable, decoder_for, is_plain
from proxy.errors import ProxyError, error_body
from proxy.exchange import Response
from proxy.upstream.incoming import whole

if TYPE_CHECKING:
    from proxy.headers import Fields
    from proxy.upstream.openai import OpenAI

MAX_BYTES = 16 * 2**20
SEARCHED_BYTES = 16 * 1024
SHOWN_CHARACTERS = 500
KEYS = 64

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
    masked = _masked(text, upstream.key)
    if masked == text:
        return _with_body(response, _masked_fields(response.fields(), upstream.key), body)
    return _with_body(response, _masked_fields(_undescribed(response, but=b"content-type"), upstream.key), masked)


def bodiless(response: Response, upstream: OpenAI) -> Response:
    """The error answer to a HEAD: only its header could tell our credential."""
    assert response.incoming is not None
    return Response.of_incoming(response.incoming, _masked_fields(response.fields(), upstream.key))


def _told(response: Response, upstream: OpenAI, text: bytes) -> Response:
    said = _cut(_masked(_words(text).encode(), upstream.key).decode()) or "nothing"
    message = f"upstream '{upstream.name}' answered {response.status} and said: {said}"
    fields = [*_masked_fields(_undescribed(response), upstream.key), (b"Content-Type", b"application/json")]
    return _with_body(response, fields, error_body(message, "upstream_error", f"upstream_{response.status}"))


def _with_body(response: Response, fields: Fields, body: bytes) -> Response:
    answer = Response.of_fields(response, fields)
    answer.body = body
    return answer


def _undescribed(response: Response, but: bytes = b"") -> Fields:
    return [field for field in response.fields() if field[0].lower() not in _DESCRIBING - {but}]


def _plain(body: bytes, encoding: bytes) -> bytes:
    if is_plain(encoding):
        return body
    decoder = decoder_for(encoding)
    try:
        return decoder.feed(body) if decoder else b""
    except Unreadable:
        return b""


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


def _masked(text: bytes, key: str | None) -> bytes:
    return _spellings(key).sub(b"***", text) if key else text


@lru_cache(KEYS)
def _spellings(key: str) -> re.Pattern[bytes]:
    """The key as it is, and as JSON may escape it."""
    letters = [rf"(?:\\?{re.escape(letter)}|(?i:\\u{ord(letter):04x}))" for letter in key]
    return re.compile("".join(letters).encode())


def _masked_fields(fields: Fields, key: str | None) -> Fields:
    return [(name, _masked(value, key)) for name, value in fields]
