"""The three ways of counting, in memory and without a clock of their own: seconds come in, `now` never goes back.

A window is counted in slices: what was taken within a slice counts until the window has passed for the whole of it,
so that never more than the limit is taken in any such span, and room comes back a sixtieth of it late at the most.
"""

from __future__ import annotations

from collections import deque

SLICES = 60


class Window:
    """What was taken in the last `seconds`."""

    __slots__ = ("_slices", "_used", "_width")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / SLICES
        self._slices: deque[list[int]] = deque()  # number, amount; the oldest first
        self._used = 0

    def used(self, now: float) -> int:
        first, slices = int(now / self._width) - SLICES, self._slices
        while slices and slices[0][0] < first:
            self._used -= slices.popleft()[1]
        return self._used

    def add(self, now: float, amount: int) -> None:
        number, slices = int(now / self._width), self._slices
        if slices and slices[-1][0] == number:
            slices[-1][1] += amount
        else:
            slices.append([number, amount])
        self._used += amount

    def correct(self, at: float, now: float, more: int) -> None:
        """Of what was taken at `at`: less of it counts no longer than it would have, more of it counts from now on."""
        self.used(now)
        number = int(at / self._width)
        found = next((slice_ for slice_ in reversed(self._slices) if slice_[0] == number), None)
        if found is not None:
            more = max(more, -found[1])
            found[1] += more
            self._used += more
        elif more > 0:
            self.add(now, more)

    def seconds_until(self, most: int, now: float) -> float:
        """Until no more than `most` is used, if nothing else is taken."""
        over, free_at = self.used(now) - most, now
        for number, amount in self._slices:
            if over <= 0:
                break
            over -= amount
            free_at = (number + SLICES + 1) * self._width
        return free_at - now

    def is_idle(self, now: float) -> bool:
        return not self.used(now) and not self._slices


class Total:
    """What was taken since the first time, until `seconds` after it."""

    __slots__ = ("_ends_at", "_used")

    def __init__(self, seconds: float, now: float) -> None:
        self._ends_at = now + seconds
        self._used = 0

    def used(self, now: float) -> int:
        return self._used if now < self._ends_at else 0

    def add(self, now: float, amount: int) -> None:
        del now
        self._used += amount

    def correct(self, at: float, now: float, more: int) -> None:
        del at, now
        self._used = max(self._used + more, 0)

    def seconds_until(self, most: int, now: float) -> float:
        return 0.0 if self._used <= most else max(self._ends_at - now, 0.0)

    def is_idle(self, now: float) -> bool:
        return now >= self._ends_at


class Slots:
    """What is taken now."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used = 0

    def used(self, now: float) -> int:
        del now
        return self._used

    def add(self, now: float, amount: int) -> None:
        del now
        self._used += amount

    def correct(self, at: float, now: float, more: int) -> None:
        """A slot is given back as a whole, when its exchange ends."""

    def give_back(self, amount: int) -> None:
        self._used -= amount

    def seconds_until(self, most: int, now: float) -> float:
        """Nobody knows."""
        del most, now
        return 0.0

    def is_idle(self, now: float) -> bool:
        del now
        return not self._used
