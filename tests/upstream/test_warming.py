"""A server that loads its model is waited for, for a while: not by trying and failing, and not for ever."""

import asyncio
import contextlib
import logging

import orjson
import pytest

from proxy import testing
from proxy.errors import ProxyError
from proxy.fault import Fault, Kind
from proxy.plugin import Plugin, PluginConfig
from proxy.upstream import warming as module
from proxy.upstream.warming import Warming, first_ready
from tests import wire

ASK = {"model": "m", "messages": []}
LOADING = testing.answer(
    b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}', status=503
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)


class Retry(Plugin[PluginConfig]):
    def on_attempt_end(self, exchange, attempt):
        attempt.retry = True


class Loads:
    """llama.cpp as it loads; `is_up` says when it is done."""

    def __init__(self, *, is_up=False):
        self.is_up = is_up
        self.paths = []

    async def __call__(self, received, up):
        self.paths.append(received.target)
        if not self.is_up:
            await LOADING(received, up)
        elif received.target == "/health":
            await testing.answer(b'{"status": "ok"}')(received, up)
        else:
            await testing.chat("hi")(received, up)

    @property
    def chats(self):
        return sum("chat" in path for path in self.paths)


@contextlib.asynccontextmanager
async def house(*ups, cold_start="20s", plugins=(), more="", targets=None):
    """Weir in front of upstreams `a`, `b`, …, of which `a` may load."""
    async with contextlib.AsyncExitStack() as stack:
        urls = [
            up if isinstance(up, str) else (await stack.enter_async_context(testing.upstream(up))).url for up in ups
        ]
        blocks = [f'{name}: {{base_url: "{url}/v1"}}' for name, url in zip("abc", urls, strict=False)]
        blocks[0] = f'a: {{base_url: "{urls[0]}/v1", cold_start: {cold_start}{more}}}'
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{', '.join(blocks)}}}\nplugins: {orjson.dumps(list(plugins)).decode()}\n"
            f"routes: [{{name: main, targets: [{', '.join(targets or 'abc'[: len(ups)])}]}}]\n"
        )
        yield await stack.enter_async_context(testing.configured(text))


def state(weir):
    return weir.state()["upstreams"]["a"]


async def test_who_asks_while_it_loads_is_served_when_it_is_up():
    loads = Loads()
    async with house(loads) as weir:
        assert state(weir)["loading"] is False
        asking = [asyncio.ensure_future(testing.ask(weir, ASK)) for _ in range(20)]
        await wire.until(lambda: loads.chats and state(weir)["loading"])
        await wire.until(lambda: "/health" in loads.paths)
        more = asyncio.ensure_future(testing.ask(weir, ASK))
        assert 'weir_upstream_loading{upstream="a"} 1.0' in weir.metrics.page().decode()
        assert weir.readiness() == ""
        loads.is_up = True
        answers = await asyncio.gather(*asking, more)
        assert state(weir)["loading"] is False
    assert {answer.status for answer in answers} == {200}
    assert answers[-1].headers["x-weir-attempts"] == "1"
    assert loads.chats <= 20 + 21


async def test_nobody_there_yet_is_loading_too():
    async with testing.upstream(testing.chat("hi")) as gone:
        port = int(gone.url.rpartition(":")[2])
    async with house(gone.url) as weir:
        asking = asyncio.ensure_future(testing.ask(weir, ASK))
        await wire.until(lambda: state(weir)["loading"])
        server = testing.Upstream(Loads(is_up=True))
        loop = asyncio.get_running_loop()
        async with await loop.create_server(lambda: testing._Connection(server), "127.0.0.1", port):
            assert (await asking).status == 200


async def test_another_target_serves_at_once_and_the_first_one_again_when_it_is_up():
    loads = Loads()
    async with house(loads, testing.chat("hi")) as weir:
        first, second = await testing.ask(weir, ASK), await testing.ask(weir, ASK)
        assert [each.headers["x-weir-upstream"] for each in (first, second)] == ["b", "b"]
        assert [each.headers["x-weir-attempts"] for each in (first, second)] == ["2", "1"]
        loads.is_up = True
        await wire.until(lambda: not state(weir)["loading"])
        assert (await testing.ask(weir, ASK)).headers["x-weir-upstream"] == "a"


async def test_its_time_is_bounded_and_the_refusal_says_what_it_is(caplog):
    caplog.set_level(logging.INFO, "weir.loading")
    async with house(Loads(), cold_start="150ms") as weir:
        answer = await testing.ask(weir, ASK)
        late = await testing.ask(weir, ASK)
    error = answer.json()["error"]
    assert (answer.status, error["code"], int(answer.headers["retry-after"]) >= 1) == (503, "model_loading", True)
    assert error["message"] == (
        "upstream 'a' is still loading its model, and it has not come up in time; try again later"
    )
    assert late.json()["error"]["message"] == "Loading model"
    assert caplog.messages == [
        "upstream 'a' is loading; requests wait for it up to 0.15 s",
        "upstream 'a' has not come up within 0.15 s",
    ]


async def test_the_breaker_does_not_mind_before_and_minds_after():
    breaker = [{"circuit_breaker": {"fail_max": 2, "max_wait": "0s"}}, {"retry": {"use": f"{__name__}:Retry"}}]
    async with house(Loads(), cold_start="150ms", plugins=breaker) as weir:
        assert (await testing.ask(weir, ASK)).json()["error"]["code"] == "model_loading"
        assert state(weir)["breaker"]["state"] == "closed"
        for _ in range(2):
            await testing.ask(weir, ASK)
        assert state(weir)["breaker"]["state"] == "open"


async def test_neither_do_health_checks():
    loads = Loads()
    checked = ", health: {interval: 10ms, unhealthy_after: 2}"
    async with house(loads, more=checked) as weir:
        await wire.until(lambda: state(weir)["loading"])
        await wire.until(lambda: len(loads.paths) > 10)
        assert state(weir)["healthy"] is True
        loads.is_up = True
        assert (await testing.ask(weir, ASK)).status == 200


async def test_the_deadline_of_failover_bounds_the_wait():
    failover = [{"failover": {"deadline": "200ms", "backoff": {"first": "1ms", "most": "2ms"}}}]
    async with house(Loads(), plugins=failover) as weir:
        answer = await testing.ask(weir, ASK)
    assert (answer.status, answer.json()["error"]["code"]) == (503, "model_loading")
    assert "the time of this request is up" in answer.json()["error"]["message"]


async def test_streams_are_kept_alive_meanwhile():
    loads = Loads()
    plugins = [{"sse_keepalive": {"interval": "100ms", "before_headers": True}}]
    async with house(loads, plugins=plugins) as weir:
        asking = asyncio.ensure_future(testing.ask(weir, {**ASK, "stream": True}))
        await wire.until(lambda: loads.chats)
        await asyncio.sleep(0.4)
        loads.is_up = True
        answer = await asking
    assert answer.body.startswith(b": ping\n")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert answer.is_whole


async def test_an_app_that_leaves_waits_no_more():
    async with house(Loads()) as weir:
        asking = asyncio.ensure_future(testing.ask(weir, ASK))
        warming = weir.gateway.upstreams["a"].warming
        await wire.until(lambda: warming.waiters)
        asking.cancel()
        await wire.until(lambda: not weir.in_flight)
        assert warming.waiters == set()


async def test_only_so_many_wait():
    async with house(Loads(), more=", max_waiting: 2") as weir:
        asking = [asyncio.ensure_future(testing.ask(weir, ASK)) for _ in range(5)]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        await wire.until(lambda: sum(task.done() for task in asking) == 3)
        for task in waiting:
            task.cancel()
    assert "too many requests wait for it" in done.pop().result().json()["error"]["message"]


async def test_who_says_it_is_up_and_is_not_is_not_asked_all_the_time():
    """A router that loads models on demand answers its health checks well."""
    loads, healthy = Loads(), testing.answer(b"ok")

    async def router(received, up):
        await (healthy if received.target == "/health" else loads)(received, up)

    async with house(router) as weir:
        asking = asyncio.ensure_future(testing.ask(weir, ASK))
        await wire.until(lambda: loads.chats >= 3)
        loads.is_up = True
        assert (await asking).status == 200


# -- without sockets


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Never:
    """Is not up."""

    name = "gpu"

    async def probe(self, path):
        raise ProxyError("no")


@pytest.fixture
async def warm():
    tasks, clock = [], Clock()

    def start(work, name):
        tasks.append(asyncio.ensure_future(work))
        return tasks[-1]

    yield Warming(Never(), "/health", 60.0, start, 10, clock), clock
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("kind", "status", "judged"),
    [
        (Kind.UNREACHABLE, 0, Kind.LOADING),
        (Kind.LOADING, 503, Kind.LOADING),
        (Kind.OVERLOADED, 503, Kind.LOADING),
        (Kind.SERVER_ERROR, 502, Kind.LOADING),
        (Kind.SERVER_ERROR, 500, Kind.SERVER_ERROR),
        (Kind.OVERLOADED, 200, Kind.OVERLOADED),
        (Kind.TIMEOUT, 0, Kind.TIMEOUT),
        (Kind.CLIENT, 422, Kind.CLIENT),
    ],
)
async def test_what_is_a_sign_of_it(warm, kind, status, judged):
    warming, _ = warm
    assert warming.judged(Fault(kind), status).kind is judged
    assert warming.is_loading is (judged is Kind.LOADING)


async def test_who_has_just_served_is_overloaded_and_not_loading(warm):
    warming, clock = warm
    warming.served()
    clock.now += 5.0
    assert warming.judged(Fault(Kind.OVERLOADED), 503).kind is Kind.OVERLOADED
    assert warming.judged(Fault(Kind.UNREACHABLE)).kind is Kind.LOADING


async def test_when_its_time_is_up_signs_are_failures(warm):
    warming, clock = warm
    assert warming.sign()
    clock.now += 59.0
    assert warming.judged(Fault(Kind.UNREACHABLE)).kind is Kind.LOADING
    clock.now += 1.0
    assert not warming.is_loading
    assert warming.judged(Fault(Kind.UNREACHABLE)).kind is Kind.UNREACHABLE
    assert warming.judged(Fault(Kind.LOADING), 503).kind is Kind.OVERLOADED
    clock.now += 61.0
    assert warming.judged(Fault(Kind.UNREACHABLE)).kind is Kind.LOADING


async def test_of_several_the_first_that_is_up_is_taken(warm):
    one, _ = warm
    two = Warming(Never(), "/health", 60.0, lambda work, _: asyncio.ensure_future(work), 10)
    one.sign()
    two.sign()
    waiting = asyncio.ensure_future(first_ready([one, two], 20.0))
    await asyncio.sleep(0)
    two.served()
    assert await waiting is two
    assert one.waiters == two.waiters == set()
    two.stop()
