"""An app that leaves, in any phase: the upstream learns it within a second, and nothing is left behind (cases 3, 4, 8)."""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import orjson
import pytest
import uvloop

from proxy.exchange import Exchange
from proxy.upstream.connection import Connection
from proxy.upstream.incoming import Incoming
from tests import wire
from tests.contract import sse
from tests.contract.double import CHAT, Upstream, Wire, asks, at_rest, upstream, weir
from tests.contract.sse import STREAM, TOLD, chunk

Phase = Callable[[wire.Client], Awaitable[None]]

PROMPT = 1.0
"""Seconds within which the upstream must hear of it."""
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
POST = asks(f"POST {CHAT}", "Content-Type: application/json", body=b'{"model": "m"}')
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


async def says_nothing(connection: Wire) -> None:
    await connection.left()


async def says_a_head(connection: Wire) -> None:
    await connection.read()
    await connection.send(sse.CHUNKED)
    await connection.left()


async def says_a_token(connection: Wire) -> None:
    await connection.read()
    await connection.send(sse.CHUNKED, chunk(TOLD[0]))
    await connection.left()


async def says_half(connection: Wire) -> None:
    await connection.read()
    await connection.send(JSON_HEAD + b'Content-Length: 100\r\n\r\n{"object"')
    await connection.left()


async def says_hints(connection: Wire) -> None:
    await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    await connection.left()


async def asks_for_more(connection: Wire) -> None:
    await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await connection.left()


async def nothing(client: wire.Client) -> None:
    """There is nothing to see before the app leaves."""


async def a_head(client: wire.Client) -> None:
    await client.head()


async def a_token(client: wire.Client) -> None:
    await (await client.start()).until(b"\n\n")


async def half(client: wire.Client) -> None:
    await client.start()
    await client.reader.readexactly(9)


PHASES: dict[str, tuple[bytes, Callable[[Wire], Awaitable[None]], Phase]] = {
    "a JSON answer, before the head": (POST, says_nothing, nothing),
    "a GET, before the head": (asks("GET /v1/models"), says_nothing, nothing),
    "a stream, before the head": (STREAM, says_nothing, nothing),
    "a stream, before the first token": (STREAM, says_a_head, a_head),
    "in the middle of a stream": (STREAM, says_a_token, a_token),
    "in the middle of a JSON answer": (POST, says_half, half),
    "after an early hint": (POST, says_hints, a_head),
    "in the middle of an upload": (
        asks("POST /v1/files", "Content-Length: 900000") + b"x" * 100_000,
        says_nothing,
        nothing,
    ),
    "in a chunked upload": (
        asks("POST /v1/files", "Transfer-Encoding: chunked") + chunk(b"x" * 999),
        says_nothing,
        nothing,
    ),
    "told to continue": (asks("POST /v1/files", "Expect: 100-continue", "Content-Length: 9"), asks_for_more, a_head),
    "an upload done": (asks("POST /v1/files", body=b"x" * 100_000), says_nothing, nothing),
    "with another request behind it": (STREAM + STREAM, says_a_token, a_token),
    "HTTP/1.0": (STREAM.replace(b"HTTP/1.1", b"HTTP/1.0"), says_a_token, a_head),
    "Connection: close": (STREAM.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), says_a_token, a_token),
}


def run(loop: str, test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(test)


async def arrived(double: Upstream, number: int = 1) -> Wire:
    """The connection of the last of that many requests, once its head is there."""
    async with asyncio.timeout(wire.SECONDS):
        while len(double.requests) < number:  # noqa: ASYNC110 - the double tells nobody
            await asyncio.sleep(0.005)
    return double.wires[-1]


async def notices(connection: Wire) -> None:
    async with asyncio.timeout(PROMPT):
        await connection.has_left.wait()


async def leaving(name: str, *, reset: bool, settings: str = "") -> None:
    sent, script, seen = PHASES[name]
    async with upstream(script) as double, weir(double.url, settings=settings) as proxy:
        async with wire.connected(proxy.url) as client:
            await client.send(sent)
            connection = await arrived(double)
            await seen(client)
            client.leave(reset=reset)
            await notices(connection)
        assert await at_rest(proxy) == {"client_abort": 1}
        state = orjson.loads((await wire.fetch(proxy.admin_url, asks("GET /state"))).body)
        assert state["upstreams"]["up"]["pool"] == {"open": 0, "idle": 0, "waiting": 0}
        assert len(double.requests) == 1


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_upstream_learns_that_the_app_has_left(loop, name, reset):
    run(loop, leaving(name, reset=reset))


@pytest.mark.parametrize("loop", LOOPS)
def test_leaving_a_connection_that_has_served_before(loop):
    """Both connections are reused ones, where a server may have looked away."""

    async def leave() -> None:
        async with upstream(sse.streams(sse.WHOLE)) as double, weir(double.url) as proxy:
            async with wire.connected(proxy.url) as client:
                for _ in range(3):
                    await client.send(STREAM)
                    await client.answer("POST")
                double.script = says_nothing
                await client.send(STREAM)
                connection = await arrived(double, 4)
                client.leave()
                await notices(connection)
            assert await at_rest(proxy) == {"ok": 3, "client_abort": 1}
            assert len(double.wires) == 1

    run(loop, leave())


async def test_a_client_that_waits_for_a_connection_can_leave():
    """The pool is full: nobody holds a place in its queue for one that has gone."""
    settings = "max_connections: 1, timeouts: {connect: 20s}"
    async with upstream(says_nothing) as double, weir(double.url, settings=settings) as proxy:
        async with wire.connected(proxy.url) as first, wire.connected(proxy.url) as second:
            await first.send(STREAM)
            connection = await arrived(double)
            await second.send(STREAM)
            await _until(lambda: proxy.gateway.upstreams["up"].pool.waiting == 1)
            second.leave()
            await _until(lambda: proxy.gateway.upstreams["up"].pool.waiting == 0)
            assert not connection.has_left.is_set()
            first.leave()
            await notices(connection)
        assert await at_rest(proxy) == {"client_abort": 2}
        assert len(double.requests) == 1


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(wire.SECONDS):
        while not holds():  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(0.005)


def counted() -> dict[str, int]:
    gc.collect()
    kinds = (Exchange, Connection, Incoming)
    alive = [type(each) for each in gc.get_objects() if type(each) in kinds]
    return {kind.__name__: alive.count(kind) for kind in kinds}


async def test_thirty_abandoned_requests_leave_nothing_behind():
    """Field case 91: neither objects nor tasks; ten phases, three times each."""
    before = counted()
    phases = list(PHASES.items())[:10]
    async with contextlib.AsyncExitStack() as stack:
        doubles = [await stack.enter_async_context(upstream(script)) for _, (_, script, _) in phases]
        proxies = [await stack.enter_async_context(weir(double.url)) for double in doubles]
        tasks = len(asyncio.all_tasks())
        for number in (1, 2, 3):
            for (_, (sent, _, seen)), double, proxy in zip(phases, doubles, proxies, strict=True):
                await _abandon(proxy.url, sent, seen, double, number)
        for proxy in proxies:
            assert await at_rest(proxy) == {"client_abort": 3}
        await _until(lambda: len(asyncio.all_tasks()) <= tasks)
        await _until(lambda: counted() == before)


async def _abandon(url: str, sent: bytes, seen: Phase, double: Upstream, number: int) -> None:
    async with wire.connected(url) as client:
        await client.send(sent)
        connection = await arrived(double, number)
        await seen(client)
        client.leave()
        await notices(connection)
