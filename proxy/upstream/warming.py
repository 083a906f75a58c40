"""An upstream that is loading its model, or being started: not dead, and waited for as long as it is given.

It is loading from the first sign of that (it says so, refuses connections, or answers 503 after a silence) until it
serves. Meanwhile it is asked once a second whether it is up, and whoever waits for it goes on then. After its time is
up, signs are failures like any other's, until it has served again or nobody has asked for as long.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import TYPE_CHECKING, Protocol

from proxy.errors import ProxyError, Unavailable
from proxy.fault import Fault, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

LOOK_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""How often it is asked whether it is up, and how long the answer may take."""
JITTER = 0.2
LATELY_SECONDS = 10.0
"""Who has served so lately and answers 502 or 503 is not loading, but has too much to do."""
MOST_DOUBT = 10.0
"""Seconds that it is left alone at most, where it says that it is up and then that it is loading."""

_MAYBE = frozenset({Kind.OVERLOADED, Kind.SERVER_ERROR})
_GATEWAYS = frozenset({502, 503})

log = logging.getLogger("weir.loading")


class Probed(Protocol):
    name: str

    async def probe(self, path: str) -> int: ...


class Warming:
    def __init__(
        self,
        upstream: Probed,
        path: str,
        patience: float,
        start: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
        waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: answers without a 5xx when it is up; `waiting`: how many may wait for it; `start` holds a task."""
        self.upstream = upstream
        self._path = path
        self._patience = patience
        self._start = start
        self._most = waiting
        self._clock = clock
        self._since = self._served_at = self._sign_at = -math.inf
        self.is_up = True
        self._not_before = -math.inf
        self._doubt = LOOK_SECONDS
        self._watching: asyncio.Task[None] | None = None
        self.waiters: set[asyncio.Future[Warming]] = set()

    @property
    def is_loading(self) -> bool:
        return not self.is_up and self._clock() < self.until

    @property
    def until(self) -> float:
        """When its time is up."""
        return self._since + self._patience

    def judged(self, fault: Fault, status: int = 0) -> Fault:
        """What a failed attempt tells of it: LOADING while it has time for that, and only then."""
        if not self._is_sign(fault.kind, status):
            if status and fault.kind not in _MAYBE:
                self.served()
            return fault
        if self.sign(fault.retry_after):
            return fault._replace(kind=Kind.LOADING)
        return fault._replace(kind=Kind.OVERLOADED) if fault.kind is Kind.LOADING else fault

    def sign(self, told: float | None = None) -> bool:
        """It is not up; `told`: seconds until it will be, as it says. Whether it still has time."""
        now = self._clock()
        if self._since == -math.inf or now - self._sign_at > self._patience:
            self._since, self._doubt = now, LOOK_SECONDS
            log.info("upstream '%s' is loading; requests wait for it up to %g s", self.upstream.name, self._patience)
        elif self.is_up:  # it said so, too early
            self._not_before = now + min(told or self._doubt, MOST_DOUBT)
            self._doubt = min(self._doubt * 2.0, MOST_DOUBT)
        self._sign_at = now
        if now >= self.until:
            return False
        self.is_up = False
        if self._watching is None or self._watching.done():
            self._watching = self._start(self._watch(), f"loading of upstream '{self.upstream.name}'")
        return True

    def served(self) -> None:
        """It has answered: whatever it was, it is up."""
        now = self._served_at = self._clock()
        if self._since > -math.inf:
            log.info("upstream '%s' is up after %.0f s", self.upstream.name, now - self._since)
            self._since = -math.inf
            self._let_go()

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def join(self, waiter: asyncio.Future[Warming]) -> None:
        """Raises Unavailable where too many wait already."""
        if len(self.waiters) >= self._most:
            raise self.unavailable("too many requests wait for it")
        self.waiters.add(waiter)

    def unavailable(self, why: str) -> Unavailable:
        wait = max(self.until - self._clock(), LOOK_SECONDS) if self.is_loading else LOOK_SECONDS
        return Unavailable(
            f"upstream '{self.upstream.name}' is still loading its model, and {why}; try again later",
            code="model_loading",
            headers={"retry-after": str(math.ceil(wait))},
        )

    def _is_sign(self, kind: Kind, status: int) -> bool:
        if kind in {Kind.LOADING, Kind.UNREACHABLE}:
            return True
        return kind in _MAYBE and status in _GATEWAYS and self._clock() - self._served_at > LATELY_SECONDS

    async def _watch(self) -> None:
        while self.is_loading:
            pause = LOOK_SECONDS * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nobody gains by guessing it
            await asyncio.sleep(min(pause, max(self.until - self._clock(), 0.0)))
            if self._clock() >= self._not_before and await self._answers():
                self._let_go()
                return
        if not self.is_up:
            self._sign_at = self._clock()
            log.warning("upstream '%s' has not come up within %g s", self.upstream.name, self._patience)
            self._tell()

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self.upstream.probe(self._path) < 500
        except (TimeoutError, ProxyError):
            return False

    def _let_go(self) -> None:
        self.is_up = True
        self._tell()

    def _tell(self) -> None:
        waiters, self.waiters = self.waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(self)


async def first_ready(loading: Sequence[Warming], seconds: float) -> Warming:
    """The first of them that is up. Raises Unavailable after so many seconds, or when none has time any more."""
    left = list(loading)
    try:
        async with asyncio.timeout(seconds if seconds < math.inf else None):
            while True:
                told = await _next_told(left)
                if told.is_up:
                    return told
                left.remove(told)
                if not left:
                    raise told.unavailable("it has not come up in time")
    except TimeoutError:
        raise left[0].unavailable("the time of this request is up") from None


async def _next_told(loading: Sequence[Warming]) -> Warming:
    """The next that is up, or whose time is up."""
    waiter: asyncio.Future[Warming] = asyncio.get_running_loop().create_future()
    try:
        for warming in loading:
            warming.join(waiter)
        return await waiter
    finally:
        for warming in loading:
            warming.waiters.discard(waiter)
