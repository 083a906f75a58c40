"""The store that replicas share: each `shared` is one replica's, on a real redis-server."""

import asyncio
import contextlib
import random

import pytest

from proxy import testing
from proxy.errors import RateLimited, StoreDown
from proxy.store import commands
from proxy.store.claims import Claim
from proxy.store.leases import Leases
from proxy.store.link import MAX_FAILURES
from tests import redis_server, wire
from tests.store.house import SLOT, left, shared, window

LONG = {"seconds": 3600}
CANCELS = 10_010


async def replicas(stack: contextlib.AsyncExitStack, redis, number: int):
    return [await stack.enter_async_context(shared(redis.url)) for _ in range(number)]


async def passed(store, claims, times: int, prefix: str = "") -> list:
    """What was granted of so many that ask at once."""
    asked = [store.take(f"{prefix}{number}-{random.random()}", claims) for number in range(times)]
    return [taken for taken in await asyncio.gather(*asked) if taken.refused is None]


async def until_up(store) -> None:
    await wire.until(lambda: store.state()["up"])


async def remains(redis, store, claim: Claim) -> int:
    """In Redis, once it was told what the store has to tell."""
    if servers := store._link.servers:
        await servers.drain()
    return left(redis.ask, claim)


async def test_of_400_that_ask_four_replicas_at_once_exactly_100_pass(redis):
    async with contextlib.AsyncExitStack() as stack:
        stores = await replicas(stack, redis, 4)
        granted = await asyncio.gather(*(passed(store, [window(limit=100, **LONG)], 100) for store in stores))
    assert sum(map(len, granted)) == 100


async def test_what_was_really_used_is_settled_and_slots_come_back(redis):
    claims = [window("tokens", 100, 30), SLOT]
    async with shared(redis.url) as store, shared(redis.url) as other:
        one, two = [await store.take(name, claims) for name in "ab"]
        assert (await other.take("c", claims)).refused == 1
        for taken, tokens in ((one, 12), (two, 41)):
            store.free(taken)
            store.free(taken)
            store.settle(taken, [tokens, 1])
        assert await remains(redis, store, claims[0]) == 47
        assert (await other.take("d", claims)).remaining == [17, 1]


async def test_leaving_is_only_after_redis_was_told(redis):
    async with shared(redis.url) as store:
        store.settle(await store.take("a", [window("tokens", 100, 30)]), [77])
    async with shared(redis.url) as store:
        assert await remains(redis, store, window("tokens", 100)) == 23
        assert redis.ask("ZCARD", commands.key("replicas", "alive")) == 1


async def test_what_is_claimed_and_a_value_are_asked_for_in_one_round_trip(redis):
    async with shared(redis.url) as store:
        store.put("k", b"\0value", 10)
        asking = testing.exchange()
        grant = store.claim(asking, [window()], lambda *_: None)
        assert await store.get("k", asking) == b"\0value"
        assert (grant.is_taken, grant.remaining) == (True, [9])
        assert await store.get("other", asking) is None
        assert 0 < redis.ask("PTTL", commands.key("k", "value")) <= 10_000


async def test_a_value_is_not_waited_for_where_a_limit_refuses(redis):
    async with shared(redis.url) as store:
        asking = testing.exchange()
        store.claim(asking, [window(limit=1, amount=2)], lambda *_: RateLimited("no"))
        with pytest.raises(RateLimited):
            await store.get("k", asking)


async def test_ten_thousand_cancelled_claims_count_nowhere(redis):
    """Each in a turn of its own, and cancelled at a time of its own: before, while and after Redis decides."""
    claims = [window("tokens", 10**9, 1000, **LONG), Claim("slot", "bob", "slots", 10**6)]
    async with shared(redis.url) as store:

        async def one(number: int) -> None:
            taken = await store.take(str(number), claims)
            store.free(taken)
            store.settle(taken, [0, 1])

        for batch in range(CANCELS // 70):
            running = [asyncio.ensure_future(one(100 * batch + number)) for number in range(100)]
            for task in random.sample(running, 70):
                await asyncio.sleep(random.choice([0, 0, 0.0005]))
                task.cancel()
            await asyncio.wait(running)
        await wire.until(lambda: not redis.ask("ZCARD", commands.key("bob", "slots")))
        assert await remains(redis, store, claims[0]) == 10**9
        assert store.state() == {"kind": "redis", "up": True, "replicas": 1, "slots": 0, "owed": 0}


async def test_a_frozen_redis_costs_a_few_a_short_wait_and_then_nobody(redis):
    async with shared(redis.url, "50ms") as store:
        redis.freeze()
        for _ in range(MAX_FAILURES):
            taken = await store.take(f"a {random.random()}", [window(**LONG)])
            assert (taken.refused, taken.is_local) == (None, True)
        assert store.state()["up"] is False
        asked = store.take("b", [window(**LONG)])
        with pytest.raises(StopIteration):  # it does not even wait a turn
            asked.send(None)
        redis.thaw()
        await until_up(store)
        assert (await store.take("c", [window(**LONG)])).is_local is False


@pytest.mark.parametrize("tokens", [0, 12, 30, 55])
async def test_what_a_frozen_redis_carries_out_later_counts_once(redis, tokens):
    """The claim was sent, its answer was not waited for, this process decided, and Redis decides it when it thaws."""
    claim = window("tokens", 100, 30, **LONG)
    async with shared(redis.url, "50ms") as store:
        redis.freeze()
        taken = await store.take("a", [claim])
        store.settle(taken, [tokens])
        for _ in range(MAX_FAILURES):
            store.settle(await store.take(f"b {random.random()}", [claim._replace(amount=1)]), [1])
        redis.thaw()
        await until_up(store)
        await wire.until(lambda: store.state()["owed"] == 0)
        assert await remains(redis, store, claim) == 100 - tokens - MAX_FAILURES


async def test_what_was_settled_while_redis_was_frozen_counts_once(redis):
    claim = window("tokens", 100, 30, **LONG)
    async with shared(redis.url, "50ms") as store:
        taken = await store.take("a", [claim])
        redis.freeze()
        store.settle(taken, [55])
        await wire.until(lambda: store.state()["owed"] == 1)
        redis.thaw()
        await wire.until(lambda: store.state()["owed"] == 0)
        assert await remains(redis, store, claim) == 45


async def test_slots_that_were_given_back_while_redis_was_frozen_are_free_when_it_thaws(redis, monkeypatch):
    """Field case 11: not only when their time is up."""
    monkeypatch.setattr("proxy.store.shared.SLOT_MS", 3_600_000)
    async with shared(redis.url, "50ms") as store, shared(redis.url) as other:
        held = [await store.take(name, [SLOT]) for name in "ab"]
        assert (await other.take("c", [SLOT])).refused == 0
        redis.freeze()
        for taken in held:
            store.free(taken)
            store.settle(taken, [1])
        redis.thaw()
        await wire.until(lambda: redis.ask("ZCARD", commands.key("bob", "concurrent")) == 0)
        assert (await other.take("d", [SLOT])).refused is None
        assert store.state()["slots"] == 0


async def test_a_refusal_that_was_decided_alone_counts_nowhere(redis):
    claim = window("tokens", 100, 60, **LONG)
    async with shared(redis.url, "50ms") as store:
        store.settle(await store.take("a", [claim]), [60])
        redis.freeze()
        assert (await store.take("b", [claim])).refused == 0
        with pytest.raises(StoreDown):
            await store.take("c", [window("usd", **LONG, when_down="closed")])
        redis.thaw()
        await wire.until(lambda: store.state()["up"] and not store.state()["owed"])
        await asyncio.sleep(0.1)
        assert (await remains(redis, store, claim), await remains(redis, store, window("usd", **LONG))) == (40, 10)


async def test_without_redis_each_replica_has_its_part(redis):
    claim = window(limit=100, **LONG)
    async with contextlib.AsyncExitStack() as stack:
        stores = await replicas(stack, redis, 4)
        for store in stores:
            await store._leases.renew(store._link.servers)
        assert len(await passed(stores[0], [claim], 10)) == 10
        redis.kill()
        await wire.until(lambda: not any(store.state()["up"] for store in stores))
        assert [store.state()["replicas"] for store in stores] == [4] * 4
        granted = [await passed(store, [claim], 100) for store in stores]
        assert [len(taken) for taken in granted] == [15, 25, 25, 25]
        assert (await stores[1].take("x", [claim])).wait > 3000


async def test_afterwards_redis_knows_what_was_used_meanwhile(redis):
    claim = window("tokens", 1000, 10, **LONG)
    async with contextlib.AsyncExitStack() as stack:
        stores = await replicas(stack, redis, 2)
        redis.freeze()
        for store in stores:
            store._link.lose("it is frozen")
            for taken in await passed(store, [claim], 5):
                store.settle(taken, [20])
        redis.thaw()
        for store in stores:
            await wire.until(lambda store=store: store.state()["up"] and not store.state()["owed"])
            await store._link.servers.drain()
        assert await remains(redis, store, claim) == 1000 - 2 * 5 * 20


async def test_a_redis_that_comes_back_empty_counts_from_there(redis):
    claims = [window("tokens", 100, 30, **LONG), SLOT]
    async with shared(redis.url) as store:
        taken = await store.take("a", claims)
        redis.restart()
        await wire.until(lambda: store.state()["up"])
        await wire.until(lambda: redis.ask("ZCARD", commands.key("bob", "concurrent")) == 1)  # it is still used
        store.free(taken)
        store.settle(taken, [55, 1])
        assert (await store.take("b", claims)).remaining == [70, 1]


async def test_redis_is_away_at_the_start(redis):
    redis.kill()
    async with shared(redis.url) as store:
        assert store.state() == {"kind": "redis", "up": False, "replicas": 1, "slots": 0, "owed": 0}
        taken = await store.take("a", [window(), window("any", limit=1, amount=9, when_down="open")])
        assert (taken.refused, taken.is_local, taken.remaining) == (None, True, [9, 1])
        store.settle(taken, [1, 9])
        asking = testing.exchange()
        store.put("k", b"v", 10)
        assert await store.get("k", asking) is None
        redis.start()
        await until_up(store)
        assert await remains(redis, store, window()) == 9


async def test_what_is_closed_is_refused_without_redis(redis):
    redis.kill()
    async with shared(redis.url) as store:
        with pytest.raises(StoreDown) as refused:
            await store.take("a", [window(), window("usd", when_down="closed")])
    assert (refused.value.status, refused.value.error_code) == (503, "store_unavailable")


async def test_what_is_open_passes_without_redis(redis):
    redis.kill()
    async with shared(redis.url) as store:
        assert len(await passed(store, [window(limit=3, when_down="open")], 20)) == 20


async def test_scripts_that_were_flushed_are_learned_again(redis):
    claims = [window("tokens", 100, 30, **LONG), SLOT]
    async with shared(redis.url) as store:
        for number in range(3):
            redis.ask("SCRIPT", "FLUSH")
            taken = await store.take(str(number), claims)
            assert taken.is_local is False
            redis.ask("SCRIPT", "FLUSH")
            store.free(taken)
            store.settle(taken, [10, 1])
            await store._leases.renew(store._link.servers)
        assert await remains(redis, store, claims[0]) == 70


async def test_a_replica_that_died_is_forgotten_with_its_slots(redis, monkeypatch):
    monkeypatch.setattr("proxy.store.leases.SLOT_MS", 300)
    monkeypatch.setattr("proxy.store.shared.SLOT_MS", 300)
    monkeypatch.setattr("proxy.store.shared.RENEW_SECONDS", 0.05)
    async with contextlib.AsyncExitStack() as stack:
        dies, lives = await replicas(stack, redis, 2)
        await dies.take("a", [SLOT])
        await lives.take("b", [SLOT])
        await wire.until(lambda: lives.state()["replicas"] == 2)
        dies._link.servers.close()
        dies._link._url = dies._link._url._replace(hosts=(("127.0.0.1", 1),))
        await wire.until(lambda: lives.state()["replicas"] == 1)
        assert redis.ask("ZRANGE", commands.key("bob", "concurrent"), 0, -1) == ["b"]


async def test_a_server_that_became_a_replica_is_left(redis, tmp_path):
    with redis_server.running(tmp_path) as other:
        async with shared(redis.url) as store:
            redis.ask("REPLICAOF", "127.0.0.1", other.port)
            await wire.until(lambda: redis.ask("ROLE")[0] == "slave")
            assert (await store.take("a", [window()])).is_local is True
            assert store.state()["up"] is False
            redis.ask("REPLICAOF", "NO", "ONE")
            await until_up(store)
            assert (await store.take("b", [window()])).is_local is False


async def test_a_server_without_memory_is_away_and_what_was_used_is_told_later(redis):
    claim = window("tokens", 100, 30, **LONG)
    async with shared(redis.url) as store:
        taken = await store.take("a", [claim])
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        store.settle(taken, [55])
        assert (await store.take("b", [claim._replace(amount=1)])).is_local is True
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        await wire.until(lambda: store.state()["up"] and not store.state()["owed"])
        assert await remains(redis, store, claim) == 45


async def test_a_key_that_is_something_else_breaks_only_what_needs_it(redis, caplog):
    redis.ask("SET", commands.key("bob", "requests"), "mine")
    async with shared(redis.url) as store:
        for _ in range(3):
            assert (await store.take(f"a {random.random()}", [window()])).is_local is True
        assert (await store.take("b", [window(subject="eve")])).is_local is False
    assert sum("the store refuses" in message and "WRONGTYPE" in message for message in caplog.messages) == 1


async def test_a_wrong_password_is_said(tmp_path, caplog):
    with redis_server.running(tmp_path, "--requirepass", "s3cret", password="s3cret") as redis:
        async with shared(f"redis://:wr0ng@127.0.0.1:{redis.port}") as store:
            assert store.state()["up"] is False
    (said,) = (message for message in caplog.messages if "does not answer" in message)
    assert "WRONGPASS" in said
    assert "wr0ng" not in said


def test_replicas_are_as_many_as_were_there_lately():
    leases = Leases()
    for alive in (4, 4, 1, 1, 2, 3):
        leases._alive.append(alive)
    assert leases.replicas == 4
    leases._alive.extend([2] * 4)
    assert leases.replicas == 3


async def test_a_cluster_takes_the_claims_of_several_subjects_or_none(tmp_path):
    with contextlib.ExitStack() as running:
        options = ("--cluster-enabled", "yes")
        nodes = [running.enter_context(redis_server.running(tmp_path, *options)) for _ in range(3)]
        redis_server.make_cluster(nodes)
        subjects = [f"user {number}" for number in range(12)]
        claims = [window("tokens", 100, 30, subject=subject, **LONG) for subject in subjects]
        claims += [Claim("slot", subject, "slots", 5) for subject in subjects]
        async with shared(f"redis+cluster://127.0.0.1:{nodes[1].port}") as store:
            taken = await store.take("a", claims)
            assert (taken.refused, taken.is_local, taken.remaining) == (None, False, [70] * 12 + [4] * 12)
            store.free(taken)
            store.settle(taken, [50] * 12 + [1] * 12)
            too_much = [*claims, window("one", 1, 2, subject="eve", **LONG)]
            assert (await store.take("b", too_much)).refused == 24
            await store._leases.renew(store._link.servers)
            assert (await store.take("c", claims)).remaining == [20] * 12 + [4] * 12


async def test_one_frozen_server_of_a_cluster_is_not_waited_for_either(tmp_path):
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000")
    with contextlib.ExitStack() as running:
        nodes = [running.enter_context(redis_server.running(tmp_path, *options)) for _ in range(3)]
        redis_server.make_cluster(nodes)
        async with shared(f"redis+cluster://127.0.0.1:{nodes[0].port}", "50ms") as store:
            nodes[2].freeze()
            for _ in range(20):
                for number in range(12):
                    await store.take(f"a {random.random()}", [window(subject=f"user {number}", **LONG)])
                if not store.state()["up"]:
                    break
            assert store.state()["up"] is False
            nodes[2].thaw()
            await until_up(store)
