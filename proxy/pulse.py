"""Speaks up in a silence: a comment between two events, so that nobody takes a thinking model for a dead one.

A stream is not told of its pulse: the pulse looks a few times per interval whether anything was sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.downstream import Downstream
    from proxy.stages import Heartbeat

LOOKS = 4
"""Per interval: a silence lasts at most a quarter longer than that."""


class Pulse:
    def __init__(self, downstream: Downstream, heartbeat: Heartbeat, may_beat: Callable[[], bool]) -> None:
        """`may_beat` says whether the stream is between two events; it may begin the stream first."""
        self._loop = asyncio.get_running_loop()
        self._downstream = downstream
        self._heartbeat = heartbeat
        self._may_beat = may_beat
        self._pause = heartbeat.interval / LOOKS
        self._sent = downstream.sent
        self._silent = 0
        self._timer = self._loop.call_later(self._pause, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._look)
        self._silent = self._silent + 1 if self._downstream.sent == self._sent else 0
        if self._silent >= LOOKS and self._may_beat():
            self._downstream.write(self._heartbeat.beat)
            self._silent = 0
        self._sent = self._downstream.sent
