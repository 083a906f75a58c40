"""The time limits of an attempt: which one ends it, with which error, and that none does before its time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy.errors import ConnectFailed, DownstreamStalled, Interrupted, Outcome, UploadStalled, UpstreamTimeout
from tests.upstream.double import OK, Pieces, ask, deaf, each, opened, request, serving, silent, start, taken, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.upstream.double import Peer, Script

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"5\r\n: a\n\n\r\n"
LAST = b"0\r\n\r\n"
pytestmark = pytest.mark.asyncio(
    loop_factories=["uvloop"]
)  # the timers are this project's own, and the tests take time

NEVER = {"first_byte": "none", "idle": "none", "total": "none"}


def only(**limits: str) -> Mapping[str, Mapping[str, str]]:
    return {"timeouts": {**NEVER, **limits}}


def paced(*pieces: bytes, pause: float) -> Script:
    """The head, then a piece after each pause, then silence."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM)
        for piece in pieces:
            await asyncio.sleep(pause)
            await peer.send(piece)
        await peer.request()

    return script


async def test_an_upstream_that_does_not_begin_to_answer() -> None:
    async with serving(silent) as server, opened(server.url, **only(first_byte="100ms")) as upstream:
        with pytest.raises(UpstreamTimeout, match=r"^upstream 'up' did not begin to answer in time$") as raised:
            await ask(upstream)
        assert (raised.value.status, raised.value.outcome) == (504, Outcome.UPSTREAM_ERROR)
        await until(lambda: not server.here)
        assert upstream.pool.open == 0


async def test_an_interim_answer_is_no_first_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await peer.request()

    interim: list[object] = []
    async with serving(script) as server, opened(server.url, **only(first_byte="200ms")) as upstream:
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, on_interim=lambda *seen: interim.append(seen))
    assert interim == [(103, b"Early Hints", [])]


async def test_the_first_byte_is_waited_for_from_the_uploads_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reader.readuntil(LAST)
        await peer.send(OK)

    slow = request("POST", body=Pieces(*[b"x"] * 6, pause=0.1))
    async with serving(script) as server, opened(server.url, **only(first_byte="400ms")) as upstream:
        assert (await ask(upstream, slow)).body == b"ok"


async def test_silence_in_the_middle_of_an_answer() -> None:
    async with serving(paced(EVENT, pause=0)) as server, opened(server.url, **only(idle="100ms")) as upstream:
        answer = await ask(upstream)
        assert answer.body == b": a\n\n"
        assert isinstance(answer.error, Interrupted)
        assert answer.error.message == "upstream 'up' fell silent in the middle of its answer"
        assert (answer.error.error_code, answer.error.outcome) == ("upstream_timeout", Outcome.STREAM_INTERRUPTED)
        await until(lambda: not server.here)
        assert upstream.pool.open == 0


async def test_an_answer_may_last_longer_than_its_longest_silence() -> None:
    script = paced(*[EVENT] * 8, LAST, pause=0.1)
    async with serving(script) as server, opened(server.url, **only(idle="500ms")) as upstream:
        answer = await ask(upstream)
        assert (answer.is_whole, len(answer.chunks)) == (True, 8)


async def test_an_answer_may_begin_later_than_its_longest_silence() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.4)
        await peer.send(OK)

    async with serving(script) as server, opened(server.url, **only(idle="100ms")) as upstream:
        assert (await ask(upstream)).body == b"ok"


async def test_the_limits_of_one_answer_do_not_reach_the_next() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            await asyncio.sleep(0.25)
            await peer.send(STREAM)
            await asyncio.sleep(0.25)
            await peer.send(EVENT, LAST)
        await peer.request()

    limits = only(first_byte="600ms", idle="600ms", total="900ms")
    async with serving(script) as server, opened(server.url, **limits) as upstream:
        for _ in range(3):
            assert (await ask(upstream)).is_whole
        assert server.connections == 1


async def test_the_total_ends_an_answer_that_flows() -> None:
    script = paced(*[EVENT] * 200, pause=0.02)
    async with serving(script) as server, opened(server.url, **only(total="300ms", idle="10s")) as upstream:
        answer = await ask(upstream)
        assert isinstance(answer.error, Interrupted)
        assert answer.error.message == "upstream 'up' did not finish within its total time limit"
        assert (answer.error.error_code, answer.error.outcome) == ("upstream_timeout", Outcome.STREAM_INTERRUPTED)
        assert answer.chunks


async def test_the_total_ends_a_wait_too() -> None:
    async with serving(silent) as server, opened(server.url, **only(total="100ms", first_byte="10s")) as upstream:
        with pytest.raises(UpstreamTimeout, match="total time limit") as raised:
            await ask(upstream)
        assert raised.value.status == 504


async def test_an_upload_that_stops_flowing() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(20)

    big = request("POST", body=Pieces(*[bytes(2**20)] * 64))
    async with serving(script) as server, opened(server.url, **only(idle="200ms")) as upstream:
        with pytest.raises(UpstreamTimeout, match=r"^the request's body stopped flowing to upstream 'up'$") as raised:
            await ask(upstream, big)
        assert raised.value.status == 504
        assert upstream.pool.open == 0


@pytest.mark.parametrize("limits", [only(idle="100ms"), only(total="100ms")], ids=["idle", "total"])
async def test_an_app_that_stops_sending_its_body_is_told_so(limits: Mapping[str, Mapping[str, str]]) -> None:
    slow = request("POST", body=Pieces(b"x", b"y", pause=0.5))
    async with serving(silent) as server, opened(server.url, **limits) as upstream:
        with pytest.raises(UploadStalled, match=r"^the request's body stopped coming$") as raised:
            await ask(upstream, slow)
        assert (raised.value.status, raised.value.outcome) == (408, Outcome.CLIENT_ERROR)
        await until(lambda: not server.here)


async def test_a_reader_that_pauses_and_goes_on_keeps_its_answer() -> None:
    script = paced(EVENT, EVENT, LAST, pause=0.6)
    async with serving(script) as server, opened(server.url, **only(idle="1200ms")) as upstream:
        sink = taken(await start(upstream))
        sink.incoming.pause()
        await asyncio.sleep(0.8)
        sink.incoming.resume()
        await asyncio.sleep(0.05)
        sink.incoming.pause()
        await asyncio.sleep(0.8)
        sink.incoming.resume()
        assert (await sink.over()).is_whole


async def test_a_reader_that_stalls_is_let_go_and_the_upstream_too() -> None:
    async with (
        serving(paced(*[EVENT] * 500, pause=0.01)) as server,
        opened(server.url, **only(idle="300ms")) as upstream,
    ):
        sink = taken(await start(upstream))
        await until(lambda: sink.chunks)
        sink.incoming.pause()
        await sink.over()
        assert isinstance(sink.error, DownstreamStalled)
        assert sink.error.outcome is Outcome.CLIENT_ABORT
        await until(lambda: not server.here)


async def test_without_limits_nothing_ends() -> None:
    async with serving(paced(EVENT, LAST, pause=0.3)) as server, opened(server.url, **only()) as upstream:
        assert (await ask(upstream)).is_whole


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_that_is_not_made_in_time(scheme: str) -> None:
    with deaf() as port:
        async with opened(f"{scheme}://127.0.0.1:{port}/v1", timeouts={"connect": "200ms"}) as upstream:
            with pytest.raises(ConnectFailed, match=r"^upstream 'up' did not accept a connection in time$") as raised:
                await ask(upstream)
            assert (raised.value.status, raised.value.error_code) == (502, "upstream_unreachable")
            assert upstream.pool.open == 0


async def test_a_tls_handshake_counts_as_connecting() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(-1)

    async with serving(script) as server:
        async with opened(server.url.replace("http:", "https:"), timeouts={"connect": "200ms"}) as upstream:
            with pytest.raises(ConnectFailed, match="in time"):
                await ask(upstream)
        await until(lambda: not server.here)


async def test_an_upstream_that_cannot_be_reached_does_not_hold_up_another() -> None:
    """Case 81."""
    with deaf() as port:
        async with opened(f"http://127.0.0.1:{port}/v1") as dead, serving(each(OK)) as server:
            waiting = [asyncio.ensure_future(ask(dead)) for _ in range(50)]
            async with opened(server.url) as alive, asyncio.timeout(2):
                for _ in range(50):
                    assert (await ask(alive)).body == b"ok"
            for task in waiting:
                task.cancel()
            assert all(isinstance(end, BaseException) for end in await asyncio.gather(*waiting, return_exceptions=True))
