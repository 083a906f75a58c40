"""The upstream of the bench: the least that answers like an LLM server, so that the proxies' cost is what shows.

Run as a process of its own with its port as argument. It ends when its standard input is closed, so it cannot outlive
the bench. A chat is answered at once; a stream's first event leaves with its head, and the others at the interval that the
request asks for, after a random part of one, each in a write of its own.
"""

import asyncio
import contextlib
import gc
import random
import sys
from typing import cast

import httptools
import uvloop
from typing_extensions import override

from tests.bench import payload
from tests.bench.processes import reserve_descriptors

_BACKLOG = 1024


class _Stream:
    def __init__(self, transport: asyncio.Transport, events: int, interval: float, end: bytes) -> None:
        self._transport = transport
        self._left = events - 1
        self._interval = interval
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + random.random() * interval
        transport.write(payload.STREAM_HEAD + payload.TOKEN)
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        if not self._left:
            self._transport.write(self._end)
            return
        self._left -= 1
        self._transport.write(payload.TOKEN)
        self._due += self._interval
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        self._timer.cancel()


class _Connection(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._stream: _Stream | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream:
            self._stream.stop()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        order = payload.stream_order(self._body)
        self._body = b""
        if order is None:
            self._transport.write(payload.ANSWER)
        else:
            self._stream = _Stream(self._transport, *order)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(_Connection, "127.0.0.1", int(sys.argv[1]), backlog=_BACKLOG)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()


def main() -> None:
    gc.disable()  # a collector's pause would show as the proxies' latency
    reserve_descriptors()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())


if __name__ == "__main__":
    main()
