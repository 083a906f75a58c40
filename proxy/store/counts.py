"""The three ways of counting, in memory and without a clock of their own: seconds come in, `now` never goes back.

A window is counted in slices: what was taken within a slice counts until the window has passed for the whole of it,
so that never more than the limit is taken in any such span, and room comes back a sixtieth of it late at the most.

Of each, `taken` is what counts `until` then, if nothing else is taken.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

SLICES = 60


class Window:
    """What was taken in the last `seconds`."""

    __slots__ = ("_last", "_seconds", "_slices", "_width", "taken", "until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._width = seconds / SLICES
        self._last: list[Any] = [-math.inf, 0]
        self._slices: deque[list[Any]] = deque()  # when it ends, the amount; the oldest first
        self.until = math.inf
        self.taken = 0

    def used(self, now: float) -> int:
        if now >= self.until:
            self._forget(now)
        return self.taken

    def add(self, now: float, amount: int) -> None:
        if now >= self._last[0]:
            self._begin(now)
        self._last[1] += amount
        self.taken += amount

    def correct(self, at: float, now: float, more: int) -> None:
        """As if this had been known when it was taken, `at`; what has no place there any more counts from now on."""
        if now >= self.until:
            self._forget(now)
        for slice_ in reversed(self._slices):
            if slice_[0] - self._width <= at < slice_[0]:
                more = max(more, -slice_[1])
                slice_[1] += more
                self.taken += more
                return
        if more > 0:
            self.add(now, more)

    def seconds_until(self, most: int, now: float) -> float:
        """Until no more than `most` is used, if nothing else is taken."""
        over, free_at = self.used(now) - most, now
        for ends, amount in self._slices:
            if over <= 0:
                break
            over -= amount
            free_at = ends + self._seconds
        return free_at - now

    def idle_at(self) -> float:
        """When nothing of it is left, if nothing else is taken."""
        return float(self._last[0] + self._seconds)

    def _begin(self, now: float) -> None:
        ends = (now // self._width + 1) * self._width
        self._last = [ends if ends > now else ends + self._width, 0]
        self._slices.append(self._last)
        if len(self._slices) == 1:
            self.until = self._last[0] + self._seconds

    def _forget(self, now: float) -> None:
        slices = self._slices
        while slices and slices[0][0] + self._seconds <= now:
            self.taken -= slices.popleft()[1]
        self.until = slices[0][0] + self._seconds if slices else math.inf


class Total:
    """What was taken since the first time, until `seconds` after it."""

    __slots__ = ("_seconds", "taken", "until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.until = -math.inf
        self.taken = 0

    def used(self, now: float) -> int:
        return self.taken if now < self.until else 0

    def add(self, now: float, amount: int) -> None:
        if now >= self.until:
            self.taken, self.until = 0, now + self._seconds
        self.taken += amount

    def correct(self, at: float, now: float, more: int) -> None:
        del at
        more = max(more, -self.used(now))
        if more:
            self.add(now, more)

    def seconds_until(self, most: int, now: float) -> float:
        return self.until - now if self.used(now) > most else 0.0

    def idle_at(self) -> float:
        return self.until


class Slots:
    """What is taken now."""

    __slots__ = ("taken",)

    until = math.inf

    def __init__(self) -> None:
        self.taken = 0

    def used(self, now: float) -> int:
        del now
        return self.taken

    def add(self, now: float, amount: int) -> None:
        del now
        self.taken += amount

    def correct(self, at: float, now: float, more: int) -> None:
        """A slot is given back as a whole, when its exchange ends."""

    def give_back(self, amount: int) -> None:
        self.taken = max(self.taken - amount, 0)

    def seconds_until(self, most: int, now: float) -> float:
        """Nobody knows."""
        del most, now
        return 0.0

    def idle_at(self) -> float:
        return math.inf if self.taken else -math.inf
