"""How many of an upstream's calls failed lately: counted in slices of time, of which the oldest drops out whole."""

from __future__ import annotations

from collections import deque

SLICES = 10


class Window:
    """`calls` and `failures` of the last `seconds`, to a tenth of them; `now` never goes back."""

    def __init__(self, seconds: float) -> None:
        self.calls = self.failures = 0
        self._width = seconds / SLICES
        self._slices: deque[tuple[int, int, int]] = deque()  # number, calls, failures

    def add(self, now: float, *, failed: bool) -> None:
        number = int(now / self._width)
        self._forget(number - SLICES)
        calls, failures = self._slices.pop()[1:] if self._slices and self._slices[-1][0] == number else (0, 0)
        self._slices.append((number, calls + 1, failures + failed))
        self.calls += 1
        self.failures += failed

    def _forget(self, last: int) -> None:
        """Slices up to `last` are over."""
        while self._slices and self._slices[0][0] <= last:
            _, calls, failures = self._slices.popleft()
            self.calls -= calls
            self.failures -= failures
