"""An answer that is held, paused, read whole or given up: nothing is lost, nothing piles up, nothing runs on."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from proxy.errors import BadAnswer, Interrupted
from proxy.upstream.incoming import HOLD_BYTES, whole
from tests.upstream.double import OK, Sink, ask, each, opened, read, serving, start, taken, until

if TYPE_CHECKING:
    from tests.upstream.conftest import Certificate
    from tests.upstream.double import Peer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOOD = 24 * 2**20
PIECE = 64 * 1024


class Flood:
    """A long answer, as fast as it is taken: `written` counts what the other side let it write."""

    def __init__(self, head: bytes, piece: bytes = bytes(PIECE), last: bytes = b"") -> None:
        self.written = 0
        self._head, self._piece, self._last = head, piece, last

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        peer.writer.transport.set_write_buffer_limits(0)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        await peer.send(self._head)
        for _ in range(FLOOD // len(self._piece)):
            await peer.send(self._piece)
            self.written += len(self._piece)
        await peer.send(self._last)
        await peer.request()

    async def stalled(self) -> int:
        """What was written when no more could be."""
        before = -1
        while before != self.written:
            before = self.written
            await asyncio.sleep(0.1)
        return before


class Pausing(Sink):
    """Is full after every `each` bytes, as an app that reads slowly."""

    each = 0
    room = 0

    @override
    def feed(self, chunk: bytes) -> None:
        super().feed(chunk)
        self.room -= len(chunk)
        if self.room <= 0:
            self.room = self.each
            self.incoming.pause()


WITH_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD


async def test_whole_gives_the_body() -> None:
    async with serving(each(CHUNKED, b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n")) as server, opened(server.url) as upstream:
        assert await whole(await start(upstream), limit=3) == b"abc"
        assert upstream.pool.idle == 1


async def test_whole_takes_what_was_held() -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await asyncio.sleep(0.02)
        assert await whole(incoming, limit=2) == b"ok"


async def test_whole_gives_up_on_more_than_its_limit_and_the_upstream_hears_of_it() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        with pytest.raises(BadAnswer, match="too large"):
            await whole(await start(upstream), limit=100_000)
        await until(lambda: not server.here)
        assert flood.written < FLOOD


@pytest.mark.parametrize("rests", [0, 0.02], ids=["at once", "held"])
async def test_whole_raises_for_half_an_answer(rests: float) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"2\r\nab\r\n")

    async with serving(script) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await asyncio.sleep(rests)
        with pytest.raises(Interrupted):
            await whole(incoming, limit=100)


async def test_a_whole_body_can_be_replaced() -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await until(lambda: incoming.is_complete)
        incoming.replace(b"better")
        sink = await read(incoming)
        assert (sink.body, sink.is_whole, incoming.status) == (b"better", True, 200)
        assert incoming.index[b"content-length"] == b"6"
        assert [value for name, value in incoming.fields if name.lower() == b"content-length"] == [b"6"]
        assert upstream.pool.idle == 1


async def test_an_answer_that_goes_on_can_be_replaced_by_another_and_the_upstream_hears_of_it() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        incoming.guard = pytest.fail
        incoming.replace(b"{}", kind=b"application/json", status=429)
        sink = await read(incoming)
        assert (sink.body, sink.is_whole, incoming.status) == (b"{}", True, 429)
        assert incoming.index[b"content-type"] == b"application/json"
        await until(lambda: not server.here)
        assert not upstream.pool.open


async def test_what_a_guard_may_change_is_not_at_hand() -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await until(lambda: incoming.is_complete)
        assert incoming.at_hand == b"ok"
        incoming.guard = lambda receiver: receiver
        assert incoming.at_hand is None
        assert (await read(incoming)).body == b"ok"


FLOODS = {
    "one body": lambda: Flood(WITH_LENGTH),
    "tiny chunks": lambda: Flood(CHUNKED, b"1\r\nx\r\n" * (PIECE // 6), b"0\r\n\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_an_answer_that_nobody_takes_yet_is_held_within_bounds(flood: object) -> None:
    sending = flood()
    async with serving(sending) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        written = await sending.stalled()
        assert written < FLOOD / 8
        assert sum(map(len, incoming.chunks)) < 2 * HOLD_BYTES + PIECE
        assert (await read(incoming)).is_whole
        assert sending.written > written


async def test_a_paused_receiver_stops_the_upstream_until_it_resumes() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        sink = Pausing(await start(upstream))
        sink.incoming.attach(sink)
        written = await flood.stalled()
        assert 0 < sink.size < HOLD_BYTES
        assert written < 2**20
        sink.room = 2 * FLOOD
        sink.incoming.resume()
        await sink.over()
        assert (sink.is_whole, sink.size) == (True, FLOOD)


async def test_a_slow_reader_gets_every_byte() -> None:
    body = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(50_000))
    async with (
        serving(each(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)) as server,
        opened(server.url) as upstream,
    ):
        sink = Pausing(await start(upstream))
        sink.each = 50_000
        sink.incoming.attach(sink)
        while not sink.ends:
            await asyncio.sleep(0.001)
            sink.incoming.resume()
        assert (sink.is_whole, sink.body == body) == (True, True)


async def test_a_receiver_that_is_full_at_once_stays_paused() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await until(lambda: incoming.chunks)
        sink = Pausing(incoming)
        incoming.attach(sink)
        full = sink.size
        assert full
        await flood.stalled()
        assert sink.size == full


async def test_who_is_full_with_the_last_byte_does_not_stop_the_next_answer() -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK[:-2])
            await asyncio.sleep(0.01)
            await peer.send(OK[-2:])

    async with serving(script) as server, opened(server.url, timeouts={"first_byte": "2s"}) as upstream:
        for _ in range(3):
            sink = Pausing(await start(upstream))
            sink.incoming.attach(sink)
            await sink.over()
            assert sink.is_whole
        assert server.connections == 1


async def test_who_drains_late_does_not_move_the_next_answer() -> None:
    flood = Flood(WITH_LENGTH)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await flood(peer)

    async with serving(script) as server, opened(server.url) as upstream:
        first = await ask(upstream)
        second = Pausing(await start(upstream))
        second.incoming.attach(second)
        await flood.stalled()
        full = second.size
        first.incoming.resume()
        await flood.stalled()
        assert (second.size, server.connections) == (full, 1)


async def test_a_receiver_that_is_done_hears_no_more() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        sink = taken(await start(upstream))
        await until(lambda: sink.chunks)
        over = asyncio.ensure_future(sink.over())
        await asyncio.sleep(0)
        sink.incoming.finish()
        seen = sink.size
        await over
        await until(lambda: not server.here)
        assert (sink.size, sink.ends) == (seen, 0)


async def test_an_answer_that_is_interrupted_here_fails_and_ends_there() -> None:
    flood = Flood(WITH_LENGTH)
    async with serving(flood) as server, opened(server.url) as upstream:
        sink = taken(await start(upstream))
        sink.incoming.interrupt(Interrupted("Weir is shutting down", code="shutting_down"))
        await sink.over()
        await until(lambda: not server.here)
        assert (sink.error.error_code, sink.ends) == ("shutting_down", 1)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("state", ["before the answer", "within it", "paused"])
async def test_who_leaves_is_gone_at_once(state: str, is_tls: bool, certificate: Certificate) -> None:
    """Case 56: over TLS and on uvloop too the upstream learns of it within a second."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if state != "before the answer":
            await peer.send(CHUNKED + b"2\r\nab\r\n")
        try:
            await peer.request()
        finally:
            heard.set_result(loop.time())

    loop = asyncio.get_running_loop()
    heard: asyncio.Future[float] = loop.create_future()
    tls = {"tls": {"ca_file": str(certificate.file)}} if is_tls else {}
    async with serving(script, tls=certificate.context if is_tls else None) as server, opened(server.url, **tls) as up:
        asking = asyncio.ensure_future(ask(up))
        await until(lambda: server.heads)
        await asyncio.sleep(0.02)
        for wire in list(up.pool._open) if state == "paused" else ():
            wire.pause()
        asking.cancel()
        left = loop.time()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await heard - left < 1
