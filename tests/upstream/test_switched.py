"""An upstream's socket after its 101, plain and over TLS: what passes, how it ends, and that the pool knows of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from proxy.errors import BadAnswer, Interrupted
from proxy.upstream import switched
from tests.frames import accepted
from tests.upstream.double import opened, request, serving, start, until

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.headers import Fields
    from proxy.upstream.incoming import Incoming
    from proxy.upstream.openai import OpenAI
    from proxy.upstream.switched import Switched
    from tests.upstream.conftest import Certificate
    from tests.upstream.double import Peer, Script


class Ear:
    """What is joined to the socket: keeps what it hears."""

    def __init__(self, incoming: Incoming) -> None:
        self.heard = b""
        self.ends = 0
        self.error: ProxyError | None = None
        self.is_held = False
        incoming.attach(self)
        self.socket: Switched = incoming.switch(self)

    def feed(self, chunk: bytes) -> None:
        self.heard += chunk

    def end(self, trailers: Fields) -> None:
        self.ends += 1

    def fail(self, error: ProxyError) -> None:
        self.error = error

    def hold(self) -> None:
        self.is_held = True

    def release(self) -> None:
        self.is_held = False


async def joined(upstream: OpenAI) -> Ear:
    asked = request()
    asked.is_upgrade = True
    incoming = await start(upstream, asked)
    assert incoming.status == 101
    await asyncio.sleep(0.02)  # what has come with the 101 waits
    return Ear(incoming)


async def echoes(peer: Peer) -> None:
    await peer.request()
    await peer.send(accepted() + b"hello, ")
    while chunk := await peer.reader.read(2**16):
        await peer.send(chunk)


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, certificate: Certificate) -> Certificate | None:
    return certificate if request.param == "TLS" else None


def trusting(tls: Certificate | None) -> dict[str, Any]:
    return {} if tls is None else {"tls": {"ca_file": str(tls.file)}}


async def test_bytes_pass_and_the_pool_counts_the_socket_until_it_is_gone(tls: Certificate | None) -> None:
    async with (
        serving(echoes, tls=tls.context if tls else None) as server,
        opened(server.url, **trusting(tls)) as upstream,
    ):
        ear = await joined(upstream)
        ear.socket.write(b"GET / HTTP/1.1\r\n\r\n\x00\xff")
        await until(lambda: ear.heard == b"hello, GET / HTTP/1.1\r\n\r\n\x00\xff")
        assert (upstream.pool.open, upstream.pool.idle) == (1, 0)
        assert ear.socket.end() is (tls is None)
        await until(lambda: ear.ends or ear.error)
        ear.socket.close()
        await until(lambda: not upstream.pool.open)
        assert upstream.pool.idle == 0


async def test_what_was_written_before_the_end_arrives(tls: Certificate | None) -> None:
    came = bytearray()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted())
        while chunk := await peer.reader.read(2**16):
            came.extend(chunk)
            await asyncio.sleep(0)

    async with (
        serving(script, tls=tls.context if tls else None) as server,
        opened(server.url, **trusting(tls)) as upstream,
    ):
        ear = await joined(upstream)
        for _ in range(2**23 // 2**16):
            ear.socket.write(bytes(2**16))
        assert ear.is_held
        ear.socket.end()
        await until(lambda: len(came) == 2**23)


async def test_the_upstreams_fin_leaves_it_listening() -> None:
    came = bytearray()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted() + b"bye")
        peer.writer.write_eof()
        came.extend(await peer.reader.read(-1))

    async with serving(script) as server, opened(server.url) as upstream:
        ear = await joined(upstream)
        await until(lambda: ear.ends)
        assert (ear.heard, ear.error) == (b"bye", None)
        ear.socket.write(b"still there?")
        assert ear.socket.end()
        await until(lambda: came)
    assert came == b"still there?"


async def test_a_slow_upstream_is_waited_for() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted())
        peer.writer.transport.pause_reading()
        await go_on.wait()
        peer.writer.transport.resume_reading()
        await peer.reader.readexactly(2**24)

    async with serving(script) as server, opened(server.url) as upstream:
        ear = await joined(upstream)
        for _ in range(2**24 // 2**16):
            ear.socket.write(bytes(2**16))
        assert ear.is_held
        go_on.set()
        await until(lambda: not ear.is_held)


async def test_one_that_does_not_read_its_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switched, "FAREWELL_SECONDS", 0.1)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted())
        peer.writer.transport.pause_reading()
        await asyncio.sleep(30)

    async with serving(script) as server, opened(server.url) as upstream:
        ear = await joined(upstream)
        for _ in range(2**25 // 2**16):
            ear.socket.write(bytes(2**16))
        assert ear.is_held
        ear.socket.close()
        await until(lambda: not upstream.pool.open)
        assert not ear.is_held  # whoever waits for it would wait for ever


async def test_a_lost_one_is_told() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted() + b"last words")
        await peer.reader.readexactly(2)
        peer.leave(reset=True)

    async with serving(script) as server, opened(server.url) as upstream:
        ear = await joined(upstream)
        ear.socket.write(b"ok")
        await until(lambda: ear.error)
        assert isinstance(ear.error, Interrupted)
        assert ear.heard == b"last words"
        assert ear.socket.is_closing
        assert not ear.socket.end()
        assert not upstream.pool.open


async def test_its_whole_time_is_limited_and_its_silence_is_not() -> None:
    timeouts = {"idle": "50ms", "first_byte": "100ms", "total": "500ms"}
    async with serving(echoes) as server, opened(server.url, timeouts=timeouts) as upstream:
        ear = await joined(upstream)
        began = ear.socket
        await asyncio.sleep(0.3)
        assert not began.is_closing
        await until(lambda: ear.error)
        assert isinstance(ear.error, Interrupted)
        assert ear.error.error_code == "upstream_timeout"


async def refused(script: Script) -> None:
    asked = request()
    asked.is_upgrade = True
    async with serving(script) as server, opened(server.url) as upstream:
        with pytest.raises(BadAnswer):
            await start(upstream, asked)
        await until(lambda: not upstream.pool.open)


NO_SWITCH = [b"Upgrade: websocket", b"Connection: Upgrade", b"Connection: Upgrade\r\nUpgrade: h2c"]


@pytest.mark.parametrize("fields", NO_SWITCH)
async def test_half_a_switch_or_another_is_none(fields: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n\r\n\x81\x05hello" % fields)
        await peer.ends()

    await refused(script)


async def test_a_101_has_its_bounds_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(accepted()[:-2], *[b"X: %b\r\n" % (b"y" * 8000)] * 20)
        await peer.ends()

    await refused(script)
