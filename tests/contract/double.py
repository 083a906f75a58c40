"""The recording double: the same client bytes go straight to a scripted upstream, and through Weir; then both are compared.

What the upstream received and what the client got must be the same, but for what DESIGN §7 names: `Host`, hop-by-hop
fields, credentials, cookies, `x-forwarded-*`, `x-weir-*` with the request id, and the framing of the transfer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from proxy import testing
from tests import wire
from tests.wire import Body, Fields, Head, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy import app

HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
}
OWN = [b"x-weir-request-id", b"x-request-id", b"x-weir-route", b"x-weir-upstream", b"x-weir-attempts"]
CHAT = "/v1/chat/completions"
Script = Callable[["Wire"], Awaitable[None]]
PATIENCE = 0.1
"""Seconds for which an impatient client waits for a 100."""


class Wire:
    """The upstream's end of one connection, with one request under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = Message(Head(b"", []))
        self._body: Body | None = None
        self.has_left = asyncio.Event()

    async def next_request(self) -> Message:
        head = await wire.read_head(self.reader)
        self.request, self._body = Message(head), Body(self.reader, head)
        return self.request

    async def read(self) -> bytes:
        """The request's whole body, as far as it comes."""
        assert self._body is not None
        self.request.body += await self._body.rest()
        self.request.trailers, self.request.is_whole = self._body.trailers, self._body.is_whole
        return self.request.body

    async def piece(self) -> bytes:
        assert self._body is not None
        return await self._body.piece()

    async def send(self, *pieces: bytes) -> None:
        """Each in a write of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def left(self) -> None:
        """Return when the other side has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(2**16):
                pass
        self.has_left.set()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """RST; give what was sent the time to arrive before."""
        wire.Client(self.reader, self.writer).leave(reset=True)


class Upstream:
    """A scripted server that keeps each request; the script runs once for each, with its head read."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.requests: list[Message] = []
        self.wires: list[Wire] = []
        self._work: set[asyncio.Task[None]] = set()

    @property
    def authority(self) -> bytes:
        return self.url.removeprefix("http://").encode()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._work.add(task)
        connection = Wire(reader, writer)
        self.wires.append(connection)
        with contextlib.suppress(EOFError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                self.requests.append(await connection.next_request())
                await self.script(connection)
                await connection.read()
        writer.transport.abort()

    async def stop(self) -> None:
        for connection in self.wires:
            connection.writer.transport.abort()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)


@contextlib.asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[Upstream]:
    double = Upstream(script)
    listening = await asyncio.start_server(double.accept, "127.0.0.1", 0, limit=wire.HOLD)
    double.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield double
    finally:
        listening.close()
        await double.stop()


@contextlib.asynccontextmanager
async def weir(url: str, *, settings: str = "", server: str = "") -> AsyncIterator[app.Weir]:
    """Weir in front of that server; `settings` are further keys of the upstream's block, `server` of the server's."""
    async with testing.configured(
        f'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"{server and ", "}{server}}}\n'
        f'upstreams: {{up: {{base_url: "{url}/v1"{settings and ", "}{settings}}}}}\n'
        "routes: [{name: default, targets: [up]}]\n"
    ) as running:
        yield running


def asks(line: str, *fields: str | bytes, body: bytes | None = None) -> bytes:
    """A request as bytes; a body gets its `Content-Length`."""
    head = [f"{line} HTTP/1.1".encode(), b"Host: api.example"]
    head += [each.encode() if isinstance(each, str) else each for each in fields]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")


def answers(*head: str | bytes, body: bytes | None = None, closes: bool = False) -> Script:
    """Reads the request, then answers with these lines: the status, the fields; a body gets its length."""
    lines = [each.encode() if isinstance(each, str) else each for each in head]
    if body is not None and not closes:
        lines.append(b"Content-Length: %d" % len(body))
    return says(b"\r\n".join([b"HTTP/1.1 " + lines[0], *lines[1:], b"", b""]) + (body or b""), closes=closes)


def says(*pieces: bytes, closes: bool = False) -> Script:
    """Reads the request, then writes these bytes."""

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(*pieces)
        if closes:
            connection.close()

    return script


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


OK = answers("200 OK", "Content-Type: application/json", body=b'{"object": "ok"}')


@dataclass(frozen=True)
class Case:
    """One row of the contract: what the client writes, what the upstream does, and what may differ."""

    name: str
    sent: bytes
    script: Script = OK
    then: bytes = b""
    """What the client writes once it was told to continue."""
    is_impatient: bool = False
    """Writes `then` after a moment also when nobody said so."""
    settings: str = ""
    """Further keys of the upstream's block."""
    lost: tuple[str, ...] = ()
    """Fields of the request that do not reach the upstream."""
    gained: Fields = field(default_factory=list)
    """Fields that only the upstream sees."""
    hidden: tuple[str, ...] = ()
    """Fields of the answer that do not reach the client."""

    @property
    def method(self) -> str:
        return self.sent.partition(b" ")[0].decode()


async def compare(case: Case) -> Message:
    """Run the case both ways; the answer that came through Weir."""
    async with upstream(case.script) as double:
        direct = await _asked(double.url, case)
        [received] = double.requests
    async with upstream(case.script) as double, weir(double.url, settings=case.settings) as proxy:
        through = await _asked(proxy.url, case)
        [forwarded] = double.requests
        _same_request(case, received, forwarded, double.authority)
    _same_answer(case, direct, through)
    return through


async def _asked(url: str, case: Case) -> Message:
    async with wire.connected(url) as client:

        async def go_on(head: Head) -> None:
            if head.status == 100 and not case.is_impatient:
                await client.send(case.then)

        await client.send(case.sent)
        if case.is_impatient:
            await asyncio.sleep(PATIENCE)
            await client.send(case.then)
        return await client.answer(case.method, go_on)


def _same_request(case: Case, direct: Message, through: Message, authority: bytes) -> None:
    assert through.head.start == direct.head.start
    assert through.head.fields[0] == (b"Host", authority)
    assert _kept(through.head.fields[1:]) == [*_kept(direct.head.fields, "host", *case.lost), *case.gained]
    assert _framing(through.head) == _framing(direct.head)
    assert (through.body, through.is_whole) == (direct.body, direct.is_whole)


def _same_answer(case: Case, direct: Message, through: Message) -> None:
    assert [head.start for head in through.interim] == [head.start for head in direct.interim]
    assert [head.fields for head in through.interim] == [head.fields for head in direct.interim]
    assert (through.status, through.head.reason) == (direct.status, direct.head.reason)
    framing = ("content-length",) if is_event_stream(direct.head) else ()
    has_id = direct.head.get("x-request-id") is not None
    own = [name for name in OWN if not (has_id and name == b"x-request-id")]
    fields = _kept(through.head.fields)
    assert fields[: -len(own)] == _kept(direct.head.fields, *case.hidden, *framing)
    assert [name for name, _ in fields[-len(own) :]] == own
    assert re.fullmatch("req_[0-9a-f]{24}", through.head.get("x-weir-request-id") or "")
    assert has_id or through.head.get("x-request-id") == through.head.get("x-weir-request-id")
    assert through.body == direct.body
    assert (through.is_whole, through.trailers) == (direct.is_whole, direct.trailers)


def is_event_stream(head: Head) -> bool:
    return (head.get("content-type") or "").startswith("text/event-stream")


def _kept(fields: Fields, *without: str) -> Fields:
    gone = HOP_BY_HOP | {name.encode() for name in without}
    return [(name, value) for name, value in fields if name.lower() not in gone]


def _framing(head: Head) -> list[bytes]:
    return [value.lower() for value in head.all("transfer-encoding")]


async def outcomes(proxy: app.Weir) -> dict[str, int]:
    """How many exchanges have ended in which way, as /metrics tells it."""
    page = await wire.fetch(proxy.admin_url, asks("GET /metrics"))
    found = re.findall(rb'^weir_requests_total\{.*outcome="(\w+)".*\} ([\d.]+)$', page.body, re.MULTILINE)
    counted: dict[str, int] = {}
    for outcome, number in found:
        counted[outcome.decode()] = counted.get(outcome.decode(), 0) + int(float(number))
    return counted


async def at_rest(proxy: app.Weir) -> dict[str, int]:
    """Wait until nothing is under way, by /state and by /metrics; the outcomes so far."""
    async with asyncio.timeout(wire.SECONDS):
        while not await _is_at_rest(proxy):  # noqa: ASYNC110 - it is asked over HTTP, it tells nobody
            await asyncio.sleep(0.01)
    return await outcomes(proxy)


async def _is_at_rest(proxy: app.Weir) -> bool:
    state = orjson.loads((await wire.fetch(proxy.admin_url, asks("GET /state"))).body)
    page = (await wire.fetch(proxy.admin_url, asks("GET /metrics"))).body
    under_way = re.findall(rb"^weir_(?:upstream_)?in_flight(?:_requests)?\{.*\} ([\d.]+)$", page, re.MULTILINE)
    pools = [upstream["in_flight"] for upstream in state["upstreams"].values()]
    return not any([state["in_flight"], *pools, *map(float, under_way)])
