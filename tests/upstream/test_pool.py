"""Connections are kept, found dead, waited for and given back; none is written to that its server has closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from proxy.errors import ConnectFailed, Dropped, Unavailable
from proxy.upstream import pool as pools
from tests.upstream.double import (
    OK,
    ask,
    each,
    opened,
    read,
    refusing,
    request,
    serving,
    silent,
    start,
    taken,
    until,
)

if TYPE_CHECKING:
    from proxy.upstream.openai import OpenAI
    from tests.upstream.double import Peer, Script


def closing_idle(seconds: float) -> Script:
    """Answers, and closes what rests for so long: never a connection on which a request has arrived already."""

    async def script(peer: Peer) -> None:
        while True:
            asking = asyncio.ensure_future(peer.request())
            if not (await asyncio.wait({asking}, timeout=seconds))[0] and not peer.has_more():
                peer.end_at_once()
            head = await asking
            await peer.reader.readexactly(int(head.get("content-length") or 0))
            await peer.send(OK)

    return script


class Gated:
    """Begins each answer at once and ends it when its gate, in the order of the requests, is opened."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []

    async def __call__(self, peer: Peer) -> None:
        while await peer.request():
            gate = asyncio.Event()
            self.gates.append(gate)
            await peer.send(OK[:-2])
            await gate.wait()
            await peer.send(OK[-2:])


def offering(seconds: str) -> Script:
    return each(OK.replace(b"\r\n", b"\r\nKeep-Alive: %b\r\n" % seconds.encode(), 1))


async def rest(upstream: OpenAI) -> float:
    """How long a connection is kept unused after the next answer, seconds."""
    assert (await ask(upstream)).body == b"ok"
    return upstream.pool._rest


# -- reuse


async def test_the_freshest_connection_is_used_first() -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        await asyncio.gather(*(ask(upstream) for _ in range(5)))
        assert (server.connections, upstream.pool.idle) == (5, 5)
        freshest = upstream.pool._idle[-1]
        await ask(upstream)
        assert upstream.pool._idle[-1] is freshest
        assert server.connections == 5


async def test_a_connection_that_rests_too_long_is_closed_here() -> None:
    async with serving(each(OK)) as server, opened(server.url, keepalive="100ms") as upstream:
        await ask(upstream)
        assert upstream.pool.idle == 1
        await until(lambda: not server.here)
        assert (upstream.pool.idle, upstream.pool.open) == (0, 0)
        await ask(upstream)
        assert server.connections == 2


async def test_500_requests_to_a_server_that_closes_what_rests_for_50_ms() -> None:
    """Case 101: some find a connection that rests, some one that is gone; none fails."""
    asking, posting = request(), request("POST", body=b"{}")
    async with serving(closing_idle(0.05)) as server, opened(server.url) as upstream:

        async def app(rests: float) -> None:
            for number in range(20):
                assert (await ask(upstream, posting if number % 2 else asking)).body == b"ok"
                await asyncio.sleep(rests)

        await asyncio.gather(*(app(0.003 * number) for number in range(1, 26)))
        assert len(server.heads) == 500
        assert 1 < server.connections < 500


async def test_a_close_that_the_event_loop_has_not_seen_yet_is_seen_before_a_request_is_written() -> None:
    ends: list[bytes] = []

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK)
            if len(ends) == 0:
                await asyncio.sleep(0.03)
                peer.end_at_once()
                ends.append((await ask(upstream, request("POST", body=b"{}"))).body)

    async with serving(script) as server, opened(server.url) as upstream:
        await ask(upstream)
        await until(lambda: ends)
        assert (ends, server.connections) == ([b"ok"], 2)


async def test_a_server_that_closes_after_each_answer_without_saying_so_gets_every_post() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reader.readexactly(2)
        peer.end_at_once(OK)

    async with serving(script) as server, opened(server.url, max_connections=2) as upstream:
        answers = await asyncio.gather(*(ask(upstream, request("POST", body=b"{}")) for _ in range(40)))
        assert {answer.body for answer in answers} == {b"ok"}
        assert (server.connections, len(server.heads)) == (40, 40)


# -- how long a server keeps what rests


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        ("timeout=2", 1.6),
        ("timeout=2, max=100", 1.6),
        ("max=5, Timeout=1", 0.8),
        ("timeout=0", pools.REST_LEAST),
        ("timeout=60", pools.REST_PLAIN),
        ("timeout=soon", pools.REST_PLAIN),
        ("max=5", pools.REST_PLAIN),
    ],
)
async def test_keep_alive_says_how_long(offered: str, kept: float) -> None:
    async with serving(offering(offered)) as server, opened(server.url) as upstream:
        assert await rest(upstream) == pytest.approx(kept)


async def test_a_server_is_seen_to_close_what_rests() -> None:
    async with serving(closing_idle(0.5)) as server, opened(server.url) as upstream:
        assert await rest(upstream) == pools.REST_PLAIN
        await until(lambda: not upstream.pool.open)
        assert pools.REST_LEAST <= await rest(upstream) < 0.5


async def test_what_was_learned_from_a_restart_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "FORGET_SECONDS", 0.3)
    async with serving(closing_idle(0.02)) as server, opened(server.url) as upstream:
        await ask(upstream)
        await until(lambda: not upstream.pool.open)
        assert await rest(upstream) == pools.REST_LEAST
        await asyncio.sleep(0.35)
        assert await rest(upstream) == pools.REST_PLAIN


async def test_a_server_that_offers_more_again_is_believed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Node says `timeout=5` with every answer: that must not keep alive what one restart taught."""
    monkeypatch.setattr(pools, "FORGET_SECONDS", 0.3)
    async with serving(offering("timeout=5")) as server, opened(server.url) as upstream:
        upstream.pool._learn(0.0, asyncio.get_running_loop().time())
        assert await rest(upstream) == pools.REST_LEAST
        for _ in range(8):
            await asyncio.sleep(0.05)
            await ask(upstream)
        assert await rest(upstream) == pools.REST_PLAIN


async def test_what_is_closed_here_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was laid to rest for a short time ends after it, by our own hand; all may be forgotten by then."""
    monkeypatch.setattr(pools, "FORGET_SECONDS", 0.1)
    monkeypatch.setattr(pools, "REST_LEAST", 0.3)
    gated = Gated()
    async with serving(gated) as server, opened(server.url) as upstream:
        sinks = [taken(await start(upstream)) for _ in range(2)]
        upstream.pool._learn(0.0, asyncio.get_running_loop().time())
        gated.gates[0].set()
        await sinks[0].over()
        await asyncio.sleep(0.15)
        gated.gates[1].set()
        await sinks[1].over()
        assert upstream.pool._rest == pools.REST_PLAIN
        await until(lambda: server.here == 1)
        assert upstream.pool._rest == pools.REST_PLAIN


# -- the limit


async def test_no_more_than_max_connections_are_open_and_who_waits_is_served_in_order() -> None:
    gated = Gated()
    async with serving(gated) as server, opened(server.url, max_connections=2) as upstream:
        asking = [asyncio.ensure_future(ask(upstream, request(target=f"/v1/{number}"))) for number in range(8)]
        for number in range(8):
            await until(lambda number=number: len(gated.gates) > min(number + 1, 7))
            assert (upstream.pool.open, upstream.pool.waiting) == (2, max(6 - number, 0))
            gated.gates[number].set()
        assert {answer.body for answer in await asyncio.gather(*asking)} == {b"ok"}
        served = [head.start.split()[1] for head in server.heads]
        assert sorted(served[:2]) + served[2:] == [b"/v1/%d" % number for number in range(8)]
        assert server.connections == 2


@pytest.mark.parametrize("ends", ["kept", "lost"])
async def test_who_comes_late_does_not_overtake_who_waits(ends: str) -> None:
    gated = Gated()
    async with serving(gated) as server, opened(server.url, max_connections=1) as upstream:
        held = await start(upstream)
        order: list[str] = []

        async def app(name: str) -> None:
            incoming = await start(upstream)
            order.append(name)
            gated.gates[-1].set()
            await read(incoming)

        waiting = [asyncio.ensure_future(app(name)) for name in ("first", "second")]
        await until(lambda: upstream.pool.waiting == 2)
        late: list[asyncio.Future[None]] = []
        sink = taken(held)
        sink.end = sink.fail = lambda _: late.append(asyncio.ensure_future(app("late")))  # type: ignore[method-assign]
        if ends == "kept":
            gated.gates[0].set()
        else:
            held.interrupt(Dropped("gone"))
        await until(lambda: late)
        await asyncio.gather(*waiting, *late)
        assert order == ["first", "second", "late"]


async def test_who_waits_is_served_although_others_keep_coming() -> None:
    async with (
        serving(each(OK)) as server,
        opened(server.url, max_connections=2, timeouts={"connect": "1s"}) as upstream,
    ):
        stop = asyncio.get_running_loop().time() + 1.2
        served: list[float] = []

        async def app() -> None:
            while (began := asyncio.get_running_loop().time()) < stop:
                await ask(upstream)
                served.append(asyncio.get_running_loop().time() - began)

        await asyncio.gather(*(app() for _ in range(20)))
        assert max(served) < 0.6


async def test_a_dropped_connection_makes_room() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.02)

    async with serving(script) as server, opened(server.url, max_connections=1) as upstream:
        ends = await asyncio.gather(*(ask(upstream) for _ in range(5)), return_exceptions=True)
        assert [type(end) for end in ends] == [Dropped] * 5
        assert (server.connections, upstream.pool.open, upstream.pool.waiting) == (5, 0, 0)


async def test_who_waits_too_long_is_told_that_all_are_in_use() -> None:
    async with (
        serving(silent) as server,
        opened(server.url, max_connections=1, timeouts={"connect": "500ms"}) as upstream,
    ):
        busy = asyncio.ensure_future(ask(upstream))
        await until(lambda: server.heads)
        with pytest.raises(Unavailable, match=r"^upstream 'up': all 1 connections are in use$") as raised:
            await ask(upstream)
        assert raised.value.status == 503
        assert upstream.pool.waiting == 0
        busy.cancel()
        await asyncio.wait({busy})


async def test_a_connection_that_cannot_be_made_makes_room() -> None:
    with refusing() as port:
        async with opened(f"http://127.0.0.1:{port}/v1", max_connections=1) as upstream:
            ends = await asyncio.gather(*(ask(upstream) for _ in range(5)), return_exceptions=True)
            assert [type(end) for end in ends] == [ConnectFailed] * 5
            assert (upstream.pool.open, upstream.pool.waiting, upstream.pool._dialing) == (0, 0, 0)


async def test_why_no_connection_can_be_made_is_logged_but_not_for_each_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing() as port:
        async with opened(f"http://127.0.0.1:{port}/v1") as upstream:
            await asyncio.gather(*(ask(upstream) for _ in range(5)), return_exceptions=True)
            assert caplog.messages == ["upstream 'up' cannot be reached: connection refused"]
            monkeypatch.setattr(upstream.pool, "_quiet_until", 0.0)
            await asyncio.gather(*(ask(upstream) for _ in range(5)), return_exceptions=True)
    assert caplog.messages == ["upstream 'up' cannot be reached: connection refused"] * 2


async def test_a_server_that_closes_what_it_accepts_keeps_no_room() -> None:
    async def script(peer: Peer) -> None:
        peer.leave(reset=True)

    async with serving(script) as server, opened(server.url, max_connections=3) as upstream:
        ends = await asyncio.gather(
            *(ask(upstream, request("POST", body=b"{}")) for _ in range(60)), return_exceptions=True
        )
        assert {type(end) for end in ends} <= {Dropped, ConnectFailed}
        await until(lambda: not upstream.pool.open)
        assert (upstream.pool.waiting, upstream.pool._dialing) == (0, 0)
