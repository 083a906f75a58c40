"""The floor: the least that a proxy on uvloop can be. It parses and frames answers as Weir does, and does nothing else.

One upstream connection per app's connection; no limits, no timers, no errors. Its figure says what of Weir's is Weir's.
Run with the port to listen on and the upstream's.
"""

import asyncio
import sys
from typing import cast

import httptools
import uvloop
from typing_extensions import override


class _Upstream(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, app: asyncio.Transport) -> None:
        self._app = app
        self._out: list[bytes] = []
        self._fields: list[bytes] = []
        self._is_chunked = False
        self._parser = httptools.HttpResponseParser(self)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._out:
            self._app.write(b"".join(self._out))
            self._out.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append(b"%b: %b\r\n" % (name, value))
        self._is_chunked = self._is_chunked or name.lower() == b"transfer-encoding"

    def on_headers_complete(self) -> None:
        self._out.append(b"HTTP/1.1 200 OK\r\n%b\r\n" % b"".join(self._fields))
        self._fields.clear()

    def on_body(self, chunk: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunked else chunk)

    def on_message_complete(self) -> None:
        if self._is_chunked:
            self._out.append(b"0\r\n\r\n")
        self._is_chunked = False


class _App(asyncio.Protocol):
    """Hands its bytes on as they come; requests wait while the upstream connection is made."""

    _transport: asyncio.Transport

    def __init__(self, upstream: int) -> None:
        self._port = upstream
        self._upstream: _Upstream | None = None
        self._waiting = b""
        self._work: asyncio.Task[None] | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._work = asyncio.get_running_loop().create_task(self._connect())

    @override
    def data_received(self, data: bytes) -> None:
        if self._upstream is None:
            self._waiting += data
        else:
            self._upstream.transport.write(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._upstream is not None:
            self._upstream.transport.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: _Upstream(self._transport), "127.0.0.1", self._port)
        upstream.transport.write(self._waiting)
        self._upstream = upstream


async def _serve(port: int, upstream: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _App(upstream), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
