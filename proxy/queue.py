"""Requests that wait because every upstream that could serve them is full: bounded, and fair to who sent them.

Each principal has a line of its own, and the lines take turns, so that a thousand requests of one keep nobody else
waiting for more than one each. Where all the places are taken, who has the most of them gives one up to who has fewer.
Who is let in has not begun yet: until it has, its room is kept.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Protocol

from proxy.errors import ProxyError, RateLimited
from proxy.exchange import PRINCIPAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy import targets
    from proxy.attempt import Target
    from proxy.exchange import Exchange
    from proxy.series import Counter, Gauge, Histogram
    from proxy.services import Services
    from proxy.upstream.work import Work

LONGEST_WAIT = 3600.0
"""What a refusal says at most of when to come back."""

WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Upstream(Protocol):
    work: Work | None

    def room(self) -> float: ...


class Series:
    """What queues tell Prometheus, by route."""

    def __init__(self, services: Services) -> None:
        route = ("route",)
        self.waiting: Gauge = services.gauge("weir_queue_waiting", "requests that wait for room upstream", route)
        self.waited: Histogram = services.histogram(
            "weir_queue_wait_seconds", "how long requests waited that had to, served or not", route, WAITS
        )
        self.refused: Counter = services.counter(
            "weir_queue_refused", "requests that did not get their turn", (*route, "reason")
        )


class Waiter:
    __slots__ = ("exchange", "line", "since", "turn")

    def __init__(self, exchange: Exchange, line: str) -> None:
        self.exchange = exchange
        self.line = line
        self.since = time.monotonic()
        self.turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True: its turn has come; False: it has to give up its place."""


class Queue:
    def __init__(self, route: str, settings: targets.Queue, upstreams: Mapping[str, Upstream], series: Series) -> None:
        """`upstreams`: those of the route's targets; all count their `work`."""
        self._route = route
        self._settings = settings
        self._upstreams = upstreams
        self._series = series
        self._lines: OrderedDict[str, deque[Waiter]] = OrderedDict()
        self._let_in: set[Exchange] = set()
        self._works = [upstream.work for upstream in upstreams.values() if upstream.work is not None]
        series.waiting.set((route,), 0)
        for work in self._works:
            work.on_room.append(self.wake)

    def close(self) -> None:
        """Nobody waits any more."""
        for work in self._works:
            work.on_room.remove(self.wake)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    async def turn(self, exchange: Exchange) -> bool:
        """Returns when it may go on; whether it had to wait. Raises RateLimited. In any case `leave` follows."""
        if not self._lines and self._has_room(exchange):
            self._let_in.add(exchange)
            return False
        waiter = self._placed(exchange)
        try:
            async with asyncio.timeout(self._settings.timeout):
                has_come = await waiter.turn
        except TimeoutError:
            has_come = waiter.turn.done() and not waiter.turn.cancelled() and waiter.turn.result()
            if not has_come:
                raise self._refusal("timeout", f"waited {self._settings.timeout:g} s for it") from None
        finally:
            self._forget(waiter)
        if not has_come:
            raise self._refusal("full", "others have waited with fewer")
        return True

    def leave(self, exchange: Exchange) -> None:
        """It is over, or could not wait."""
        if exchange in self._let_in:
            self._let_in.discard(exchange)
            self.wake()

    def wake(self) -> None:
        """There may be room: let in as many as there is."""
        while self._lines:
            name, line = next(iter(self._lines.items()))
            waiter = line[0]
            is_here = not waiter.turn.done()  # else it has left, and does not know yet
            if is_here and not self._has_room(waiter.exchange):
                return
            line.popleft()
            if line:
                self._lines.move_to_end(name, last=is_here)
            else:
                del self._lines[name]
            if is_here:
                self._let_in.add(waiter.exchange)
                waiter.turn.set_result(True)

    def state(self) -> dict[str, int]:
        return {"waiting": self.waiting, "principals": len(self._lines), "max": self._settings.max}

    def _has_room(self, exchange: Exchange) -> bool:
        """Beside those that were let in and have not begun; what plugins leave out has none."""
        names = {target.upstream for target in _served(exchange) if target.static is None}
        room = sum(self._upstreams[name].room() for name in names) if names else math.inf
        self._let_in = {each for each in self._let_in if not each.attempts}
        return room >= len(self._let_in) + 1

    def _placed(self, exchange: Exchange) -> Waiter:
        principal = exchange.get(PRINCIPAL, None)
        waiter = Waiter(exchange, principal.name if principal is not None else "")
        if self.waiting >= self._settings.max and not self._makes_place(waiter.line):
            raise self._refusal("full", f"{self.waiting} wait for it already")
        self._lines.setdefault(waiter.line, deque()).append(waiter)
        self._series.waiting.set((self._route,), self.waiting)
        return waiter

    def _makes_place(self, line: str) -> bool:
        """The last of the longest line goes, where that is longer than this one will be."""
        longest = max(self._lines.values(), key=len, default=None)
        if longest is None or len(longest) <= len(self._lines.get(line, ())) + 1:
            return False
        last = longest.pop().turn
        if not last.done():
            last.set_result(False)
        return True

    def _forget(self, waiter: Waiter) -> None:
        line = self._lines.get(waiter.line)
        if line is not None and waiter in line:
            line.remove(waiter)
            if not line:
                del self._lines[waiter.line]
        waited = time.monotonic() - waiter.since
        waiter.exchange.request.waited += waited  # which is not our overhead
        self._series.waited.observe((self._route,), waited)
        self._series.waiting.set((self._route,), self.waiting)

    def _refusal(self, reason: str, why: str) -> RateLimited:
        self._series.refused.add((self._route, reason))
        return RateLimited(
            f"every upstream of route '{self._route}' is busy, and {why}; try again later",
            code=f"queue_{reason}",
            headers={"retry-after": str(math.ceil(self._seconds()))},
        )

    def _seconds(self) -> float:
        """Until who came now would have its turn, at the pace of late; the timeout where nothing was done yet."""
        for work in self._works:
            work.advance()
        rate = sum(work.per_second() for work in self._works)
        seconds = (self.waiting + 1) / rate if rate else self._settings.timeout
        return min(max(seconds, 1.0), LONGEST_WAIT)


def _served(exchange: Exchange) -> Sequence[Target]:
    """The targets that could serve it now; where there is none, that is for the attempts to say."""
    try:
        found: Sequence[Target] = exchange.chain.select_targets(exchange, exchange.targets)
    except ProxyError:
        return ()
    return found
