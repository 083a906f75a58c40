"""The three ways of counting, in memory and without a clock of their own: seconds come in, `now` never goes back.

A window is counted in slices: what was taken within a slice counts until the window has passed for the whole of it,
so that never more than the limit is taken in any such span, and room comes back a sixtieth of it late at the most.

Of each, `taken` is what counts: it is right `until` then, may be added to and taken from as long, and is right again
after a `roll`. So who counts for every request has only to add.
"""

from __future__ import annotations

import math
from collections import deque

SLICES = 60


class Window:
    """What was taken in the last `seconds`."""

    __slots__ = ("_before", "_ends", "_seconds", "_slices", "_width", "taken", "until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._width = seconds / SLICES
        self._slices: deque[tuple[float, int]] = deque()  # those before: when each ends, its amount
        self._before = 0  # their sum; all else that is taken is in the slice of now
        self._ends = self.until = -math.inf
        self.taken = 0

    def roll(self, now: float) -> None:
        if now >= self._ends:
            self._slices.append((self._ends, self.taken - self._before))
            ends = (now // self._width + 1) * self._width
            self._ends, self._before = ends if ends > now else ends + self._width, self.taken
        while self._slices and self._slices[0][0] + self._seconds <= now:
            over = self._slices.popleft()[1]
            self._before -= over
            self.taken -= over
        self.until = min(self._ends, self._slices[0][0] + self._seconds) if self._slices else self._ends

    def used(self, now: float) -> int:
        if now >= self.until:
            self.roll(now)
        return self.taken

    def add(self, now: float, amount: int) -> None:
        if now >= self.until:
            self.roll(now)
        self.taken += amount

    def correct(self, at: float, now: float, more: int) -> None:
        """As if this had been known when it was taken, `at`; what has no place there any more counts from now on."""
        if now >= self.until:
            self.roll(now)
        if at >= self._ends - self._width:
            self.taken += max(more, self._before - self.taken)
        elif not self._has_corrected(at, more) and more > 0:
            self.add(now, more)

    def _has_corrected(self, at: float, more: int) -> bool:
        for place in range(len(self._slices) - 1, -1, -1):
            ends, amount = self._slices[place]
            if ends - self._width <= at < ends:
                more = max(more, -amount)
                self._slices[place] = (ends, amount + more)
                self._before += more
                self.taken += more
                return True
        return False

    def seconds_until(self, most: int, now: float) -> float:
        """Until no more than `most` is used, if nothing else is taken."""
        over, free_at = self.used(now) - most, now
        for ends, amount in (*self._slices, (self._ends, self.taken - self._before)):
            if over <= 0:
                break
            if not amount:
                continue
            over -= amount
            free_at = ends + self._seconds
        return free_at - now

    def idle_at(self) -> float:
        """When nothing of it is left, if nothing else is taken."""
        return self._ends + self._seconds


class Total:
    """What was taken since the first time, until `seconds` after it."""

    __slots__ = ("_seconds", "taken", "until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.until = -math.inf
        self.taken = 0

    def roll(self, now: float) -> None:
        self.taken, self.until = 0, now + self._seconds

    def used(self, now: float) -> int:
        return self.taken if now < self.until else 0

    def add(self, now: float, amount: int) -> None:
        if now >= self.until:
            self.roll(now)
        self.taken += amount

    def correct(self, at: float, now: float, more: int) -> None:
        del at
        more = max(more, -self.used(now))
        if more:
            self.add(now, more)

    def seconds_until(self, most: int, now: float) -> float:
        return self.until - now if self.taken and self.used(now) > most else 0.0

    def idle_at(self) -> float:
        return self.until


class Slots:
    """What is taken now."""

    __slots__ = ("taken",)

    until = math.inf

    def __init__(self) -> None:
        self.taken = 0

    def roll(self, now: float) -> None:
        """A slot has no time."""

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
