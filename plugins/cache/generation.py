"""TGI's native answers: whether one is kept, and what it used.

Like any other it is kept only if all was said: details tell that by their reason, and without them an answer that has
fewer tokens than it was allowed has ended by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from plugins.cache.stream import values_of
from proxy.plugin import Usage, in_band_error, usage_from_body

if TYPE_CHECKING:
    from collections.abc import Mapping

SHAPE: Final = "generate"
_ENDED: Final = frozenset({"eos_token", "stop_sequence"})
_TOKEN_BYTES: Final = 4


def streams(path: str, asked: Mapping[str, Any]) -> bool:
    """`/generate` and `/generate_stream` say it by their names."""
    return path == "/generate_stream" or (path != "/generate" and asked.get("stream") is True)


def limit_of(asked: Any) -> int | None:
    parameters = asked.get("parameters") if isinstance(asked, dict) else None
    limit = parameters.get("max_new_tokens") if isinstance(parameters, dict) else None
    return limit if type(limit) is int else None


def is_kept(body: bytes, *, is_stream: bool, limit: int | None, made: int | None) -> bool:
    """Of an answer that came to its end. `limit`: the tokens that it was allowed; `made`: as a header tells them."""
    last = _last(body, is_stream=is_stream)
    if last is None or in_band_error(last) or not isinstance(last.get("generated_text"), str):
        return False
    details = last.get("details")
    if isinstance(details, dict):
        return details.get("finish_reason") in _ENDED
    if is_stream and type(last.get("index")) is int:
        made = last["index"]
    return limit is not None and made is not None and made < limit


def usage_of(body: bytes, *, is_stream: bool, prompt: int) -> Usage:
    """As far as the answer tells; `prompt` stands for what it does not, and text is counted by its length."""
    last = _last(body, is_stream=is_stream) or {}
    told = usage_from_body(last) or Usage()
    made = told.output_tokens or last.get("index") or -(-len(str(last.get("generated_text"))) // _TOKEN_BYTES)
    return Usage(told.input_tokens or prompt, made)


def _last(body: bytes, *, is_stream: bool) -> dict[str, Any] | None:
    """The event that has the whole text, or the answer itself; `POST /` puts that into a list."""
    if is_stream:
        return next(reversed([*values_of(body)]), None)
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None
