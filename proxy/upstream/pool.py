"""Keep-alive connections to one upstream: at most `size` at a time, the freshest first, waiters in order.

A server closes what rests too long, and a POST written into that race is lost (it must not be sent twice). So a
connection rests for less than servers allow: what their `Keep-Alive` field says, or what was seen when they closed, or
a start value: uvicorn and Node close after 5 s, balancers in front of TLS after a minute and more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING

from proxy.errors import ConnectFailed, Unavailable
from proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from proxy.upstream.dial import Dialer

REST_PLAIN = 4.0
REST_TLS = 55.0
REST_SHARE = 0.8
"""How much of a server's own patience is used."""
REST_LEAST = 0.2
FORGET_SECONDS = 600.0
EARLY = 0.01
"""A rest that ended by so much less than ours was ended by the server."""


class Pool:
    def __init__(self, name: str, dialer: Dialer, *, size: int, connect: float | None, rest: float) -> None:
        self.name = name
        self._dialer = dialer
        self._size = size
        self._connect = connect
        self._start_rest = self._rest = rest
        self._forget_at = math.inf
        self._idle: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._dialing = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

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
        """A new connection, or the next to come free; after the connect limit raises ConnectFailed or Unavailable."""
        try:
            async with asyncio.timeout(self._connect):
                while len(self._open) + self._dialing >= self._size:
                    await self._wait()
                    if connection := self.rested():
                        return connection
                return await self._dial()
        except TimeoutError:
            if len(self._open) >= self._size:
                raise Unavailable(f"upstream '{self.name}': all {self._size} connections are in use") from None
            raise ConnectFailed(f"upstream '{self.name}' did not accept a connection in time") from None

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()

    async def _dial(self) -> Connection:
        self._dialing += 1
        try:
            connection = await self._dialer.dial(lambda: Connection(self.name, self._on_idle, self._on_lost))
        except BaseException:
            self._wake()
            raise
        finally:
            self._dialing -= 1
        self._open.add(connection)
        return connection

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _on_idle(self, connection: Connection) -> None:
        now = connection.idle_since = connection.loop.time()
        if now > self._forget_at:
            self._rest, self._forget_at = self._start_rest, math.inf
        if connection.keep_alive_hint < math.inf:
            self._learn(connection.keep_alive_hint, now)
        connection.rest(self._rest)
        self._idle.append(connection)
        self._wake()

    def _on_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            now = connection.loop.time()
            if (patience := now - connection.idle_since) < connection.rests_for - EARLY:
                self._learn(patience, now)
        self._wake()

    def _learn(self, patience: float, now: float) -> None:
        """The server closed after so many seconds of rest, or says that it will.

        Forgotten after a while: a restart closes connections too, and says nothing about patience.
        """
        rest = max(patience * REST_SHARE, REST_LEAST)
        if rest <= self._rest:
            self._rest, self._forget_at = rest, now + FORGET_SECONDS
