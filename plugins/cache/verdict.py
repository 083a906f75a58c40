"""Whether an answer is kept: only one that is whole, without an error, and that ended because all was said.

Most streams are not parsed for that. Quotes within JSON strings are escaped, so that no text can look like one of the
keys that are sought: an answer of one choice needs one look at its finish reasons, and one at its usage.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from plugins.cache.stream import values_of
from proxy.plugin import Usage, in_band_error, usage_from_body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plugins.cache.request import Asked

_REASON: Final = re.compile(rb'"finish_reason":\s*"([^"]*)"')
_CALLS: Final = re.compile(rb'"(?:tool_calls|function_call)":\s*(?:\[\s*)?\{')
_USAGE: Final = re.compile(rb'"usage":\s*\{')
_MODEL: Final = re.compile(rb'"model":\s*("(?:[^"\\]|\\.)*")')
_SAID: Final = frozenset({"stop"})
_CALLED: Final = frozenset({"stop", "tool_calls", "function_call"})
_ITEMS: Final = frozenset({"message", "reasoning"})
_CALLING_ITEMS: Final = _ITEMS | {"function_call", "custom_tool_call"}


class Verdict(NamedTuple):
    """Of an answer that is kept. `tells_usage`: it reports one."""

    tells_usage: bool
    usage: Usage
    served: str | None


def verdict(asked: Asked, body: bytes, *, is_stream: bool, tool_calls: bool) -> Verdict | None:
    """None: it is not kept. `tool_calls`: answers that call tools are."""
    if asked.shape == "embeddings":
        return _embeddings(body)
    if not is_stream:
        return _json(asked.shape, body, tool_calls=tool_calls)
    if asked.shape == "responses":
        return _response_stream(body, tool_calls=tool_calls)
    if asked.choices == 1 and b'"error"' not in body and len(_REASON.findall(body)) == 1:
        return _plain_stream(body, tool_calls=tool_calls)
    return _any_stream(body, tool_calls=tool_calls)


def _embeddings(body: bytes) -> Verdict | None:
    """Not parsed: long lists of numbers that came to their end."""
    if b'"error"' in body or b'"embedding"' not in body or not body.rstrip().endswith(b"}"):
        return None
    return _told(_object_around_usage(body), body)


def _json(shape: str, body: bytes, *, tool_calls: bool) -> Verdict | None:
    value = _parsed(body)
    if value is None or in_band_error(value) is not None:
        return None
    if shape == "responses":
        return _response(value, tool_calls=tool_calls)
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or (not tool_calls and _CALLS.search(body)):
        return None
    if not all(isinstance(choice, dict) and _is_good(choice.get("finish_reason"), tool_calls) for choice in choices):
        return None
    return _told(value, body)


def _response(value: dict[str, Any], *, tool_calls: bool) -> Verdict | None:
    output = value.get("output")
    if value.get("status") != "completed" or value.get("incomplete_details") or not isinstance(output, list):
        return None
    kinds = {item.get("type") if isinstance(item, dict) else None for item in output}
    if not output or not kinds <= (_CALLING_ITEMS if tool_calls else _ITEMS):
        return None
    return _told(value, b"")


def _response_stream(body: bytes, *, tool_calls: bool) -> Verdict | None:
    values = list(values_of(body))
    if not values or values[-1].get("type") != "response.completed" or any(map(in_band_error, values)):
        return None
    whole = values[-1].get("response")
    return _response(whole, tool_calls=tool_calls) if isinstance(whole, dict) else None


def _plain_stream(body: bytes, *, tool_calls: bool) -> Verdict | None:
    reason = _REASON.search(body)
    if reason is None or not _is_good(reason[1].decode("ascii", "replace"), tool_calls):
        return None
    if not tool_calls and _CALLS.search(body):
        return None
    return _told(_object_around_usage(body), body)


def _any_stream(body: bytes, *, tool_calls: bool) -> Verdict | None:
    values = list(values_of(body))
    reasons = _reasons(values)
    if not reasons or any(map(in_band_error, values)) or (not tool_calls and _CALLS.search(body)):
        return None
    if not all(_is_good(reason, tool_calls) for reason in reasons.values()):
        return None
    return _told(_object_around_usage(body), body)


def _reasons(values: Iterable[dict[str, Any]]) -> dict[Any, Any]:
    """How each choice ended; None: it has not."""
    reasons: dict[Any, Any] = {}
    for value in values:
        for choice in value.get("choices") or ():
            if isinstance(choice, dict):
                index = choice.get("index", 0)
                reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return reasons


def _is_good(reason: Any, tool_calls: bool) -> bool:  # noqa: FBT001 - read at three places beside each other
    return isinstance(reason, str) and reason in (_CALLED if tool_calls else _SAID)


def _told(value: dict[str, Any] | None, body: bytes) -> Verdict:
    """What is known of its usage and model, from the object that has a usage, or from all."""
    usage = None if value is None else usage_from_body(value)
    model = None if value is None else value.get("model")
    if model is None and (found := _MODEL.search(body)):
        model = orjson.loads(found[1])
    return Verdict(usage is not None, usage or Usage(), model if isinstance(model, str) else None)


def _object_around_usage(body: bytes) -> dict[str, Any] | None:
    """The last event, or the whole JSON, that reports a usage; of embeddings that report alone."""
    found = next(reversed(list(_USAGE.finditer(body))), None)
    if found is None:
        return None
    start, end = body.rfind(b"\n", 0, found.start()) + 1, body.find(b"\n", found.end())
    line = body[start : end if end >= 0 else len(body)].removeprefix(b"data:")
    if len(line) > _LONG:
        report = body[found.end() - 1 : body.find(b"}", found.end()) + 1]
        return {"usage": _parsed(report)}
    return _parsed(line)


_LONG: Final = 64 * 1024


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
