"""Where a trace comes from and goes on: W3C's `traceparent`, read and written.

A caller's decision to record is kept to. What is no traceparent begins a new trace, and its tracestate means nothing.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.plugin import Request

SAMPLED: Final = 1

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Parent(NamedTuple):
    trace_id: int
    span_id: int
    is_sampled: bool
    state: str


class Trace:
    """Of one exchange: the ids of its span and of its attempts' by their number, and when these ended (monotonic)."""

    __slots__ = ("attempts", "ends", "is_sampled", "parent", "span_id", "trace_id")

    def __init__(self, parent: Parent | None, samples: Callable[[int], bool]) -> None:
        """`samples` decides for a trace that begins here, by its id."""
        self.parent = parent
        self.trace_id = new_id(128) if parent is None else parent.trace_id
        self.is_sampled = samples(self.trace_id) if parent is None else parent.is_sampled
        self.span_id = new_id(64)
        self.attempts: dict[int, int] = {}
        self.ends: dict[int, float] = {}

    def attempt(self, number: int) -> bytes:
        """The traceparent of a new attempt."""
        span_id = self.attempts[number] = new_id(64)
        return b"00-%032x-%016x-%02x" % (self.trace_id, span_id, self.is_sampled)


def parent_of(request: Request) -> Parent | None:
    values = request.headers.getall("traceparent", ())
    found = _PARENT.fullmatch(values[0].strip()) if len(values) == 1 else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    trace_id, span_id = int(found[2], 16), int(found[3], 16)
    if not trace_id or not span_id:
        return None
    state = ",".join(request.headers.getall("tracestate", ()))
    return Parent(trace_id, span_id, bool(int(found[4], 16) & SAMPLED), state)


def new_id(bits: int) -> int:
    """Never zero, which is no id."""
    return random.getrandbits(bits) or 1
