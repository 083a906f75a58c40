"""An upstream as bytes, and Weir's upstream side in front of it, without an edge: `serving`, `opened`, `ask`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from proxy import config
from proxy.attempt import Attempt, Target
from proxy.request import Request
from proxy.upstream.openai import OpenAI
from tests.wire import SECONDS, Client, Head

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from proxy.errors import ProxyError
    from proxy.headers import Fields
    from proxy.request import Upload
    from proxy.upstream.incoming import Incoming

    Script = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer(Client):
    """The upstream's end of one connection."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._server = server

    @override
    async def send(self, *pieces: bytes) -> None:
        """ConnectionError once the other side has left; uvloop's transport would raise RuntimeError."""
        for piece in pieces:
            if self.writer.is_closing():
                raise ConnectionResetError
            await super().send(piece)

    async def request(self) -> Head:
        """The next request's head; its body is still to be read. EOFError where the other side has left."""
        head = await self.head()
        self._server.heads.append(head)
        return head

    def has_more(self) -> bool:
        """Whether the other side has sent what was not looked at yet."""
        return bool(self.reader._buffer or select.select([self.writer.get_extra_info("socket")], [], [], 0)[0])

    def end_at_once(self, last: bytes = b"") -> None:
        """Write and FIN are in the kernel when this returns; a transport's `close` waits for the loop's next turn."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as twin:
            twin.sendall(last)
            twin.shutdown(socket.SHUT_RDWR)


@dataclass
class Server:
    """`heads`: of all requests, as they came. `here`: connections that are open now."""

    port: int
    url: str
    heads: list[Head] = field(default_factory=list)
    connections: int = 0
    here: int = 0


@contextlib.asynccontextmanager
async def serving(
    script: Script, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """`script` runs once per connection, until the other side leaves; what else it raises is raised at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(peer: Peer) -> None:
        server.connections += 1
        server.here += 1
        try:
            with contextlib.suppress(ConnectionError, EOFError):
                await script(peer)
        finally:
            server.here -= 1
            peer.writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(run(Peer(server, reader, writer))))

    listening = await asyncio.start_server(accept, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server = Server(port, f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/v1")
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
    for end in ends:
        if isinstance(end, Exception):
            raise end


def each(*pieces: bytes, ends: bool = False) -> Script:
    """Answers every request with the same bytes; `ends`: and closes."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(*pieces)
            if ends:
                return

    return script


async def silent(peer: Peer) -> None:
    """Takes requests and says nothing."""
    while await peer.request():
        pass


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[OpenAI]:
    """An upstream's client with these settings of its block."""
    upstream = OpenAI("up", config.Upstream(base_url=url, **settings))
    async with asyncio.timeout(SECONDS):
        try:
            yield upstream
        finally:
            upstream.pool.close()
            await until(lambda: not upstream.pool.open)


class Sink:
    """Takes an answer's body as it comes."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.chunks: list[bytes] = []
        self.trailers: Fields = []
        self.error: ProxyError | None = None
        self.ends = 0

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    @property
    def is_whole(self) -> bool:
        return self.ends == 1 and self.error is None

    def feed(self, chunk: bytes) -> None:
        assert not self.ends
        self.chunks.append(chunk)

    def end(self, trailers: Fields) -> None:
        self.ends += 1
        self.trailers = trailers

    def fail(self, error: ProxyError) -> None:
        self.ends += 1
        self.error = error

    async def over(self) -> Sink:
        await self.incoming.over()
        return self


class Pieces:
    """A request's body that comes in pieces, `pause` seconds apart. `taken` counts those that were asked for."""

    def __init__(self, *pieces: bytes, pause: float = 0.0) -> None:
        self._pieces = pieces
        self._pause = pause
        self.taken = 0

    async def readany(self) -> bytes:
        await asyncio.sleep(self._pause)
        if self.is_eof():
            return b""
        self.taken += 1
        return self._pieces[self.taken - 1]

    def is_eof(self) -> bool:
        return self.taken == len(self._pieces)


def request(
    method: str = "GET", target: str = "/v1/x", body: bytes | Upload = b"", headers: Mapping[str, str] | None = None
) -> Request:
    """With `body` at hand or, where that is an Upload, still to come."""
    fields = CIMultiDict(headers or {})
    if isinstance(body, bytes) and body:
        fields.setdefault("Content-Length", str(len(body)))
    at_hand, upload = (body, None) if isinstance(body, bytes) else (None, body)
    return Request(method, target, CIMultiDictProxy(fields), body=at_hand, upload=upload)


async def start(
    upstream: OpenAI, asked: Request | None = None, on_interim: Callable[[int, bytes, Fields], None] | None = None
) -> Incoming:
    """One attempt, as far as the answer's head."""
    asked = asked or request()
    attempt = Attempt(1, Target("up"), upstream.request_fields(asked), asked.at_hand)
    return await upstream.send(asked, attempt, on_interim or (lambda *_: None))


async def ask(
    upstream: OpenAI, asked: Request | None = None, on_interim: Callable[[int, bytes, Fields], None] | None = None
) -> Sink:
    """One attempt, to the answer's end or break."""
    return await read(await start(upstream, asked, on_interim))


async def read(incoming: Incoming) -> Sink:
    """To its end; who is cancelled on the way drops it, as the gateway does."""
    try:
        return await taken(incoming).over()
    except BaseException:
        incoming.cancel()
        raise


def taken(incoming: Incoming) -> Sink:
    sink = Sink(incoming)
    incoming.attach(sink)
    return sink


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - what is looked at tells nobody
            await asyncio.sleep(0.002)


@contextlib.contextmanager
def refusing() -> Any:
    """A port of 127.0.0.1 that is nobody's."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.contextmanager
def deaf() -> Any:
    """A port of 127.0.0.1 where connections are never made: its queue is full."""
    with socket.socket() as listening, contextlib.ExitStack() as others:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            other = others.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
