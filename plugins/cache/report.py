"""What a kept answer says of itself: its usage and its model, found in the bytes without reading the rest.

Quotes within JSON strings are escaped, so that no text can look like the keys that are sought.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import orjson

from proxy.plugin import Usage, usage_from_body

_USAGE: Final = re.compile(rb'"usage":\s*\{')
_MODEL: Final = re.compile(rb'"model":\s*("(?:[^"\\]|\\.)*")')
_LONG: Final = 64 * 1024
"""A longer object, of embeddings, is not parsed for its usage."""


class Report(NamedTuple):
    """`usage`: None where it tells none."""

    usage: Usage | None
    served: str | None


def report_of(body: bytes) -> Report:
    around = _around_usage(body)
    found = _MODEL.search(body)
    return Report(None if around is None else usage_from_body(around), orjson.loads(found[1]) if found else None)


def _around_usage(body: bytes) -> dict[str, Any] | None:
    """The last event, or the whole JSON, that has a usage; of a long one the usage alone."""
    at = body.rfind(b'"usage":')
    while at >= 0 and (found := _USAGE.match(body, at)) is None:
        at = body.rfind(b'"usage":', 0, at)
    if at < 0 or found is None:
        return None
    start, end = body.rfind(b"\n", 0, at) + 1, body.find(b"\n", at)
    line = body[start : end if end >= 0 else len(body)].removeprefix(b"data:")
    value = _parsed(line) if len(line) <= _LONG else None
    return value or {"usage": _parsed(body[found.end() - 1 : body.find(b"}", at) + 1])}


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    return _within(value) if isinstance(value, dict) else None


def _within(value: dict[str, Any]) -> dict[str, Any]:
    """The response that an event of the Responses API brings."""
    response = value.get("response")
    return response if isinstance(response, dict) else value
