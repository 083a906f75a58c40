"""The load generator: one order in (see runs.py), one result out, a process of its own per order.

It samples the CPU time of the proxy itself, at the very edges of the window in which it counts, so that start, warm-up
and the tail of a load are in no figure. It knows answers by their bytes and parses no HTTP: it must cost far less than
what it measures.
"""

import asyncio
import gc
import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import uvloop
from typing_extensions import override

from tests.bench import meter, payload
from tests.bench.processes import reserve_descriptors
from tests.bench.runs import ORDER, RequestOrder, RequestResult, StreamOrder, StreamResult, Window

_SHOWN = 200  # bytes of an unexpected answer
_STALL_S = 1.0
_TICK_S = 0.001
_TAIL_S = 0.5  # a stream outlasts the window by this much, so that none ends inside it


class LoadError(Exception):
    """The load could not be carried through."""


class _Sample:
    def __init__(self, order: RequestOrder | StreamOrder) -> None:
        self._wall = time.perf_counter_ns()
        self._proxy = meter.cpu(order.proxy_pids)
        self._load_ns = meter.cpu(order.upstream_pids).ran_ns + time.process_time_ns()

    def until(self, end: "_Sample") -> Window:
        return Window(
            wall_ns=end._wall - self._wall,
            proxy_cpu_ns=end._proxy.ran_ns - self._proxy.ran_ns,
            proxy_wait_ns=end._proxy.waited_ns - self._proxy.waited_ns,
            load_cpu_ns=end._load_ns - self._load_ns,
        )


class _Asker(asyncio.Protocol):
    """One keep-alive connection that asks until `answered` says that it was enough."""

    _transport: asyncio.Transport

    def __init__(
        self, request: Callable[[], bytes], answered: Callable[["_Asker"], bool], failed: Callable[[str], None]
    ) -> None:
        self._request = request
        self._answered = answered
        self._failed = failed
        self._read = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self._transport.write(self._request())

    @override
    def data_received(self, data: bytes) -> None:
        read = self._read + data if self._read else data
        if not read.startswith(b"HTTP/1.1 200"):
            self._failed(f"answered {read[:_SHOWN]!r}")
        elif not read.endswith(payload.ANSWER_TAIL):
            self._read = read
        else:
            self._read = b""
            if self._answered(self):
                self._transport.write(self._request())

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(f"a keep-alive connection was closed: {exc}")


class _RequestLoad:
    def __init__(self, order: RequestOrder) -> None:
        self._order = order
        self._left = order.warm_up + order.count
        self._idle: deque[_Asker] = deque()
        self._begin: _Sample | None = None
        self._window: asyncio.Future[Window] = asyncio.get_running_loop().create_future()
        self._request = payload.chat_request(order.port)
        self._numbers = _numbers()

    def _answered(self, asker: _Asker) -> bool:
        """Whether to ask again at once."""
        self._left -= 1
        if self._left == self._order.count:
            self._begin = _Sample(self._order)
        elif self._left == 0:
            assert self._begin
            self._window.set_result(self._begin.until(_Sample(self._order)))
        if self._order.rate is not None:
            self._idle.append(asker)
            return False
        return self._left > 0

    def _failed(self, why: str) -> None:
        if not self._window.done():
            self._window.set_exception(LoadError(why))

    def _asker(self) -> _Asker:
        return _Asker(lambda: payload.numbered(self._request, next(self._numbers)), self._answered, self._failed)

    async def run(self) -> RequestResult:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(self._asker, "127.0.0.1", self._order.port)
            for _ in range(self._order.connections)
        ]
        self._idle.extend(asker for _, asker in opened)
        if self._order.rate is None:
            for asker in self._idle:
                asker.ask()
        else:
            await self._pace(self._order.rate)
        return RequestResult(window=await self._window, requests=self._order.count)

    async def _pace(self, rate: int) -> None:
        """Asks as often as the clock says, on the connection that has rested longest; a late proxy is caught up with."""
        loop = asyncio.get_running_loop()
        start, asked = loop.time(), 0
        while not self._window.done():
            due = int((loop.time() - start) * rate) - asked
            for _ in range(min(due, len(self._idle))):
                self._idle.popleft().ask()
                asked += 1
            await asyncio.sleep(_TICK_S)


class _Reader(asyncio.Protocol):
    """One stream: counts its events and keeps the longest silence."""

    def __init__(self, request: bytes, expected: int) -> None:
        self._request = request
        self._expected = expected
        self._tail = b""
        self._asked = self._last = 0.0
        self.head = b""
        self.events = 0
        self.first_s = 0.0
        self.gap_s = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def stalled(self) -> bool:
        return self.gap_s > _STALL_S or self.events != self._expected or self._tail != payload.STREAM_END

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._asked = self._last = time.perf_counter()
        cast("asyncio.Transport", transport).write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        self.head = self.head or data[:_SHOWN]
        count = data.count(payload.EVENT_MARK)
        if count:
            self._count(count)
        self._tail = (self._tail + data)[-len(payload.STREAM_END) :]
        if self._tail == payload.STREAM_END:
            self._finish()

    def _count(self, count: int) -> None:
        now = time.perf_counter()
        if not self.events:
            self.first_s = now - self._asked
        self.gap_s = max(self.gap_s, now - self._last)
        self._last = now
        self.events += count

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()


class _StreamLoad:
    def __init__(self, order: StreamOrder) -> None:
        self._order = order
        seconds = order.spread_s + order.window_s + _TAIL_S
        tokens = round(seconds * 1000 / order.interval_ms)
        self._request = payload.stream_request(order.port, tokens, order.interval_ms)
        self._expected = tokens + payload.EVENTS_AFTER_TOKENS
        self._numbers = _numbers()
        self._readers: list[_Reader] = []

    def _reader(self) -> _Reader:
        request = payload.numbered(self._request, next(self._numbers))
        self._readers.append(_Reader(request, self._expected))
        return self._readers[-1]

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(self._order.streams):
            await asyncio.sleep(start + number * self._order.spread_s / self._order.streams - loop.time())
            await loop.create_connection(self._reader, "127.0.0.1", self._order.port)

    def _events(self) -> int:
        return sum(reader.events for reader in self._readers)

    async def run(self) -> StreamResult:
        rss_before = meter.rss_bytes(self._order.proxy_pids)
        start = _Sample(self._order)
        await self._open()
        begin, events = _Sample(self._order), -self._events()
        await asyncio.sleep(self._order.window_s)
        end, events = _Sample(self._order), events + self._events()
        if not events:
            raise LoadError(f"no event came; the last stream was answered {self._readers[-1].head!r}")
        rss_open = meter.rss_bytes(self._order.proxy_pids)
        await asyncio.wait([reader.over for reader in self._readers], timeout=2 * self._order.spread_s + 5)
        return StreamResult(
            opening=start.until(begin),
            window=begin.until(end),
            events=events,
            first_ms=tuple(reader.first_s * 1000 for reader in self._readers if reader.events),
            stalled=sum(reader.stalled for reader in self._readers),
            rss_before=rss_before,
            rss_open=rss_open,
        )


def _numbers() -> Iterator[int]:
    """That no load before this one had."""
    return itertools.count(time.time_ns() // 10_000)


async def _run(order: RequestOrder | StreamOrder) -> RequestResult | StreamResult:
    load = _RequestLoad(order) if isinstance(order, RequestOrder) else _StreamLoad(order)
    return await asyncio.wait_for(load.run(), order.limit_s)


def main() -> None:
    gc.disable()  # a collector's pause would show as the proxies' latency
    reserve_descriptors()
    order = ORDER.validate_json(sys.argv[1])
    try:
        result = uvloop.run(_run(order))
    except (LoadError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(result.model_dump_json())


if __name__ == "__main__":
    main()
