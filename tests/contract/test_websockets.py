"""WebSockets: what an app and a server see of each other through Weir is what they see of each other without."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests import wire
from tests.contract.double import Wire, at_rest, upstream, weir
from tests.frames import (
    BINARY,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    Ends,
    accepted,
    accepts,
    close,
    direct,
    frame,
    handshake,
    joined,
    rest,
    text,
)

Scenario = Callable[[Ends], Awaitable[object]]

SAID_UP = [
    frame(TEXT, '{"type":"session.update","voice":"Grüße ☕"}'.encode(), mask=MASK),
    frame(PING, b"there?", mask=MASK),
    frame(TEXT, b"in three ", mask=MASK, is_final=False),
    frame(PONG, mask=MASK),
    frame(CONTINUATION, b"par", mask=MASK, is_final=False),
    frame(CONTINUATION, b"ts", mask=MASK),
    frame(BINARY, bytes(range(256)) * 10, mask=MASK),
]
SAID_DOWN = [text('{"type":"session.created"}'), frame(PONG, b"there?"), frame(BINARY, bytes(70_000)), text("漢字")]
GARBAGE = bytes(range(255, -1, -1)) * 20


async def both(scenario: Scenario, outcome: str = "ok") -> None:
    """The scenario, which ends both sides, tells the same of a socket through Weir as of a direct one."""
    async with direct() as ends:
        told = await scenario(ends)
    async with upstream(accepts) as double, weir(double.url) as proxy:
        async with joined(proxy.url, double) as ends:
            assert await scenario(ends) == told
            assert await at_rest(proxy) == {outcome: 1}
        assert proxy.state()["upstreams"]["up"]["pool"]["open"] == 0


async def over(ends: Ends) -> list[tuple[bytes, str]]:
    """The server ends the connection, then the app does, as RFC 6455 wants it."""
    ends.server.close()
    down = await rest(ends.app.reader)
    ends.app.leave()
    return [down, await rest(ends.server.reader)]


def crumbs(*pieces: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(pieces)]


PIECES = {
    "frames": (SAID_UP, SAID_DOWN),
    "all at once": ([b"".join(SAID_UP)], [b"".join(SAID_DOWN)]),
    "byte by byte": (crumbs(*SAID_UP), crumbs(*SAID_DOWN[:2])),
    "what is no frame": ([GARBAGE], [GARBAGE]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("name", PIECES)
async def test_bytes_pass_both_ways(name):
    up, down = PIECES[name]

    async def scenario(ends: Ends) -> object:
        await asyncio.gather(ends.app.send(*up), ends.server.send(*down))
        heard = await ends.server.reader.readexactly(len(b"".join(up)))
        seen = await ends.app.reader.readexactly(len(b"".join(down)))
        assert (heard, seen) == (b"".join(up), b"".join(down))
        return heard, seen, await over(ends)

    await both(scenario)


async def test_a_conversation_takes_its_turns():
    async def scenario(ends: Ends) -> object:
        for number in range(200):
            await ends.app.send(frame(TEXT, b"%d" % number, mask=MASK))
            heard = await ends.server.reader.readexactly(len(b"%d" % number) + 6)
            await ends.server.send(text("echo ") + heard)
            assert await ends.app.reader.readexactly(7 + len(heard)) == text("echo ") + heard
        return await over(ends)

    await both(scenario)


CODES = [1000, 1001, None, 1008, 1011, 3000, 4999]
REASONS = {1008: "no such key", 1011: "Grüße ☕", 4999: "x" * 123}


@pytest.mark.parametrize("code", CODES)
async def test_a_server_that_closes(code):
    goodbye = close(code, REASONS.get(code, ""))

    async def scenario(ends: Ends) -> object:
        await ends.server.send(text("last words") + goodbye)
        seen = await ends.app.reader.readexactly(len(text("last words") + goodbye))
        await ends.app.send(close(code, REASONS.get(code, ""), mask=MASK))
        heard = await ends.server.reader.readexactly(len(goodbye) + 4)
        return seen, heard, await over(ends)

    await both(scenario, "ok" if code in (1000, 1001, None) else "stream_interrupted")


@pytest.mark.parametrize("code", CODES)
async def test_an_app_that_closes(code):
    goodbye = close(code, REASONS.get(code, ""), mask=MASK)

    async def scenario(ends: Ends) -> object:
        await ends.app.send(goodbye)
        heard = await ends.server.reader.readexactly(len(goodbye))
        await ends.server.send(close(code))
        return heard, await over(ends)

    await both(scenario, "ok" if code in (1000, 1001, None) else "client_abort")


async def test_a_server_that_ends_without_a_word():
    await both(over)


async def test_a_server_that_ends_amid_a_frame():
    async def scenario(ends: Ends) -> object:
        await ends.server.send(frame(TEXT, b"half of it")[:-4])
        return await over(ends)

    await both(scenario, "stream_interrupted")


async def test_a_server_that_resets():
    """No FIN is made of it, which could pass for an end in order."""

    async def scenario(ends: Ends) -> object:
        await ends.server.send(text("a"))
        seen = await ends.app.reader.readexactly(3)
        ends.server.reset()
        return seen, await rest(ends.app.reader)

    await both(scenario, "stream_interrupted")


async def test_a_close_frame_arrives_before_the_reset_that_follows_it():
    """Where a server goes while the app still talks, its reason for going is what the app must get to know."""

    async def talks(ends: Ends) -> None:
        while True:
            await ends.app.send(frame(BINARY, bytes(1000), mask=MASK))
            await asyncio.sleep(0)

    async with upstream(accepts) as double, weir(double.url) as proxy, joined(proxy.url, double) as ends:
        talking = asyncio.ensure_future(talks(ends))
        await ends.server.reader.readexactly(5000)
        await ends.server.send(close(1008, "no sound here"))
        ends.server.reset()
        assert await ends.app.reader.readexactly(17) == close(1008, "no sound here")
        talking.cancel()
        ends.app.leave()
        assert await at_rest(proxy) == {"stream_interrupted": 1}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_app_that_leaves(reset):
    async with upstream(accepts) as double, weir(double.url) as proxy:
        async with joined(proxy.url, double) as ends:
            await ends.server.send(text("a"))
            await ends.app.reader.readexactly(3)
            ends.app.leave(reset=reset)
            async with asyncio.timeout(1):
                await rest(ends.server.reader)
            ends.server.close()
        assert await at_rest(proxy) == {"client_abort": 1}


async def test_an_app_that_leaves_before_the_101():
    async def hesitates(connection: Wire) -> None:
        await connection.left()

    async with upstream(hesitates) as double, weir(double.url) as proxy:
        async with wire.connected(proxy.url) as client:
            await client.send(handshake())
            await wire.until(lambda: double.requests)
            client.leave()
            async with asyncio.timeout(1):
                await double.wires[0].has_left.wait()
        assert await at_rest(proxy) == {"client_abort": 1}


async def test_an_app_that_has_said_goodbye_may_leave():
    async def scenario(ends: Ends) -> object:
        await ends.app.send(close(1000, mask=MASK))
        ends.app.leave()
        heard = await rest(ends.server.reader)
        ends.server.close()
        return heard

    await both(scenario)


async def test_an_app_that_has_ended_its_half_still_hears_the_server():
    async def scenario(ends: Ends) -> object:
        await ends.app.send(close(1000, mask=MASK))
        ends.app.writer.write_eof()
        heard = await rest(ends.server.reader)
        await ends.server.send(bytes(300_000), close(1000))
        ends.server.close()
        return heard, await rest(ends.app.reader)

    await both(scenario)


async def test_a_server_that_has_ended_its_half_still_hears_the_app():
    async def scenario(ends: Ends) -> object:
        await ends.server.send(close(1000))
        ends.server.writer.write_eof()
        seen = await rest(ends.app.reader)
        await ends.app.send(bytes(300_000), close(1000, mask=MASK))
        ends.app.leave()
        heard = await rest(ends.server.reader)
        ends.server.close()
        return seen, heard

    await both(scenario)


async def test_what_the_app_says_behind_its_handshake_is_not_lost():
    said = b"".join(SAID_UP)
    async with upstream(accepts) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(handshake() + said[:100])
        await wire.until(lambda: double.requests)
        await client.send(said[100:])
        assert await double.wires[0].reader.readexactly(len(said)) == said
        double.wires[0].close()


async def test_what_an_impatient_app_says_waits_bounded():
    """Frames behind a handshake that is not answered yet stay in the socket."""
    answered = asyncio.Event()
    said = hashlib.sha256(b"").digest() * 2**20

    async def script(connection: Wire) -> None:
        await answered.wait()
        await accepts(connection)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        sending = asyncio.ensure_future(client.send(handshake(), said))
        await wire.until(lambda: double.wires)
        await asyncio.sleep(0.2)
        answered.set()
        assert await double.wires[0].reader.readexactly(len(said)) == said
        await sending
        double.wires[0].close()


async def test_what_the_server_says_with_its_101_is_not_lost():
    async def script(connection: Wire) -> None:
        await connection.send(accepted() + b"".join(SAID_DOWN))
        connection.close()

    async with upstream(script) as double, weir(double.url) as proxy, joined(proxy.url, double) as ends:
        assert await rest(ends.app.reader) == (b"".join(SAID_DOWN), "FIN")


# -- sizes


class Counted:
    """Writes 64 MB in four messages as fast as it is let."""

    def __init__(self, writer: asyncio.StreamWriter, mask: bytes = b"") -> None:
        message = frame(BINARY, bytes(16), mask=b"")[:1] + bytes((0xFF if mask else 0x7F,)) + (2**24).to_bytes(8, "big")
        self.messages = [message + mask + bytes([number]) * 2**24 for number in range(4)]
        self.whole = hashlib.sha256(b"".join(self.messages)).hexdigest()
        self.size = sum(map(len, self.messages))
        self.sent = 0
        self._writer = writer

    async def send(self) -> None:
        for message in self.messages:
            for place in range(0, len(message), 2**16):
                self._writer.write(message[place : place + 2**16])
                await self._writer.drain()
                self.sent += 2**16

    async def stands_still(self) -> int:
        before = -1
        while before != self.sent or not self.sent:
            before = self.sent
            await asyncio.sleep(0.3)
        return self.sent


FEW_MB = 24 * 2**20
"""What two pairs of sockets take, and Weir's own share."""


async def taken(reader: asyncio.StreamReader, size: int) -> str:
    digest = hashlib.sha256()
    while size and (chunk := await reader.read(min(size, 2**20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_slow_reader_slows_the_sender(way):
    """Messages of 16 MB: nobody holds them, and when they are read all of it comes."""
    async with upstream(accepts) as double, weir(double.url) as proxy, joined(proxy.url, double, hold=2**16) as ends:
        down = (ends.server.writer, ends.app.reader, b"")
        writer, reader, mask = down if way == "down" else (ends.app.writer, ends.server.reader, MASK)
        flood = Counted(writer, mask)
        sending = asyncio.ensure_future(flood.send())
        assert await flood.stands_still() < FEW_MB
        assert await taken(reader, flood.size) == flood.whole
        await sending
        ends.server.close()
        ends.app.leave()
        assert await at_rest(proxy) == {"ok": 1}


async def test_both_ways_at_once_and_neither_waits_for_the_other():
    async with upstream(accepts) as double, weir(double.url) as proxy, joined(proxy.url, double, hold=2**16) as ends:
        down, up = Counted(ends.server.writer), Counted(ends.app.writer, MASK)
        sending = asyncio.gather(down.send(), up.send())
        assert await taken(ends.server.reader, up.size) == up.whole
        assert await taken(ends.app.reader, down.size) == down.whole
        await sending
        ends.server.close()


ON_UVLOOP = {
    "bytes": lambda: test_bytes_pass_both_ways("frames"),
    "a server closes": lambda: test_a_server_that_closes(1000),
    "an app closes": lambda: test_an_app_that_closes(4999),
    "a server's FIN": test_a_server_that_has_ended_its_half_still_hears_the_app,
    "an app's FIN": test_an_app_that_has_ended_its_half_still_hears_the_server,
    "a server's RST": test_a_server_that_resets,
    "an app's RST": lambda: test_an_app_that_leaves(reset=True),
    "behind the handshake": test_what_the_app_says_behind_its_handshake_is_not_lost,
    "before the 101": test_what_an_impatient_app_says_waits_bounded,
    "a slow app": lambda: test_a_slow_reader_slows_the_sender("down"),
    "a slow server": lambda: test_a_slow_reader_slows_the_sender("up"),
}


@pytest.mark.parametrize("name", ON_UVLOOP)
def test_on_the_loop_that_weir_serves_on(name):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ON_UVLOOP[name]())
