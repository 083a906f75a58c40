"""Requests that wait for room: as many as may, each principal in its turn, and honest words for those who may not."""

import asyncio
import contextlib

import orjson
import pytest
from prometheus_client import CollectorRegistry

from proxy import testing
from proxy.attempt import Target
from proxy.errors import RateLimited
from proxy.exchange import PRINCIPAL, Principal
from proxy.plugin import Plugin, PluginConfig, Unavailable
from proxy.queue import Queue, Series
from proxy.services import Services
from proxy.targets import Queue as Settings
from proxy.upstream.work import Work
from tests import wire

ASK = {"model": "m", "messages": []}


class Caller(Plugin[PluginConfig]):
    """Says who calls."""

    def on_request(self, exchange):
        exchange[PRINCIPAL] = Principal(exchange.request.headers.get("x-caller", "nobody"))


class Busy:
    """Answers when it is told to, in the order of what it was asked."""

    def __init__(self):
        self.asked = []
        self._turns = asyncio.Semaphore(0)

    async def __call__(self, received, up):
        self.asked.append(received.headers.get("x-name", ""))
        await self._turns.acquire()
        await testing.chat("hi")(received, up)

    def answer(self, times=1):
        for _ in range(times):
            self._turns.release()


@contextlib.asynccontextmanager
async def house(busy, queue="{max: 10, timeout: 20s}", plugins=("Caller",), route="targets: [up]", concurrent=1):
    async with testing.upstream(busy) as up:
        used = [{name.lower(): {"use": f"{__name__}:{name}"}} for name in plugins]
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{up.url}/v1", capacity: {{concurrent: {concurrent}}}, load: off}}}}\n'
            f"plugins: {orjson.dumps(used).decode()}\n"
            f"routes: [{{name: main, {route}, queue: {queue}}}]\n"
        )
        async with testing.configured(text) as weir:
            yield weir


class App:
    """Asks under names; `answers` by name, in the order in which they came."""

    def __init__(self, weir, busy):
        self._weir = weir
        self._busy = busy
        self.answers = {}
        self.tasks = {}

    async def ask(self, name, caller="one"):
        """Returns when it is upstream, waits or was answered."""
        queue = self._weir.gateway.router.routes[0].queue
        upstream = self._weir.gateway.upstreams["up"]
        before = upstream.in_flight, queue.waiting, len(self.answers)
        self.tasks[name] = asyncio.ensure_future(self._ask(name, caller))
        await wire.until(lambda: (upstream.in_flight, queue.waiting, len(self.answers)) != before)
        served = sum(answer.status == 200 for answer in self.answers.values())
        await wire.until(lambda: len(self._busy.asked) == upstream.in_flight + served)

    async def _ask(self, name, caller):
        headers = {"x-caller": caller, "x-name": name}
        self.answers[name] = await testing.ask(self._weir, ASK, headers=headers)

    async def answered(self, *names):
        await asyncio.gather(*(self.tasks[name] for name in names or self.tasks))
        return [self.answers[name].status for name in names or self.tasks]


async def test_who_comes_when_all_is_full_waits_for_the_next_place():
    busy = Busy()
    async with house(busy) as weir:
        app = App(weir, busy)
        for name in ("1", "2", "3"):
            await app.ask(name)
        assert (busy.asked, weir.state()["routes"][0]["queue"]["waiting"]) == (["1"], 2)
        busy.answer()
        await wire.until(lambda: len(busy.asked) == 2)
        assert 'weir_queue_waiting{route="main"} 1.0' in weir.metrics.page().decode()
        busy.answer(2)
        assert await app.answered() == [200, 200, 200]
        assert busy.asked == ["1", "2", "3"]
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert 'weir_queue_waiting{route="main"} 0.0' in page
    assert 'weir_queue_wait_seconds_count{route="main"} 2.0' in page


async def test_principals_take_turns():
    busy = Busy()
    async with house(busy) as weir:
        app = App(weir, busy)
        for name, caller in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("a4", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")]:
            await app.ask(name, caller)
        busy.answer(7)
        await app.answered()
    assert busy.asked == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_where_no_place_is_left_the_next_one_hears_at_once_how_long_it_takes():
    busy = Busy()
    async with house(busy, "{max: 1, timeout: 20s}") as weir:
        app = App(weir, busy)
        for name in ("1", "2", "3"):
            await app.ask(name)
        assert await app.answered("3") == [429]
        busy.answer(2)
        await app.answered()
        page = weir.metrics.page().decode()
    error = app.answers["3"].json()["error"]
    assert error["message"] == "every upstream of route 'main' is busy, and 1 wait for it already; try again later"
    assert (error["code"], app.answers["3"].headers["retry-after"]) == ("queue_full", "20")
    assert 'weir_queue_refused_total{reason="full",route="main"} 1.0' in page
    assert 'outcome="rejected"' in page


async def test_who_has_the_most_places_gives_one_up_to_who_has_none():
    busy = Busy()
    async with house(busy, "{max: 3, timeout: 20s}") as weir:
        app = App(weir, busy)
        for name, caller in [("a0", "a"), ("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")]:
            await app.ask(name, caller)
        assert await app.answered("a3") == [429]
        await app.ask("a4", "a")
        assert await app.answered("a4") == [429]
        busy.answer(4)
        assert await app.answered("a0", "a1", "a2", "b1") == [200] * 4
    assert busy.asked == ["a0", "a1", "b1", "a2"]
    assert "others have waited with fewer" in app.answers["a3"].json()["error"]["message"]


async def test_who_has_waited_long_enough_is_refused():
    busy = Busy()
    async with house(busy, "{max: 5, timeout: 50ms}") as weir:
        app = App(weir, busy)
        await app.ask("1")
        await app.ask("2")
        assert await app.answered("2") == [429]
        assert weir.state()["routes"][0]["queue"]["waiting"] == 0
        busy.answer()
        await app.answered()
    assert app.answers["2"].json()["error"]["code"] == "queue_timeout"


async def test_who_leaves_leaves_the_queue_and_the_next_one_has_the_place():
    busy = Busy()
    async with house(busy) as weir:
        app, queue = App(weir, busy), weir.gateway.router.routes[0].queue
        for name in ("1", "2", "3"):
            await app.ask(name)
        app.tasks["2"].cancel()
        await wire.until(lambda: queue.waiting == 1)
        busy.answer(2)
        assert await app.answered("1", "3") == [200, 200]
    assert busy.asked == ["1", "3"]


async def test_a_queue_of_none_refuses_what_is_too_much():
    busy = Busy()
    async with house(busy, "{max: 0, timeout: 20s}", concurrent=2) as weir:
        app = App(weir, busy)
        for name in ("1", "2", "3"):
            await app.ask(name)
        assert await app.answered("3") == [429]
        busy.answer(2)
        assert await app.answered("1", "2") == [200, 200]


async def test_a_drain_serves_who_waits():
    busy = Busy()
    async with house(busy) as weir:
        app = App(weir, busy)
        await app.ask("1")
        await app.ask("2")
        draining = asyncio.ensure_future(weir.drain(20))
        busy.answer(2)
        assert await app.answered() == [200, 200]
        await draining


async def test_what_only_asks_waits_for_nobody():
    busy = Busy()

    async def script(received, up):
        await (testing.answer(b"{}") if received.method == "GET" else busy)(received, up)

    async with house(script) as weir:
        app = App(weir, busy)
        await app.ask("1")
        await app.ask("2")
        models = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        busy.answer(2)
        assert await app.answered() == [200, 200]
    assert models.status == 200


async def test_who_waits_while_the_config_changes_is_served_as_it_began():
    busy = Busy()
    async with house(busy) as weir:
        app, file = App(weir, busy), weir.plan.source.file
        await app.ask("1")
        await app.ask("2")
        file.write_text(file.read_text().replace("name: main", "name: other"))
        await weir.reloads.reload()
        upstream, queue = weir.gateway.upstreams["up"], weir.gateway.router.routes[0].queue
        asking = asyncio.ensure_future(testing.ask(weir, ASK, headers={"x-name": "3"}))
        await wire.until(lambda: queue.waiting == 1)
        busy.answer(3)
        assert await app.answered() == [200, 200]
        assert (await asking).status == 200
        await wire.until(lambda: weir.state()["config"]["generations"] == 1)
        assert upstream.work.on_room == [queue.wake]
    assert busy.asked[:1] == ["1"]


async def test_waiting_is_not_our_overhead():
    busy = Busy()
    async with house(busy) as weir:
        app = App(weir, busy)
        await app.ask("1")
        await app.ask("2")
        await asyncio.sleep(0.6)
        busy.answer(2)
        await app.answered()
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert 'weir_overhead_seconds_bucket{le="0.5",route="main"} 2.0' in page


async def test_without_a_principal_all_stand_in_one_line():
    busy = Busy()
    async with house(busy, plugins=()) as weir:
        app = App(weir, busy)
        for name in ("1", "2", "3"):
            await app.ask(name)
        assert weir.state()["routes"][0]["queue"] == {"waiting": 2, "principals": 1, "max": 10}
        busy.answer(3)
        await app.answered()
    assert busy.asked == ["1", "2", "3"]


# -- without sockets


class Up:
    def __init__(self, most):
        self.work = Work()
        self.most = most
        self.marks = []

    def room(self):
        return self.most - self.work.load()

    def begin(self, exchange):
        exchange.attempts.append(object())
        self.marks.append(self.work.begin())

    def end(self):
        self.work.end(self.marks.pop())


class Chain:
    def __init__(self, select):
        self._select = select

    def select_targets(self, exchange, targets):
        return self._select(targets)


def queue_of(most=5, seconds="20s", **ups):
    settings = Settings.model_validate({"max": most, "timeout": seconds})
    return Queue("main", settings, ups, Series(Services(CollectorRegistry())))


def exchange_to(*upstreams, select=lambda targets: targets):
    exchange = testing.exchange()
    exchange.targets, exchange.chain = [Target(name) for name in upstreams], Chain(select)
    return exchange


async def test_who_was_let_in_and_has_not_begun_keeps_its_room():
    up = Up(1)
    queue, first, second = queue_of(up=up), exchange_to("up"), exchange_to("up")
    assert await queue.turn(first) is False
    waiting = asyncio.ensure_future(queue.turn(second))
    await asyncio.sleep(0)
    assert queue.waiting == 1
    queue.leave(first)
    assert await waiting is True


async def test_what_plugins_leave_out_has_no_room():
    a, b = Up(5), Up(1)
    queue = queue_of(a=a, b=b)
    first, second = (exchange_to("a", "b", select=lambda targets: targets[1:]) for _ in range(2))
    await queue.turn(first)
    b.begin(first)
    waiting = asyncio.ensure_future(queue.turn(second))
    await asyncio.sleep(0)
    assert queue.waiting == 1
    b.end()
    assert await waiting is True


async def test_where_nobody_can_serve_the_attempts_say_so():
    def out(_):
        raise Unavailable("all out")

    assert await queue_of(up=Up(1)).turn(exchange_to("up", select=out)) is False


async def test_retry_after_goes_by_what_was_done_of_late():
    up = Up(1)
    queue = queue_of(0, up=up)
    for _ in range(50):
        up.marks.append(up.work.begin())
        await asyncio.sleep(0.002)
        up.end()
        up.work.served()
    up.begin(exchange_to("up"))
    with pytest.raises(RateLimited) as caught:
        await queue.turn(exchange_to("up"))
    assert caught.value.headers == {"retry-after": "1"}


async def test_a_crowd_that_leaves_together_breaks_nothing():
    up = Up(1)
    queue, asked, first = queue_of(500, up=up), [], exchange_to("up")
    await queue.turn(first)
    up.begin(first)
    for number in range(300):
        exchange = exchange_to("up")
        exchange[PRINCIPAL] = Principal(f"p{number % 7}")
        asked.append(asyncio.ensure_future(queue.turn(exchange)))
    await asyncio.sleep(0)
    for waiting in asked[:299]:
        waiting.cancel()
    up.end()
    assert await asked[299] is True
    assert (queue.waiting, queue.state()["principals"]) == (0, 0)
