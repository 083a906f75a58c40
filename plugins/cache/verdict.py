"""Whether an answer is kept: only one that is whole, without an error, and that ended because all was said.

Most answers are not parsed for that. Quotes within JSON strings are escaped, so that no text can look like one of the
keys that are sought: one look at its finish reasons tells how an answer of one choice ended.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from plugins.cache.stream import values_of
from proxy.plugin import in_band_error

if TYPE_CHECKING:
    from collections.abc import Iterable

_REASON: Final = re.compile(rb'"finish_reason":\s*"([^"]*)"')
_CALLS: Final = re.compile(rb'"(?:tool_calls|function_call)":\s*(?:\[\s*)?\{')
_SAID: Final = frozenset({"stop"})
_CALLED: Final = frozenset({"stop", "tool_calls", "function_call"})
_ITEMS: Final = frozenset({"message", "reasoning"})
_CALLING_ITEMS: Final = _ITEMS | {"function_call", "custom_tool_call"}


def is_kept(shape: str, body: bytes, *, is_stream: bool, has_one_choice: bool, tool_calls: bool) -> bool:
    """Of an answer that came to its end. `tool_calls`: those that call tools are kept."""
    if shape == "responses":
        return _is_good_response(_response(body, is_stream=is_stream), tool_calls=tool_calls)
    if not is_stream and not (body.startswith(b"{") and body.rstrip().endswith(b"}")):
        return False
    has_error = body.rfind(b'"error"') >= 0  # from the end: faster with texts that are long
    if shape == "embeddings":
        return not has_error and b'"embedding"' in body
    if not tool_calls and body.rfind(b"_call") >= 0 and _CALLS.search(body):
        return False
    reasons = _REASON.findall(body)
    if has_one_choice and len(reasons) == 1 and not has_error:
        return reasons[0].decode("ascii", "replace") in (_CALLED if tool_calls else _SAID)
    values = list(values_of(body)) if is_stream else _parsed(body)
    return _ended_well(values, _CALLED if tool_calls else _SAID)


def _ended_well(values: list[dict[str, Any]], good: frozenset[str]) -> bool:
    """Whether all choices have, however many there are."""
    reasons = _reasons(values)
    return bool(reasons) and not any(map(in_band_error, values)) and all(reason in good for reason in reasons.values())


def _reasons(values: Iterable[dict[str, Any]]) -> dict[Any, Any]:
    """How each choice ended; None: it has not."""
    reasons: dict[Any, Any] = {}
    for value in values:
        for choice in value.get("choices") or ():
            if isinstance(choice, dict):
                index = choice.get("index", 0)
                reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return reasons


def _response(body: bytes, *, is_stream: bool) -> dict[str, Any]:
    """The whole response; nothing where there is none, or an error."""
    values = list(values_of(body)) if is_stream else _parsed(body)
    if not values or any(map(in_band_error, values)):
        return {}
    if not is_stream:
        return values[0]
    whole = values[-1].get("response") if values[-1].get("type") == "response.completed" else None
    return whole if isinstance(whole, dict) else {}


def _is_good_response(whole: dict[str, Any], *, tool_calls: bool) -> bool:
    output = whole.get("output")
    if whole.get("status") != "completed" or whole.get("incomplete_details") or not isinstance(output, list):
        return False
    kinds = {item.get("type") if isinstance(item, dict) else None for item in output}
    return bool(output) and kinds <= (_CALLING_ITEMS if tool_calls else _ITEMS)


def _parsed(body: bytes) -> list[dict[str, Any]]:
    try:
        value = orjson.loads(body)
    except ValueError:
        return []
    return [value] if isinstance(value, dict) else []
