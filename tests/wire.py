"""HTTP/1.1 as bytes, for either end of a connection: heads with case, order and repetition kept, bodies by their framing.

`Client` sends what it is given and hides nothing of what comes back, not even how the connection ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Fields = list[tuple[bytes, bytes]]

SECONDS = 20
"""No step of a test waits longer."""
HOLD = 2**20


@dataclass(frozen=True)
class Head:
    """A request's or an answer's first line and its header fields, in order."""

    start: bytes
    fields: Fields

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    @property
    def reason(self) -> bytes:
        return self.start.split(b" ", 2)[2]

    def all(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.encode()]

    def get(self, name: str) -> str | None:
        """The last value of that (lower-case) name."""
        return next((value.decode() for value in reversed(self.all(name))), None)


@dataclass
class Message:
    """A head with its body, as far as it came. `interim` are the 1xx heads before it."""

    head: Head
    interim: list[Head] = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    is_whole: bool = False

    @property
    def status(self) -> int:
        return self.head.status


class Body:
    """The body that follows a head: `piece` by piece, each transfer chunk one, until one is empty."""

    def __init__(
        self, reader: asyncio.StreamReader, head: Head, *, is_none: bool = False, to_end: bool = False
    ) -> None:
        """`to_end`: without a length it lasts until the connection ends, as answers do and requests do not."""
        self._reader = reader
        self._is_chunked = b"chunked" in b"".join(head.all("transfer-encoding")).lower()
        length = head.get("content-length")
        self._left = int(length) if length else 0
        self._to_end = to_end and length is None and not self._is_chunked
        self.trailers: Fields = []
        self.is_whole = is_none or not (self._left or self._is_chunked or self._to_end)

    async def piece(self) -> bytes:
        if self.is_whole:
            return b""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            return await (self._chunk() if self._is_chunked else self._run())
        return b""

    async def rest(self) -> bytes:
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def _run(self) -> bytes:
        data = await self._reader.read(2**16 if self._to_end else min(self._left, 2**16))
        self._left -= len(data)
        self.is_whole = not data if self._to_end else not self._left
        return data

    async def _chunk(self) -> bytes:
        size = int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if not size:
            self.trailers = _fields(await _lines(self._reader))
            self.is_whole = True
            return b""
        try:
            return (await self._reader.readexactly(size + 2))[:-2]
        except asyncio.IncompleteReadError as error:
            return error.partial


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def head(self) -> Head:
        """The next head, interim ones too. EOFError where none comes."""
        return await read_head(self.reader)

    async def start(self, method: str = "GET", on_interim: Callable[[Head], Awaitable[None]] | None = None) -> Answer:
        """The answer's head; its body is still to be read."""
        interim: list[Head] = []
        while (head := await self.head()).status < 200:
            interim.append(head)
            if on_interim is not None:
                await on_interim(head)
        is_none = method == "HEAD" or head.status in (204, 304)
        return Answer(Message(head, interim), Body(self.reader, head, is_none=is_none, to_end=True))

    async def answer(self, method: str = "GET", on_interim: Callable[[Head], Awaitable[None]] | None = None) -> Message:
        return await (await self.start(method, on_interim)).whole()

    async def ends(self) -> bool:
        """Whether the other side closes, in either way, without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection; with `reset` without a goodbye."""
        if reset:
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


@dataclass
class Answer:
    message: Message
    body: Body

    async def until(self, end: bytes) -> bytes:
        """What came of the body, up to a piece that completes `end`."""
        seen = b""
        while not seen.endswith(end):
            piece = await self.body.piece()
            if not piece:
                raise EOFError(f"the answer ended with {seen[-200:]!r}")
            seen += piece
        self.message.body += seen
        return seen

    async def whole(self) -> Message:
        self.message.body += await self.body.rest()
        self.message.trailers, self.message.is_whole = self.body.trailers, self.body.is_whole
        return self.message


@contextlib.asynccontextmanager
async def connected(url: str, *, hold: int = HOLD) -> AsyncIterator[Client]:
    """`hold`: about how many bytes are taken from the kernel before they are asked for."""
    address = urllib.parse.urlsplit(url)
    async with asyncio.timeout(SECONDS):
        client = Client(*await asyncio.open_connection(address.hostname, address.port, limit=hold))
        try:
            yield client
        finally:
            client.writer.transport.abort()


async def fetch(url: str, request: bytes) -> Message:
    """One request on a connection of its own."""
    async with connected(url) as client:
        await client.send(request)
        return await client.answer(request.partition(b" ")[0].decode())


async def until(happened: Callable[[], object]) -> None:
    """Return as soon as it has."""
    async with asyncio.timeout(SECONDS):
        while not happened():  # noqa: ASYNC110 - polled, bounded
            await asyncio.sleep(0.002)


async def read_head(reader: asyncio.StreamReader) -> Head:
    lines = await _lines(reader)
    return Head(lines[0], _fields(lines[1:]))


async def _lines(reader: asyncio.StreamReader) -> list[bytes]:
    """Up to the empty line, without line ends. EOFError (IncompleteReadError) where the connection ends before."""
    lines = []
    while line := (await reader.readuntil(b"\r\n"))[:-2]:
        lines.append(line)
    return lines


def _fields(lines: list[bytes]) -> Fields:
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
