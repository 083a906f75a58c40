"""How much an upstream has to do, and how fast it gets done: counted as requests come and go, with what it says itself.

A server's own metrics know what others have sent to it, but they are read only now and then. So what was read counts
for the others, and this process's own requests are counted as they are. A reading that is old counts for nothing.

The time of an upstream is shared among those under way in equal parts, whoever sent them. What its requests had of it
together is what it was busy, so that its pace (seconds of its time per request) holds for an idle server and a full
one alike, and so that money by the hour can be told by the request.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY_SECONDS = 60.0
"""What is so long ago counts for a third."""
DOUBT = 1.0
"""As many requests, of the pace that is usual elsewhere, are thought to have been served before the first one."""


class Reading(NamedTuple):
    """What a server says of itself: requests that it works on, and that wait in it."""

    running: float
    waiting: float


class Work:
    """`share`: the seconds that one request would have had that was under way from the start.

    `busy`: what all of this process's had; `idle`: when there was nothing to do. `slots`: how many the server worked on
    when others had to wait for it; infinity until that was seen.
    """

    __slots__ = (
        "_at",
        "_clock",
        "_ended",
        "_fresh_until",
        "_others",
        "_spent",
        "_wall",
        "busy",
        "idle",
        "in_flight",
        "on_room",
        "reading",
        "share",
        "slots",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self.in_flight = 0
        self.share = self.busy = self.idle = 0.0
        self._ended = self._spent = self._wall = 0.0
        self._fresh_until = -math.inf
        self._others = 0.0
        self.slots = math.inf
        self.reading: Reading | None = None
        self.on_room: list[Callable[[], None]] = []
        """Called when there may be room for one more."""

    def begin(self) -> float:
        """A request is under way; what is returned is for its `end`."""
        self.advance()
        self.in_flight += 1
        return self.share

    def end(self, mark: float) -> float:
        """The seconds that it had of the upstream's time."""
        self.advance()
        self.in_flight -= 1
        for call in self.on_room:
            call()
        return self.share - mark

    def served(self) -> None:
        """One that ended was served."""
        self._ended += 1.0

    def read(self, reading: Reading, own: int, seconds: float) -> None:
        """`own`: how many of this process's were in it; it counts for so many `seconds`."""
        self.advance()
        self.reading = reading
        self._others = max(reading.running + reading.waiting - own, 0.0)
        self._fresh_until = self._at + seconds
        if reading.waiting or reading.running > self.slots:
            self.slots = max(reading.running, 1.0)
        for call in self.on_room:
            call()

    def load(self) -> float:
        """Requests under way in it, others' too, as far as that is known."""
        return self.in_flight + (self._others if self._clock() < self._fresh_until else 0.0)

    def is_fresh(self) -> bool:
        return self._clock() < self._fresh_until

    def pace(self, usual: float) -> float:
        """Seconds of its time per request; `usual` where nothing is known."""
        return (self._spent + DOUBT * usual) / (self._ended + DOUBT)

    def per_second(self) -> float:
        """How many of this process's requests it gets done while it has some; 0 where nothing is known."""
        return self._ended / self._wall if self._wall else 0.0

    def wait(self, usual: float) -> float:
        """Seconds that one more would wait in it until it is worked on, as far as its slots are known."""
        return max(self.load() + 1.0 - self.slots, 0.0) * self.pace(usual)

    def advance(self) -> None:
        """To now."""
        now = self._clock()
        past = now - self._at
        if past <= 0.0:
            return
        kept = math.exp(-past / MEMORY_SECONDS)
        self._ended, self._spent, self._wall = self._ended * kept, self._spent * kept, self._wall * kept
        others = self._others if self._at < self._fresh_until else 0.0
        self._at = now
        if self.in_flight:
            share = past / (self.in_flight + others)
            self.share += share
            self.busy += share * self.in_flight
            self._spent += share * self.in_flight
            self._wall += past
        elif not others:
            self.idle += past


def usual_pace(works: list[Work]) -> float:
    """Of those that have served, together."""
    ended = sum(work._ended for work in works)  # noqa: SLF001 - its own module's
    return sum(work._spent for work in works) / ended if ended else 1.0  # noqa: SLF001
