"""Keep-alive connections to one upstream: at most `size` at a time, the freshest first, waiters in order and bounded.

A server closes what rests too long, and a POST written into that race is lost (it must not be sent twice). So a
connection rests for less than servers allow: what their `Keep-Alive` field says, or what was seen when they closed, or
a start value: uvicorn and Node close after 5 s, balancers in front of TLS after a minute and more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import TYPE_CHECKING

from proxy.errors import ConnectFailed, Unavailable
from proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from proxy.upstream.dial import Dialer

log = logging.getLogger("weir.upstream")

REST_PLAIN = 4.0
REST_TLS = 55.0
REST_SHARE = 0.8
"""How much of a server's own patience is used."""
REST_LEAST = 0.2
FORGET_SECONDS = 600.0
QUIET_SECONDS = 60.0
EARLY = 0.01
"""A rest that ended by so much less than ours was ended by the server."""


class Pool:
    def __init__(
        self, name: str, dialer: Dialer, *, size: int, waiting: int, connect: float | None, rest: float
    ) -> None:
        """`waiting`: how many may wait for one of `size` connections; more are refused."""
        self.name = name
        self._dialer = dialer
        self._size = size
        self._max_waiting = waiting
        self._connect = connect
        self._start_rest = self._rest = rest
        self._forget_at = math.inf
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._dialing = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._quiet_until = 0.0

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def rested(self) -> Connection | None:
        """A connection that waits in the pool and is still good."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    async def fresh(self) -> Connection:
        """A new connection, or the next to come free: first come, first served.

        After the connect limit raises ConnectFailed or Unavailable, which comes at once where too many wait already.
        """
        try:
            async with asyncio.timeout(self._connect):
                return await self._turn() or await self._dial()
        except TimeoutError:
            if len(self._open) >= self._size:
                raise Unavailable(f"upstream '{self.name}': all {self._size} connections are in use") from None
            raise self._told(ConnectFailed(f"upstream '{self.name}' did not accept a connection in time")) from None
        except ConnectFailed as error:
            self._told(error)
            raise

    def _told(self, error: ConnectFailed) -> ConnectFailed:
        """The app gets to see why; who runs Weir must as well, without a line for each request."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            log.warning(error.message)
        return error

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()

    async def _turn(self) -> Connection | None:
        """A connection, or None: there is room for a new one, which is taken (`_dialing`) from now on."""
        if len(self._open) + self._dialing < self._size:
            self._dialing += 1
            return None
        if connection := self.rested():
            return connection
        if len(self._waiters) >= self._max_waiting:
            raise Unavailable(f"upstream '{self.name}': all {self._size} connections are in use, and too many wait")
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            connection = await waiter
        except BaseException:
            self._leave(waiter)
            raise
        return self._taken(connection)

    def _grant(self, connection: Connection | None) -> bool:
        """To who waits longest, together with its room, so that nobody can come between; False where nobody waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._dialing += 1
                if connection is not None:
                    self._open.discard(connection)
                waiter.set_result(connection)
                return True
        return False

    def _taken(self, connection: Connection | None) -> Connection | None:
        """The connection that was granted, where it is still good; else its room is kept for a new one."""
        if connection is None or not connection.is_usable():
            return None
        self._dialing -= 1
        self._open.add(connection)
        return connection

    def _leave(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Who waited was cancelled, maybe with something in hand."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif not waiter.cancelled():
            if connection := self._taken(waiter.result()):
                self._keep(connection)
            else:
                self._vacate()

    async def _dial(self) -> Connection:
        try:
            connection = await self._dialer.dial(lambda: Connection(self.name, self._on_idle, self._on_lost))
        except BaseException:
            self._vacate()
            raise
        self._dialing -= 1
        self._open.add(connection)
        return connection

    def _vacate(self) -> None:
        self._dialing -= 1
        self._grant(None)

    def _keep(self, connection: Connection) -> None:
        if not self._grant(connection):
            self._idle.append(connection)

    def _on_idle(self, connection: Connection) -> None:
        now = connection.idle_since = connection.loop.time()
        if now > self._forget_at:
            self._rest, self._forget_at = self._start_rest, math.inf
        if connection.keep_alive_hint < math.inf:
            self._learn(connection.keep_alive_hint, now)
        connection.rest(self._rest)
        self._keep(connection)

    def _on_lost(self, connection: Connection) -> None:
        if connection not in self._open:
            return
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            now = connection.loop.time()
            if (patience := now - connection.idle_since) < connection.rests_for - EARLY:
                self._learn(patience, now)
        self._grant(None)

    def _learn(self, patience: float, now: float) -> None:
        """The server closed after so many seconds of rest, or says that it will.

        Forgotten after a while: a restart closes connections too, and says nothing about patience.
        """
        rest = max(patience * REST_SHARE, REST_LEAST)
        if rest <= self._rest:
            self._rest, self._forget_at = rest, now + FORGET_SECONDS
