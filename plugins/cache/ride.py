"""An answer on its way, and those who ask the same while it is: one exchange leads, the others get what it gets.

A ride begins when the leader's request has found nothing kept. Once its answer is known, all who wait board its flight,
or are told its failure: they asked for the very same. An answer that is whole already, and that nobody waits for, needs
no flight. Where the leader ends without an answer, or with one that cannot be shared, one of those who wait leads the
next ride, and after that each goes alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from typing_extensions import override

from plugins.cache.stream import HideUsage
from proxy.plugin import Flight, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.cache.request import Asked
    from proxy.plugin import Exchange

TRIES = 2


class Ride:
    """`response`: the upstream's answer, once it begins; `body`: all of it, once it is whole."""

    __slots__ = ("_known", "_told", "asked", "body", "flight", "has_ended", "is_stream", "leader", "response")

    def __init__(self, asked: Asked, leader: Exchange) -> None:
        self.asked = asked
        self.leader = leader
        self.flight: Flight | None = None
        self.body = b""
        self.response: Response | None = None
        self.is_stream = self.has_ended = False
        self._told: Response | None = None
        self._known: asyncio.Event | None = None

    @property
    def is_awaited(self) -> bool:
        return self._known is not None

    # -- the leader's side

    def begin(self, response: Response) -> None:
        """The upstream has answered."""
        self.response, self.is_stream = response, response.is_event_stream

    def board(self, response: Response, flight: Flight) -> None:
        """From now on the answer comes through the flight."""
        assert response.incoming is not None
        self.flight, response.incoming = flight, flight.board(response.incoming)
        self._wake()

    def tell(self, response: Response) -> None:
        """What Weir or the upstream said instead of an answer; those who wait get the same."""
        self._told = response
        self.end()

    def end(self) -> None:
        """There is nothing to board any more, or there never was."""
        self.has_ended = True
        self._wake()

    # -- the others' side

    @property
    def admits(self) -> bool:
        return not self.has_ended and (self.flight is None or self.flight.is_open)

    async def answer(self) -> Response | None:
        """None: there is nothing to share."""
        if self.flight is not None:
            return self._boarded()
        self.leader.hold()
        try:
            await self._until_known()
            return self._boarded() if self._told is None else _again(self._told)
        finally:
            self.leader.release()

    def _boarded(self) -> Response | None:
        begun, flight = self.response, self.flight
        if begun is None or flight is None or not flight.is_open:
            return None
        response = Response(200)
        fields = {b"content-type": begun.field(b"content-type") or b"application/json"}
        if not self.is_stream and (length := begun.field(b"content-length")):
            fields[b"content-length"] = length
        response.set_fields(fields)
        response.incoming = flight.join(HideUsage if self.is_stream and self.asked.hides_usage else None)
        return response

    async def _until_known(self) -> None:
        self._known = self._known or asyncio.Event()
        await self._known.wait()

    def _wake(self) -> None:
        if self._known is not None:
            self._known.set()


class Paced(Flight):
    """Remembers when each piece came."""

    __slots__ = ("times",)

    def __init__(self, room: int, on_over: Callable[[Flight], None], leader: Exchange) -> None:
        super().__init__(room, on_over, leader)
        self.times = [leader.started]

    @override
    def feed(self, chunk: bytes) -> None:
        self.times.append(time.monotonic())
        super().feed(chunk)

    def pace(self) -> list[tuple[int, int]]:
        """Of each piece, the milliseconds before it and its length."""
        waits = zip(self.times, self.times[1:], self.chunks, strict=False)
        return [(round((later - before) * 1000), len(chunk)) for before, later, chunk in waits]


def _again(told: Response) -> Response:
    response = Response.of_fields(told, list(told.fields()))
    response.body = told.body
    return response
