"""A kept stream that is given again at the pace at which it came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.plugin import Flight

if TYPE_CHECKING:
    from plugins.cache.entry import Entry


class Replay:
    """Feeds a flight of one reader; ends when that leaves."""

    def __init__(self, entry: Entry) -> None:
        self.flight = Flight(len(entry.body), self._stop)
        self._body = entry.body
        self._left = list(reversed(entry.pace))
        self._at = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def _wait(self) -> None:
        if self._left:
            self._timer = self._loop.call_later(self._left[-1][0] / 1000, self._go_on)
        else:
            self._timer = None
            self.flight.end([])

    def _go_on(self) -> None:
        _, size = self._left.pop()
        begin, self._at = self._at, self._at + size
        self.flight.feed(self._body[begin : self._at])
        if not self.flight.is_over:
            self._wait()

    def _stop(self, flight: Flight) -> None:
        del flight
        if self._timer is not None:
            self._timer.cancel()
