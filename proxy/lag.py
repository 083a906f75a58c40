"""How late the event loop is: the worst of the last while, so that whoever looks now and then misses nothing.

All work of a process is done by one loop: while a callback runs, every stream waits. A timer that fires late shows it.
"""

from __future__ import annotations

LOOK_SECONDS = 0.1
"""How often: a callback that blocks for longer than this is always seen, less the rest of the timer's time."""

SPAN_SECONDS = 30.0
"""What was seen is told for as long, and up to twice as long."""


class Lag:
    def __init__(self) -> None:
        self._span = 0.0
        self._worst = self._before = 0.0

    def noted(self, now: float, late: float) -> float:
        """The worst of this span and the one before. Seconds, of a clock that only goes forward."""
        span = now // SPAN_SECONDS
        if span > self._span:
            self._before = self._worst if span == self._span + 1 else 0.0
            self._span, self._worst = span, 0.0
        self._worst = max(self._worst, late)
        return max(self._worst, self._before)
