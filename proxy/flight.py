"""One answer for several exchanges: it stands between what brings the answer and the relays of all who read it.

What has come is held up to `room` bytes, so that who joins late gets it from its start, and each reader goes at its own
pace. Beyond that nobody can join, what all have read is let go, and the slowest counts: alone it slows the upstream
down, as ever; who lags behind others by more than `room` is let go. A flight lives until its last reader has left, and
until then the exchange that brings the answer, its leader, goes on also when its app has left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from proxy.errors import DownstreamStalled, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.errors import ProxyError
    from proxy.exchange import Exchange
    from proxy.headers import Fields
    from proxy.upstream.incoming import Flow, Receiver

PIECE_BYTES = 64 * 1024
"""Of what is there already, so much is handed to a relay in one go."""
STALL_SECONDS = 60.0
"""How long a reader may take nothing."""


class Flight:
    """`feed`, `end` and `fail` bring the answer: an upstream's, once `board`ed, or whoever made the flight calls them.

    `on_over` is called once: the answer has ended (`is_complete`), broken off, or nobody wanted the rest of it.
    """

    __slots__ = (
        "_flow",
        "_gone",
        "_is_attached",
        "_is_paused",
        "_leader",
        "_on_over",
        "_passengers",
        "_room",
        "chunks",
        "error",
        "is_complete",
        "is_over",
        "size",
        "trailers",
    )

    def __init__(self, room: int, on_over: Callable[[Flight], None], leader: Exchange | None = None) -> None:
        self._room = room
        self._on_over: Callable[[Flight], None] | None = on_over
        self._leader = leader
        self._flow: Flow | None = None
        self._passengers: list[Passenger] = []
        self._is_attached = self._is_paused = False
        self._gone = 0
        self.chunks: list[bytes] = []
        self.size = 0
        self.is_over = self.is_complete = False
        self.error: ProxyError | None = None
        self.trailers: Fields = []

    def board(self, flow: Flow) -> Passenger:
        """The leader's own reader, to be put in the place of the answer that it was given."""
        self._flow = flow
        return self._seat(Passenger(self, flow))

    def join(self, guard: Callable[[Receiver], Receiver] | None = None) -> Passenger:
        """One more reader, from the start; only while the flight `is_open`. `guard` may change what its relay gets."""
        if self._leader is not None:
            self._leader.hold()
        return self._seat(Passenger(self, None, guard))

    @property
    def is_open(self) -> bool:
        """Whether all that has come is here, and nothing has gone wrong."""
        return self.size <= self._room and self.error is None and (self.is_complete or not self.is_over)

    # -- the answer's side

    def feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.size += len(chunk)
        for passenger in (*self._passengers,):
            passenger.go_on()
        if self.size > self._room:
            self._make_room()

    def end(self, trailers: Fields) -> None:
        self.trailers, self.is_complete = trailers, True
        self._close()

    def fail(self, error: ProxyError) -> None:
        self.error = error
        self._close()

    # -- the readers' side

    def start(self) -> None:
        if not self._is_attached and self._flow is not None:
            self._is_attached = True
            self._flow.attach(self)

    def leave(self, passenger: Passenger) -> None:
        if passenger not in self._passengers:
            return
        self._passengers.remove(passenger)
        if not self._passengers and not self.is_over:
            self.is_over = True
            if self._flow is not None:
                self._flow.finish()
            self._tell()
        leader = self._leader
        if self.is_over and not self._passengers:
            self._leader = None  # it refers to its answer, and that to this
        if leader is not None and not passenger.leads:
            leader.release()
        if self._is_paused:
            self.relieve()

    def orphan(self) -> None:
        """The leader's exchange has ended: an answer that it had to look after cannot go on."""
        if self._flow is not None and not (self._flow.is_pushed or self.is_over):
            self._flow.cancel()
            self.fail(Interrupted("the exchange that brought this answer has ended"))

    def relieve(self) -> None:
        """A reader has caught up by some."""
        if self.size > self._room:
            self._let_go()
        if self._is_paused and self.size - self._gone <= self._room // 2 and self._flow is not None:
            self._is_paused = False
            self._flow.resume()

    # -- inside

    def _seat(self, passenger: Passenger) -> Passenger:
        self._passengers.append(passenger)
        return passenger

    def _close(self) -> None:
        self.is_over = True
        for passenger in tuple(self._passengers):
            passenger.go_on()
        self._tell()

    def _tell(self) -> None:
        on_over, self._on_over = self._on_over, None
        if on_over is not None:
            on_over(self)

    def _make_room(self) -> None:
        self._let_go()
        if self.size - self._gone <= self._room:
            return
        last = len(self.chunks)
        if any(passenger.at == last for passenger in self._passengers):
            for passenger in [slow for slow in self._passengers if not slow.at]:
                passenger.interrupt(DownstreamStalled("the client reads too far behind those that share its answer"))
            self._let_go()
        elif not self._is_paused and self._flow is not None:
            self._is_paused = True
            self._flow.pause()

    def _let_go(self) -> None:
        """What all have read."""
        read = min((passenger.at for passenger in self._passengers), default=0)
        if read:
            self._gone += sum(map(len, self.chunks[:read]))
            del self.chunks[:read]
            for passenger in self._passengers:
                passenger.at -= read


class Passenger:
    """A reader of a flight: to its relay it looks like an upstream's answer. `at`: how many chunks it has had."""

    is_pushed: ClassVar[bool] = True
    at_hand: None = None
    __slots__ = ("_flight", "_flow", "_guard", "_is_paused", "_lost", "_over", "_receiver", "_stalls", "at")

    def __init__(self, flight: Flight, flow: Flow | None, guard: Callable[[Receiver], Receiver] | None = None) -> None:
        """`flow`: the answer itself, where this is its leader's."""
        self._flight = flight
        self._flow = flow
        self._guard = guard
        self._receiver: Receiver | None = None
        self._over: asyncio.Future[None] | None = None
        self._stalls: asyncio.TimerHandle | None = None
        self._lost: ProxyError | None = None
        self._is_paused = False
        self.at = 0

    @property
    def leads(self) -> bool:
        return self._flow is not None

    # -- as an answer

    def attach(self, receiver: Receiver) -> None:
        if self._lost is not None:
            receiver.fail(self._lost)
            return
        self._receiver = receiver if self._guard is None else self._guard(receiver)
        self._flight.start()
        self.go_on()

    async def over(self) -> None:
        """The leader's own lasts as long as others read, whatever becomes of its relay."""
        if self._flow is not None:
            await self._flow.over()
        if self._receiver is not None:
            self._over = asyncio.get_running_loop().create_future()
            await self._over

    def pause(self) -> None:
        self._is_paused = True
        if self._stalls is None:
            self._stalls = asyncio.get_running_loop().call_later(STALL_SECONDS, self._stall)

    def resume(self) -> None:
        self._is_paused = False
        self._awake()
        self.go_on()
        self._flight.relieve()

    def cancel(self) -> None:
        self._leave()
        if self._flow is not None:
            self._flight.orphan()

    def finish(self) -> None:
        self._leave()

    def interrupt(self, error: ProxyError) -> None:
        receiver, self._lost = self._receiver, error
        self._leave()
        if receiver is not None:
            receiver.fail(error)

    # -- the flight's side

    def go_on(self) -> None:
        """Hand on what has come, as far as the relay takes it."""
        flight = self._flight
        chunks = flight.chunks
        while (receiver := self._receiver) is not None and not self._is_paused:
            left = len(chunks) - self.at
            if left == 1 and not flight.is_over:
                self.at += 1
                receiver.feed(chunks[-1])
                return
            if not left:
                if flight.is_over:
                    self._end(receiver)
                return
            receiver.feed(self._next())

    def _next(self) -> bytes:
        chunks, start, size = self._flight.chunks, self.at, 0
        while self.at < len(chunks) and size < PIECE_BYTES:
            size += len(chunks[self.at])
            self.at += 1
        return b"".join(chunks[start : self.at])

    def _end(self, receiver: Receiver) -> None:
        flight = self._flight
        self._leave()
        if flight.error is None:
            receiver.end(flight.trailers)
        else:
            receiver.fail(flight.error)

    def _stall(self) -> None:
        self.interrupt(DownstreamStalled("the client stopped reading its answer"))

    def _awake(self) -> None:
        if self._stalls is not None:
            self._stalls.cancel()
            self._stalls = None

    def _leave(self) -> None:
        self._receiver = None
        self._awake()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        self._flight.leave(self)
