"""One upstream that swallows requests takes nothing from its neighbours: not their time, and not the memory of all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from proxy import testing
from tests import wire
from tests.upstream.double import deaf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy import app

CROWD = 300
SOON = 2.0
"""Seconds within which a neighbour has to answer, on the slowest machine; it takes milliseconds."""


async def black_hole(_: testing.Received, up: testing.Wire) -> None:
    """Takes a request and says nothing."""
    await up.gone.wait()


def house(hole: str, good: str, settings: str, targets: str = "[hole]", plugins: str = "[]") -> str:
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{hole: {{base_url: "{hole}/v1", {settings}}}, good: {{base_url: "{good}/v1"}}}}\n'
        f"plugins: {plugins}\n"
        f"routes: [{{name: hole, match: {{model: hole}}, targets: {targets}}}, {{name: good, targets: [good]}}]\n"
    )


class Crowd:
    """So many requests for the hole at once; `statuses` of those that were answered."""

    def __init__(self, weir: app.Weir) -> None:
        self._weir = weir
        self.statuses: list[int] = []
        self.tasks = [asyncio.ensure_future(self._ask()) for _ in range(CROWD)]

    async def _ask(self) -> None:
        self.statuses.append((await testing.ask(self._weir, {"model": "hole"})).status)


@contextlib.asynccontextmanager
async def crowd(weir: app.Weir) -> AsyncIterator[Crowd]:
    asking = Crowd(weir)
    try:
        yield asking
    finally:
        for task in asking.tasks:
            task.cancel()
        await asyncio.gather(*asking.tasks, return_exceptions=True)


async def slowest_neighbour(weir: app.Weir, requests: int = 100) -> float:
    """Seconds of the 99th percentile of the good upstream's answers."""
    took = []
    for number in range(requests):
        began = time.monotonic()
        answer = await testing.ask(weir, {"model": "good", "stream": number % 2 == 0})
        assert (answer.status, answer.is_whole) == (200, True)
        took.append(time.monotonic() - began)
    return sorted(took)[requests * 99 // 100 - 1]


async def test_requests_that_hang_slow_no_neighbour() -> None:
    async with (
        testing.upstream(black_hole) as hole,
        testing.upstream(testing.chat("hi")) as good,
        testing.configured(house(hole.url, good.url, "timeouts: {first_byte: 60s}")) as weir,
        crowd(weir) as asking,
    ):
        await wire.until(lambda: len(hole.requests) == CROWD)
        assert await slowest_neighbour(weir) < SOON
        assert not asking.statuses


async def test_an_upstream_that_accepts_no_connection_slows_no_neighbour() -> None:
    with deaf() as port:
        async with (
            testing.upstream(testing.chat("hi")) as good,
            testing.configured(house(f"http://127.0.0.1:{port}", good.url, "timeouts: {connect: 2s}")) as weir,
            crowd(weir) as asking,
        ):
            assert await slowest_neighbour(weir) < SOON
            await asyncio.gather(*asking.tasks)
            assert weir.gateway.upstreams["hole"].in_flight == 0
    assert set(asking.statuses) == {502}


async def test_only_so_many_wait_and_the_others_hear_at_once() -> None:
    settings = "max_connections: 50, max_waiting: 100, timeouts: {connect: 60s}"
    async with (
        testing.upstream(black_hole) as hole,
        testing.upstream(testing.chat("hi")) as good,
        testing.configured(house(hole.url, good.url, settings)) as weir,
    ):
        pool = weir.gateway.upstreams["hole"].pool
        async with crowd(weir) as asking:
            await wire.until(lambda: len(asking.statuses) == CROWD - 150 and pool.open == 50)
            assert pool.waiting == 100
            assert await slowest_neighbour(weir) < SOON
        await wire.until(lambda: not weir.in_flight)
        assert (pool.open, pool.waiting) == (0, 0)
    assert asking.statuses == [503] * (CROWD - 150)


async def test_who_may_not_wait_is_served_elsewhere() -> None:
    """A queue of none: what is busy is passed over."""
    settings = "max_connections: 10, max_waiting: 0, timeouts: {connect: 60s}"
    retry = "[{retry: {use: 'tests.test_attempts:Retry'}}]"
    async with (
        testing.upstream(black_hole) as hole,
        testing.upstream(testing.chat("hi")) as good,
        testing.configured(house(hole.url, good.url, settings, "[hole, good]", retry)) as weir,
        crowd(weir) as asking,
    ):
        await wire.until(lambda: len(asking.statuses) == CROWD - 10)
        assert len(hole.requests) == 10
    assert asking.statuses == [200] * (CROWD - 10)


@pytest.mark.parametrize("waiting", [0, 1])
async def test_the_refusal_says_what_is_wrong(waiting: int) -> None:
    settings = f"max_connections: 1, max_waiting: {waiting}, timeouts: {{connect: 60s}}"
    async with (
        testing.upstream(black_hole) as hole,
        testing.configured(house(hole.url, hole.url, settings)) as weir,
        asyncio.TaskGroup() as group,
    ):
        stuck = [group.create_task(testing.ask(weir, {"model": "hole"})) for _ in range(1 + waiting)]
        upstream = weir.gateway.upstreams["hole"]
        await wire.until(lambda: len(hole.requests) == 1 and upstream.pool.waiting == waiting)
        answer = await testing.ask(weir, {"model": "hole"})
        for task in stuck:
            task.cancel()
    assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert answer.json()["error"]["message"] == "upstream 'hole': all 1 connections are in use, and too many wait"
