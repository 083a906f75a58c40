"""Limits over several Weirs and a real redis-server: exact while it serves, near while it is away, exact again."""

from __future__ import annotations

import asyncio
import random
import time
from decimal import Decimal

import orjson
import pytest

from proxy import testing
from tests import redis_server, wire
from tests.integration import replicas
from tests.integration.replicas import ask, passed

ROUTES = {
    "hundred": {"rate_limit": {"requests": "100/day"}},
    "mixed": {"rate_limit": {"tokens": "100000000/day", "concurrent": 1000}},
    "slots": {"rate_limit": {"requests": "100000/day", "concurrent": 3}},
    "alone": {"rate_limit": {"requests": "100/day", "tokens": "100000/day"}},
    "one": {"rate_limit": {"requests": "100000/day", "concurrent": 1}},
    "money": {"budget": {"usd": "0.6/day"}},
    "cancels": {"rate_limit": {"tokens": "1000000000/day", "concurrent": 500}},
}
WHEN_DOWN = {
    "local": {"rate_limit": {"requests": "4/day"}},
    "open": {"rate_limit": {"requests": "4/day", "when_store_down": "open"}},
    "closed": {"rate_limit": {"requests": "4/day", "when_store_down": "closed"}},
    "frozen": {"rate_limit": {"requests": "1000000/day", "tokens": "1000000000/day"}},
}
SECONDS = 20


async def speaks(received: testing.Received, out: testing.Wire) -> None:
    """As many words as the request allows, a stream with its usage where it is asked for."""
    asked = received.json()
    words, told = ["word"] * asked.get("max_tokens", 3), b": no usage\n\n"
    events = testing.chat_events(words)
    if asked.get("stream_options"):
        usage = {"prompt_tokens": 11, "completion_tokens": len(words), "total_tokens": 11 + len(words)}
        told = b"data: %b\n\n" % orjson.dumps({"choices": [], "usage": usage})
    if asked.get("stream"):
        await testing.stream(*events[:-1], told, events[-1], pause=0.001)(received, out)
    else:
        await testing.chat(" ".join(words))(received, out)


@pytest.fixture(scope="module")
def upstream():
    with replicas.upstream(speaks) as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def four(upstream, server, tmp_path_factory):
    """Patient, so that a machine that is busy with others changes no number."""
    url, folder = f"{server.url}?timeout=10000ms", tmp_path_factory.mktemp("four")
    with replicas.running(4, folder, upstream, url, ROUTES) as found:
        yield found


def used(server, way: str, what: str) -> int:
    """What Redis counts of a window."""
    (key,) = server.keys(f"weir:{{={way}}}:rate_limit:route:{what}:*")
    return int(server.ask("HGET", key, "used"))


def spent(server, way: str) -> Decimal:
    """What Redis counts of a budget."""
    (key,) = server.keys(f"weir:{{={way}}}:budget:*")
    return Decimal(int(server.ask("GET", key))).scaleb(-6)


def slots(server, way: str) -> int:
    return sum(server.ask("ZCARD", key) for key in server.keys(f"weir:{{={way}}}:rate_limit:route:concurrent:*"))


async def test_of_400_at_once_at_four_replicas_exactly_100_pass(four):
    async with replicas.client() as session:
        assert sum(await passed(session, four, "hundred", 400)) == 100
        assert sum(await passed(session, four, "hundred", 40)) == 0


async def test_after_many_streams_with_aborts_the_counters_are_the_ledger(four, server):
    random.seed(5)
    async with replicas.client() as session:

        async def one(number: int) -> None:
            body = {"stream": number % 3 > 0, "max_tokens": random.randint(1, 60)}
            if number % 2:
                body["stream_options"] = {"include_usage": True}
            asking = asyncio.ensure_future(ask(session, four[number % 4], "mixed", **body))
            if random.random() < 0.3:
                await asyncio.wait({asking}, timeout=random.uniform(0, 0.15))
                asking.cancel()
            await asyncio.wait({asking})

        for begin in range(0, 1000, 50):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 50)))

    def in_ledger() -> int:
        lines = [line for replica in four for line in replica.lines() if line["route"] == "mixed"]
        return sum(line["tokens"]["input"] + line["tokens"]["output"] for line in lines)

    await wire.until(lambda: slots(server, "mixed") == 0)
    await wire.until(lambda: used(server, "mixed", "tokens") == in_ledger())
    outcomes = [line["outcome"] for replica in four for line in replica.lines() if line["route"] == "mixed"]
    assert len(outcomes) >= 900
    assert outcomes.count("client_abort") > 100


async def test_of_400_at_once_at_four_replicas_no_more_is_spent_than_there_is(four, server):
    """Each costs $0.006, and reserves more: its prompt is shorter than its body."""

    def in_ledger() -> Decimal:
        lines = [line for replica in four for line in replica.lines() if line["route"] == "money"]
        return sum((Decimal(line["cost_usd"]) for line in lines if line["status"] == 200), Decimal(0))

    async def settled() -> None:
        await wire.until(lambda: spent(server, "money") == in_ledger())

    async with replicas.client() as session:
        for times in (400, 100, 40, 40):
            await passed(session, four, "money", times, max_tokens=3)
        await settled()
        while (await ask(session, four[0], "money", max_tokens=3))[0] == 200:
            await settled()
    assert Decimal("0.55") < in_ledger() <= Decimal("0.6")


async def test_one_at_a_time_is_never_refused(four):
    """Field case 54, at one replica; each request a connection of its own."""
    for number in range(60):
        async with replicas.client() as session:
            assert (await ask(session, four[0], "one", stream=number % 2 == 0))[0] == 200


async def test_many_cancels_leave_nothing_in_flight(four, server):
    async with replicas.client() as session:
        for _ in range(10):
            asking = [
                asyncio.ensure_future(ask(session, random.choice(four), "cancels", stream=True, max_tokens=9))
                for _ in range(100)
            ]
            for task in asking:
                if random.random() < 0.3:
                    await asyncio.sleep(0.001)
                task.cancel()
            await asyncio.wait(asking)
        await wire.until(lambda: slots(server, "cancels") == 0)
        for replica in four:
            assert (await ask(session, replica, "cancels"))[0] == 200


async def test_without_redis_they_let_pass_as_many_together_and_tell_it_afterwards(four, server):
    await until_each(four, up=True, replicas=4)
    async with replicas.client() as session:
        server.kill()
        await until_each(four, up=False)
        assert await passed(session, four, "alone", 400) == [25] * 4
        server.start()
        await until_each(four, up=True, owed=0)
        assert (used(server, "alone", "requests"), used(server, "alone", "tokens")) == (100, 100 * 6)
        assert sum(await passed(session, four, "alone", 40)) == 0


async def test_a_replica_that_was_killed_gives_its_slots_back_within_ten_seconds(upstream, server, four, tmp_path):
    url = f"{server.url}?timeout=10000ms"
    with replicas.running(1, tmp_path, upstream, url, ROUTES) as (dies,):
        async with replicas.client() as session:
            held = [
                asyncio.ensure_future(ask(session, dies, "slots", stream=True, max_tokens=100_000)) for _ in range(3)
            ]
            await wire.until(lambda: slots(server, "slots") == 3)
            assert (await ask(session, four[0], "slots"))[0] == 429
            dies.process.kill()
            began = time.monotonic()
            await asyncio.wait(held)
            while (await ask(session, four[0], "slots"))[0] == 429:
                await asyncio.sleep(0.2)
                assert time.monotonic() < began + 10


async def until_each(found: list[replicas.Replica], **expected: object) -> None:
    async with asyncio.timeout(SECONDS):
        for replica in found:
            while (await replica.state()).items() & expected.items() != expected.items():  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)


@pytest.fixture
def two(upstream, redis, tmp_path):
    with replicas.running(2, tmp_path, upstream, redis.url, WHEN_DOWN) as found:
        yield found


async def test_a_frozen_redis_delays_a_few_and_is_back_within_five_seconds(two, redis):
    async with replicas.client() as session:
        for _ in range(20):
            assert (await ask(session, two[0], "frozen"))[0] == 200
        redis.freeze()
        for _ in range(30):
            assert (await ask(session, two[0], "frozen"))[0] == 200
        assert (await two[0].state())["up"] is False
        redis.thaw()
        began = time.monotonic()
        await until_each(two, up=True, owed=0)
        assert time.monotonic() < began + 5
    assert used(redis, "frozen", "requests") == 50
    assert used(redis, "frozen", "tokens") == 50 * 6


async def test_what_is_open_closed_and_local_while_redis_is_away_from_the_start(upstream, redis, tmp_path):
    redis.kill()
    with replicas.running(1, tmp_path, upstream, redis.url, WHEN_DOWN) as (weir,):
        async with replicas.client() as session:
            assert sum(await passed(session, [weir], "open", 20)) == 20
            assert sum(await passed(session, [weir], "local", 20)) == 4
            status, body = await ask(session, weir, "closed")
            assert (status, b'"code":"store_unavailable"' in body) == (503, True)
            redis.start()
            await until_each([weir], up=True, owed=0)
            assert (await ask(session, weir, "closed"))[0] == 200
            assert sum(await passed(session, [weir], "local", 5)) == 0
            assert used(redis, "open", "requests") == 20


async def test_scripts_that_are_flushed_and_servers_that_come_back_empty_refuse_nobody(two, redis):
    async with replicas.client() as session:
        for way in range(3):
            redis.ask("SCRIPT", "FLUSH")
            assert (await ask(session, two[way % 2], "frozen"))[0] == 200
        redis.restart()
        for way in range(4):
            assert (await ask(session, two[way % 2], "frozen"))[0] == 200
        await until_each(two, up=True, owed=0)
        assert (await ask(session, two[0], "frozen"))[0] == 200
        assert redis.keys("weir:*")
