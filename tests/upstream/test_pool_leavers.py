"""Whoever is cancelled, at whatever moment, leaves no connection behind that nobody can use (cases 94 and 117)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.upstream.double import OK, Pieces, ask, deaf, each, opened, request, serving, silent, start, taken, until

if TYPE_CHECKING:
    from proxy.upstream.openai import OpenAI
    from tests.upstream.double import Peer


async def is_sound(upstream: OpenAI) -> bool:
    """All slots are free: as many requests as there are connections pass at the same time."""
    await until(lambda: upstream.pool.open == upstream.pool.idle)
    answers = await asyncio.gather(*(ask(upstream) for _ in range(upstream.pool._size)))
    return upstream.pool._dialing == upstream.pool.waiting == 0 and all(answer.is_whole for answer in answers)


@pytest.mark.parametrize("busy", [False, True], ids=["free", "full"])
async def test_who_leaves_at_any_moment_takes_no_slot_along(busy: bool) -> None:
    """Cases 94 and 117: cancelled after each number of turns of the event loop, from before it starts to its end."""
    async with serving(each(OK)) as server, opened(server.url, max_connections=2) as upstream:
        for turns in range(40):
            upstream.pool.close()
            await until(lambda: not upstream.pool.open)
            held = [await start(upstream) for _ in range(2 * busy)]
            asking = asyncio.ensure_future(ask(upstream))
            for turn in range(turns):
                await asyncio.sleep(0)
                if turn == 3:
                    for incoming in held:
                        taken(incoming)
            asking.cancel()
            await asyncio.wait({asking})
            for incoming in held:
                taken(incoming)
            assert await is_sound(upstream)


@pytest.mark.parametrize("milliseconds", range(0, 30, 3))
async def test_who_leaves_at_any_time_takes_no_slot_along(milliseconds: int) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await asyncio.sleep(0.005)
            await peer.send(OK[:-2])
            await asyncio.sleep(0.005)
            await peer.send(OK[-2:])

    async with serving(script) as server, opened(server.url, max_connections=3) as upstream:
        asking = [asyncio.ensure_future(ask(upstream)) for _ in range(12)]
        await asyncio.sleep(milliseconds / 1000)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert await is_sound(upstream)


async def test_who_leaves_an_upload_takes_no_slot_along() -> None:
    async with serving(silent) as server, opened(server.url, max_connections=1) as upstream:
        for _ in range(3):
            pieces = Pieces(*[b"x"] * 1000, pause=0.005)
            asking = asyncio.ensure_future(ask(upstream, request("POST", body=pieces)))
            await until(lambda pieces=pieces: pieces.taken > 2)
            asking.cancel()
            await asyncio.wait({asking})
            seen = pieces.taken
            await until(lambda: not upstream.pool.open)
            await asyncio.sleep(0.02)
            assert pieces.taken == seen
        assert server.connections == 3


async def test_who_leaves_while_connecting_takes_no_slot_along() -> None:
    with deaf() as port:
        async with opened(f"http://127.0.0.1:{port}/v1", max_connections=2) as upstream:
            asking = [asyncio.ensure_future(ask(upstream)) for _ in range(5)]
            await until(lambda: upstream.pool.waiting == 3)
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
            assert (upstream.pool.open, upstream.pool.waiting, upstream.pool._dialing) == (0, 0, 0)


async def test_a_storm_of_leavers_leaves_nothing_behind() -> None:
    """Case 94: 600 at once, every other one leaves."""
    async with serving(each(OK)) as server, opened(server.url, max_connections=50) as upstream:
        asking = [asyncio.ensure_future(ask(upstream)) for _ in range(600)]
        await asyncio.sleep(0.01)
        for task in asking[::2]:
            task.cancel()
        ends = await asyncio.gather(*asking, return_exceptions=True)
        assert all(end.is_whole for end in ends[1::2])
        assert upstream.pool.open <= 50
        assert await is_sound(upstream)
