"""Apps that read slowly or not at all (field case 55), and answers that are read to their end for nobody (case 8)."""

import asyncio

import pytest

from proxy import gateway, testing
from tests import wire
from tests.contract import sse
from tests.contract.double import Wire, asks, at_rest, outcomes, upstream, weir
from tests.contract.sse import DONE, FINISH, LAST, STREAM, TOLD, chunk

PIECE = testing.chat_event({"content": "漢" * 21_800})
PIECES = 1024
FEW_MB = 24 * 2**20
"""What two pairs of sockets take (up to 10 MB each on Linux) and Weir's own share of them; 8 MB were seen."""


class Flood:
    """An upstream that sends 64 MB as fast as it is let, and counts."""

    def __init__(self, head: bytes = sse.CHUNKED, frame=chunk) -> None:
        self.sent = 0
        self.has_begun = asyncio.Event()
        self.is_done = False
        self.head = head
        self.frame = frame

    async def __call__(self, connection: Wire) -> None:
        await connection.read()
        self.has_begun.set()
        await connection.send(self.head)
        leaving = asyncio.ensure_future(connection.left())
        for _ in range(PIECES):
            if leaving.done():
                return
            await connection.send(self.frame(PIECE))
            self.sent += len(PIECE)
        await connection.send(self.frame(FINISH), self.frame(DONE), LAST if self.frame is chunk else b"")
        self.is_done = True
        await leaving

    async def stands_still(self) -> int:
        """What was sent once nothing more goes."""
        before = -1
        async with asyncio.timeout(wire.SECONDS):
            while before != self.sent or not self.sent:
                before = self.sent
                await asyncio.sleep(0.3)
        return self.sent


BODY = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n\r\n" % (
    PIECES * len(PIECE) + len(FINISH) + len(DONE)
)


@pytest.mark.parametrize("kind", ["stream", "binary"])
async def test_an_app_that_does_not_read_stops_the_upstream(kind):
    """After a few MB, whatever it is; when the app reads on, all of it comes."""
    flood = Flood() if kind == "stream" else Flood(BODY, bytes)
    async with upstream(flood) as double, weir(double.url) as proxy, wire.connected(proxy.url, hold=2**16) as client:
        await client.send(STREAM if kind == "stream" else asks("GET /v1/files/f/content"))
        assert await flood.stands_still() < FEW_MB
        answer = await client.start()
        got = 0
        while piece := await answer.body.piece():
            got += len(piece)
        assert answer.body.is_whole
        assert got == PIECES * len(PIECE) + len(FINISH) + len(DONE)
        assert await at_rest(proxy) == {"ok": 1}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_app_that_does_not_read_can_still_leave(reset):
    flood = Flood()
    async with upstream(flood) as double, weir(double.url) as proxy:
        async with wire.connected(proxy.url, hold=2**16) as client:
            await client.send(STREAM)
            await flood.stands_still()
            client.leave(reset=reset)
            async with asyncio.timeout(wire.SECONDS):
                await double.wires[0].has_left.wait()
        assert await at_rest(proxy) == {"client_abort": 1}
        assert flood.sent < FEW_MB


async def test_an_app_that_never_reads_is_let_go():
    """After the idle limit: a stalled app must not hold an upstream's connection for ever."""
    flood = Flood()
    async with upstream(flood) as double, weir(double.url, settings="timeouts: {idle: 500ms}") as proxy:
        async with wire.connected(proxy.url, hold=2**16) as client:
            await client.send(STREAM)
            await flood.has_begun.wait()
            async with asyncio.timeout(wire.SECONDS):
                await double.wires[0].has_left.wait()
            assert await at_rest(proxy) == {"client_abort": 1}
        assert flood.sent < FEW_MB


async def test_one_slow_reader_slows_nobody_else():
    flood = Flood()

    async def script(connection: Wire) -> None:
        if connection.request.head.get("x-slow"):
            await flood(connection)
        else:
            await sse.streams(*TOLD, FINISH, DONE)(connection)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url, hold=2**16) as slow:
        await slow.send(STREAM.replace(b"\r\n", b"\r\nX-Slow: 1\r\n", 1))
        await flood.stands_still()
        for _ in range(20):
            assert (await wire.fetch(proxy.url, STREAM)).is_whole
        assert await outcomes(proxy) == {"ok": 20}


# -- on_disconnect: drain

DRAIN = "on_disconnect: drain"


class Slowly:
    """Sends a token, waits for its cue, and then the rest; knows whether anyone stayed for it."""

    def __init__(self, rest: bytes = FINISH + DONE) -> None:
        self.rest = rest
        self.cue = asyncio.Event()
        self.was_left: list[bool] = []

    async def __call__(self, connection: Wire) -> None:
        await connection.read()
        await connection.send(sse.CHUNKED, chunk(TOLD[0]))
        leaving = asyncio.ensure_future(connection.left())
        await asyncio.wait({leaving, asyncio.ensure_future(self.cue.wait())}, return_when=asyncio.FIRST_COMPLETED)
        self.was_left.append(leaving.done())
        leaving.cancel()
        await asyncio.wait({leaving})
        if not self.was_left[-1]:
            await connection.send(chunk(self.rest), LAST)


async def _walk_away(url: str) -> None:
    async with wire.connected(url) as client:
        await client.send(STREAM)
        await (await client.start()).until(b"\n\n")
        client.leave()


async def test_drain_reads_the_answer_to_its_end_for_nobody():
    script = Slowly()
    async with upstream(script) as double, weir(double.url, settings=DRAIN) as proxy:
        await _walk_away(proxy.url)
        await asyncio.sleep(0.1)
        assert proxy.gateway.upstreams["up"].in_flight == 1
        script.cue.set()
        assert await at_rest(proxy) == {"client_abort": 1}
        assert script.was_left == [False]
        assert proxy.gateway.upstreams["up"].pool.idle == 1
        assert len(double.requests) == 1


async def test_drain_is_bounded_in_number(monkeypatch):
    """Field case 8: over the cap an answer is cancelled."""
    monkeypatch.setattr(gateway, "MAX_DRAINS", 3)
    script = Slowly()
    async with upstream(script) as double, weir(double.url, settings=DRAIN) as proxy:
        for _ in range(10):
            await _walk_away(proxy.url)
        async with asyncio.timeout(wire.SECONDS):
            while script.was_left.count(True) < 7:  # noqa: ASYNC110 - the script tells nobody
                await asyncio.sleep(0.01)
        assert proxy.gateway.upstreams["up"].in_flight == 3
        script.cue.set()
        assert await at_rest(proxy) == {"client_abort": 10}
        assert sorted(script.was_left) == [False] * 3 + [True] * 7
        assert len(double.requests) == 10


async def test_drain_is_bounded_in_time(monkeypatch):
    monkeypatch.setattr(gateway, "DRAIN_SECONDS", 0.1)
    script = Slowly()
    async with upstream(script) as double, weir(double.url, settings=DRAIN) as proxy:
        await _walk_away(proxy.url)
        assert await at_rest(proxy) == {"client_abort": 1}
        async with asyncio.timeout(wire.SECONDS):
            while not script.was_left:  # noqa: ASYNC110 - the script tells nobody
                await asyncio.sleep(0.01)
        assert script.was_left == [True]
        assert len(double.requests) == 1


async def test_drain_is_bounded_in_bytes():
    """A flood is not read for nobody: 8 MB, and the upstream is cut."""
    flood = Flood()
    async with upstream(flood) as double, weir(double.url, settings=DRAIN) as proxy:
        async with wire.connected(proxy.url, hold=2**16) as client:
            await client.send(STREAM)
            await (await client.start()).until(b"\n\n")
            client.leave(reset=True)
        assert await at_rest(proxy) == {"client_abort": 1}
        async with asyncio.timeout(wire.SECONDS):
            await double.wires[0].has_left.wait()
        assert not flood.is_done
        assert flood.sent < FEW_MB + 8 * 2**20


async def test_drain_ends_what_a_stalled_app_left_behind():
    """The app had stopped reading before it left: the upstream is let go on, for as long as the bounds say."""
    flood = Flood()
    async with upstream(flood) as double, weir(double.url, settings=DRAIN) as proxy:
        async with wire.connected(proxy.url, hold=2**16) as client:
            await client.send(STREAM)
            stood_at = await flood.stands_still()
            client.leave(reset=True)
        assert await at_rest(proxy) == {"client_abort": 1}
        assert stood_at < flood.sent < FEW_MB + 8 * 2**20
        assert len(double.requests) == 1
