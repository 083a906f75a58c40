"""The way to the shared store: found, lost and found again. While it is away nobody waits for it.

It is away after three failures in a row, where a connection is lost, and where a server says that it cannot serve.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from proxy.store.servers import NO_ANSWER, connected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import hiredis

    from proxy.series import Gauge
    from proxy.store.pipe import Pipe
    from proxy.store.servers import Servers
    from proxy.store.url import StoreUrl

MAX_FAILURES = 3
PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Between two tries to reach it again."""

STEADY_SECONDS = 5.0
"""A connection that was lost sooner does not shorten the next pause."""

_AWAY = ("MOVED", "ASK", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
_UNABLE = ("OOM", "MISCONF", "NOREPLICAS", "BUSY", "NOAUTH", "NOPERM")

log = logging.getLogger("weir.store")


class Link:
    def __init__(self, url: StoreUrl, gauge: Gauge, on_back: Callable[[Servers], Awaitable[None]]) -> None:
        """`gauge`: whether the shared store answers."""
        self.servers: Servers | None = None
        self._url = url
        self._gauge = gauge
        self._on_back = on_back
        self._lost = asyncio.Event()
        self._told = ""

    async def keep(self) -> None:
        """Connected as far as one can, until cancelled."""
        loop, pause = asyncio.get_running_loop(), PAUSE
        while True:
            if self.servers is not None:
                since = loop.time()
                await self._lost.wait()
                pause = PAUSE if loop.time() - since > STEADY_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            await self.connect()

    async def connect(self) -> None:
        try:
            servers = await connected(self._url, self._late, self._dropped)
            if not servers.is_open:
                servers.close()
                raise ConnectionError("a connection was lost at once")
        except NO_ANSWER as error:
            self._gauge.set((), 0)
            self._warn(f"the store does not answer: {str(error) or type(error).__name__}")
            return
        self.servers = servers
        self._lost.clear()
        self._gauge.set((), 1)
        self._told = ""
        log.info("the store answers")
        await self._on_back(servers)

    def lose(self, why: str) -> None:
        servers, self.servers = self.servers, None
        if servers is None:
            return
        servers.close()
        self._gauge.set((), 0)
        self._warn(f"the store is away: {why}")
        self._lost.set()

    def complain(self, error: hiredis.ReplyError) -> None:
        """It is the server that is unable, or only a command that was wrong."""
        if is_passing(error):
            self.lose(str(error))
        else:
            self._warn(f"the store refuses: {error}")

    def _late(self, pipe: Pipe) -> None:
        if self.servers is not None and pipe in self.servers.pipes and pipe.failures >= MAX_FAILURES:
            self.lose(f"{MAX_FAILURES} times in a row it did not answer in time")

    def _dropped(self, pipe: Pipe) -> None:
        if self.servers is not None and pipe in self.servers.pipes:
            self.lose("the connection is lost")

    def _warn(self, what: str) -> None:
        """The same is said once."""
        if what != self._told:
            self._told = what
            log.warning("%s; this process counts for itself until it serves again", what)


def is_passing(error: hiredis.ReplyError) -> bool:
    """Whether another time, or another server, would not say so. Redis 6 puts its word amid a script's error."""
    return any(word in str(error) for word in (*_AWAY, *_UNABLE))
