"""An upstream that fails is left alone, and comes back: seen by apps, over real sockets."""

import asyncio
import contextlib
import logging
import time

import orjson
import pytest

from proxy import testing
from proxy.attempt import Attempt, Target
from proxy.fault import Fault, Kind
from proxy.plugin import ConfigError, Plugin, PluginConfig
from tests import wire

ASK = {"model": "m", "messages": []}
STREAM = {**ASK, "stream": True}
HI = testing.chat("hi")
DOWN = testing.answer(b'{"error": {"message": "down"}}', status=500)
BEGINNING = testing.chat_events(["to", "be"], ends=False)
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


class Again(Plugin[PluginConfig]):
    """Would try the same target for ever."""

    def on_attempt_end(self, exchange, attempt):
        attempt.retry = attempt.again = attempt.fault is not None


class Move(Plugin[PluginConfig]):
    """Tries the next target after whatever failed."""

    def on_attempt_end(self, exchange, attempt):
        attempt.retry = attempt.fault is not None


def used(plugin):
    return {plugin.__name__.lower(): {"use": f"{__name__}:{plugin.__name__}"}}


@contextlib.asynccontextmanager
async def house(*scripts, before=(), settings="", routes="", **rules):
    """Weir in front of upstreams `a` and `b`, which the route tries in this order."""
    async with contextlib.AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        names = "ab"[: len(ups)]
        blocks = ", ".join(f'{n}: {{base_url: "{up.url}/v1", {settings}}}' for n, up in zip(names, ups, strict=True))
        plugins = [*before, {"circuit_breaker": {"fail_max": 3, "max_wait": "0s", **rules}}]
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{blocks}}}\nplugins: {orjson.dumps(plugins).decode()}\n"
            f"routes: [{routes} {{name: main, targets: [{', '.join(names)}]}}]\n"
        )
        yield await stack.enter_async_context(testing.configured(text)), *ups


async def statuses(weir, times, body=None, **more):
    return [(await testing.ask(weir, body or ASK, **more)).status for _ in range(times)]


def level(weir, upstream="a"):
    page = weir.metrics.page().decode().splitlines()
    (line,) = (line for line in page if line.startswith(f'weir_breaker_state{{upstream="{upstream}"}}'))
    return float(line.split()[-1])


async def told(weir):
    """What /state shows of upstream `a`."""
    page = await wire.fetch(weir.admin_url, b"GET /state HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    return orjson.loads(page.body)["upstreams"]["a"]["breaker"]


async def leaves(weir, upstream):
    """An app that goes while its answer streams."""
    known = len(upstream.requests)
    async with wire.connected(weir.url) as client:
        body = orjson.dumps(STREAM)
        await client.send(POST % (len(body), body))
        await wire.until(lambda: len(upstream.requests) > known)
        client.leave(reset=True)
    await wire.until(lambda: not weir.in_flight)


def later(weir, seconds):
    """The plugin's clock goes forward."""
    plugin = weir.plan.plugins[-1]
    now = plugin._clock

    def clock():
        return now() + seconds

    for keeper in (plugin, *plugin._breakers.values()):
        keeper._clock = clock


async def silent(received, wire):
    await wire.gone.wait()


def cut(*, reset=False):
    """Says a little, and is gone."""

    async def script(received, wire):
        await testing.stream(*BEGINNING, ends=False)(received, Reset(wire) if reset else wire)

    return script


class Reset:
    def __init__(self, wire):
        self.send, self.close = wire.send, wire.reset


async def test_it_passes_what_serves():
    async with house(HI, HI) as (weir, a, b):
        assert await statuses(weir, 20) == [200] * 20
        assert (len(a.requests), len(b.requests), level(weir, "a"), level(weir, "b")) == (20, 0, 0, 0)
        assert (await told(weir))["state"] == "closed"


async def test_an_upstream_that_fails_is_left_alone(caplog):
    caplog.set_level(logging.INFO, "weir.circuit_breaker")
    async with house(DOWN) as (weir, a):
        assert await statuses(weir, 5) == [500] * 3 + [503] * 2
        answer = await testing.ask(weir, ASK)
        state = await told(weir)
        assert (len(a.requests), level(weir)) == (3, 2)
    assert answer.json()["error"]["code"] == "upstream_unavailable"
    assert answer.headers["retry-after"] in {"29", "30"}
    assert (state["state"], state["failures_in_a_row"]) == ("open", 3)
    assert [record.reason for record in caplog.records] == ["3 in a row failed, the last one: server_error"]


async def test_the_routes_next_target_serves_meanwhile():
    async with house(DOWN, HI) as (weir, a, b):
        assert await statuses(weir, 10) == [500] * 3 + [200] * 7
        assert (len(a.requests), len(b.requests)) == (3, 7)


async def test_a_request_that_moves_on_and_one_that_comes_later_are_both_served():
    async with house(DOWN, HI, before=[used(Move)]) as (weir, a, b):
        assert await statuses(weir, 10) == [200] * 10
        assert (len(a.requests), len(b.requests)) == (3, 10)


@pytest.mark.parametrize("script", [cut(), cut(reset=True), testing.stream(*BEGINNING)], ids=["FIN", "RST", "no end"])
async def test_an_upstream_that_always_dies_in_mid_stream_is_out(script):
    """Each of them began with a 200 and a token."""
    async with house(script) as (weir, a):
        for _ in range(3):
            answer = await testing.ask(weir, STREAM)
            assert (answer.status, answer.is_whole) == (200, False)
        assert (await statuses(weir, 2, STREAM), len(a.requests)) == ([503, 503], 3)


async def test_a_target_whose_others_are_out_is_asked_again_as_if_it_were_alone():
    async def busy_once(received, wire):
        await (HI if len(a.requests) > 1 else testing.answer(b"{}", status=529))(received, wire)

    async with house(busy_once, DOWN, before=[{"failover": {}}]) as (weir, a, b):
        breaker = weir.plan.plugins[-1]._breakers["b"]
        for _ in range(3):
            breaker.fail(breaker.acquire(), "for a test")
        assert (await testing.ask(weir, ASK)).status == 200
    assert (len(a.requests), b.requests) == (2, [])


async def test_an_upstream_that_answers_200_and_an_error_is_out():
    error = b'{"error": {"message": "The engine died", "type": "server_error"}}'
    async with house(testing.answer(error)) as (weir, a):
        for _ in range(3):
            answer = await testing.ask(weir, ASK)
            assert (answer.status, answer.body) == (200, error)
        assert (await statuses(weir, 2), len(a.requests)) == ([503, 503], 3)


async def test_a_stream_that_ends_well_begins_the_row_anew():
    async with house(DOWN) as (weir, a):
        for _ in range(5):
            a.script = DOWN
            await statuses(weir, 2)
            a.script = HI
            assert (await testing.ask(weir, STREAM)).is_whole
            await wire.until(lambda: not weir.in_flight)
        assert level(weir) == 0


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_apps_do_wrong_is_not_the_upstreams_fault(status):
    wrong = testing.answer(b'{"error": {"message": "no", "type": "invalid_request_error"}}', status=status)
    async with house(wrong) as (weir, _):
        assert await statuses(weir, 100) == [status] * 100
        assert level(weir) == 0


async def test_an_app_that_sends_too_slowly_is_told_so_and_is_not_the_upstreams_fault():
    async with (
        house(HI, fail_max=1, settings="timeouts: {idle: 200ms}") as (weir, _),
        wire.connected(weir.url) as app,
    ):
        await app.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", bytes(1000))
        answer = await app.answer()
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (408, "request_timeout")
        await wire.until(lambda: not weir.in_flight)
        assert level(weir) == 0
        page = weir.metrics.page().decode()
    assert 'weir_attempts_total{outcome="client_error",upstream="a"} 1.0' in page


async def test_apps_that_leave_are_not_the_upstreams_fault():
    async with house(silent) as (weir, a):
        for _ in range(100):
            await leaves(weir, a)
        assert (len(a.requests), level(weir)) == (100, 0)


@pytest.mark.parametrize("trial", [1, 2])
async def test_of_200_at_half_open_as_many_go_as_there_are_trials(trial):
    async with house(DOWN, trial=trial) as (weir, a):
        await statuses(weir, 3)
        answers = asyncio.Event()

        async def slowly(received, wire):
            await answers.wait()
            await HI(received, wire)

        a.script = slowly
        later(weir, 30)
        asking = [asyncio.ensure_future(testing.ask(weir, ASK)) for _ in range(200)]
        await wire.until(lambda: sum(one.done() for one in asking) == 200 - trial)
        assert (len(a.requests) - 3, level(weir), (await told(weir))["trials"]) == (trial, 1, trial)
        answers.set()
        ended = [(answer.status, answer.headers.get("retry-after")) for answer in await asyncio.gather(*asking)]
        assert sorted(set(ended), key=str) == [(200, None), (503, "1")]
        await wire.until(lambda: level(weir) == 0)
        assert await statuses(weir, 20) == [200] * 20


async def test_who_may_wait_is_served_after_the_trial():
    async with house(DOWN, reset_timeout="500ms", max_wait="5s") as (weir, a):
        await statuses(weir, 3)
        a.script = HI
        began = time.monotonic()
        answers = await asyncio.gather(*(testing.ask(weir, ASK) for _ in range(50)))
        assert {answer.status for answer in answers} == {200}
        assert time.monotonic() - began < 5


async def test_nobody_waits_longer_than_he_may():
    async with house(DOWN, reset_timeout="60s", max_wait="2s") as (weir, _):
        began = time.monotonic()
        assert await statuses(weir, 4) == [500] * 3 + [503]
        assert time.monotonic() - began < 2


async def test_a_trial_that_fails_opens_it_once_more():
    async with house(DOWN) as (weir, a):
        await statuses(weir, 3)
        later(weir, 30)
        assert await statuses(weir, 5) == [500] + [503] * 4
        assert (len(a.requests), level(weir)) == (4, 2)


async def test_a_trial_whose_app_leaves_makes_room_for_the_next():
    async with house(DOWN) as (weir, a):
        await statuses(weir, 3)
        a.script = silent
        later(weir, 30)
        await leaves(weir, a)
        assert level(weir) == 1
        a.script = HI
        assert await statuses(weir, 3) == [200] * 3
        assert level(weir) == 0


async def test_an_upstream_that_is_out_is_not_asked_once_more():
    async with house(DOWN, before=[used(Again)]) as (weir, a):
        answer = await testing.ask(weir, ASK)
    assert (answer.status, answer.headers["x-weir-attempts"], len(a.requests)) == (500, "3", 3)


async def test_a_slow_first_token_is_a_failure():
    async def slowly(received, wire):
        await asyncio.sleep(0.15)
        await HI(received, wire)

    async with house(slowly, slow_first_token="100ms") as (weir, a):
        assert await statuses(weir, 5, ASK) == [200] * 5  # no streams
        assert await statuses(weir, 5, STREAM) == [200] * 3 + [503] * 2
        assert ((await told(weir))["reason"], len(a.requests)) == (
            "3 in a row failed, the last one: slow first token",
            8,
        )


async def test_a_failure_rate_takes_out_what_never_fails_in_a_row():
    async with house(HI, failure_rate=0.5, min_calls=6) as (weir, a):
        seen = []
        for turn in range(8):
            a.script = DOWN if turn % 2 else HI
            seen += await statuses(weir, 1)
    assert seen == [200, 500] * 3 + [503] * 2


def limited(seconds):
    """429, with what the upstream says of when to come again."""
    body = b'{"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}'
    return testing.answer(body, status=429, **({"retry_after": seconds} if seconds else {}))


async def test_an_upstream_that_asks_for_a_pause_gets_it():
    async with house(limited("20"), HI) as (weir, a, b):
        assert await statuses(weir, 4) == [429] + [200] * 3
        assert (len(a.requests), len(b.requests), level(weir)) == (1, 3, 0)
        state = await told(weir)
        assert (state["state"], state["cooling_until"] is not None) == ("closed", True)
        a.script = HI
        later(weir, 20)
        assert (await statuses(weir, 1), len(a.requests)) == ([200], 2)


async def test_who_asks_while_all_cool_is_told_when_to_come_again():
    async with house(limited("7")) as (weir, _):
        await statuses(weir, 1)
        answer = await testing.ask(weir, ASK)
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize(("seconds", "settings"), [(None, ""), ("60", "auth: passthrough")])
async def test_a_limit_without_an_end_or_of_one_callers_own_key_pauses_nobody(seconds, settings):
    async with house(limited(seconds), settings=settings) as (weir, _):
        assert await statuses(weir, 100, headers={"authorization": "Bearer mine"}) == [429] * 100
        assert level(weir) == 0


@pytest.mark.parametrize(("own", "last"), [("{max_wait: 1s}", 503), ("{fail_max: 50}", 500)])
async def test_routes_share_a_breaker_where_they_would_judge_alike(own, last):
    other = f"{{name: other, match: {{path: /v1/completions}}, targets: [a], plugins: {{circuit_breaker: {own}}}}},"
    async with house(DOWN, routes=other) as (weir, _):
        await statuses(weir, 3)
        assert await statuses(weir, 1, path="/v1/completions") == [last]
        assert (level(weir), (await told(weir))["state"]) == (2, "open")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{reset_timeout: 0s}", r"circuit_breaker.reset_timeout: .* too short; write at least 100ms"),
        ("{fail_max: 0}", r"circuit_breaker.fail_max: must be 1 or more"),
        ("{failure_rate: 50}", r"circuit_breaker.failure_rate: must be 1.0 or less"),
        ("{fail_maxx: 5}", r"circuit_breaker.fail_maxx: unknown key 'fail_maxx'; did you mean 'fail_max'"),
    ],
)
async def test_settings_that_make_no_sense_are_refused(settings, said):
    text = f'upstreams: {{up: {{base_url: "http://x/v1"}}}}\nplugins: [{{circuit_breaker: {settings}}}]\nroutes: [{{name: r, targets: [up]}}]\n'
    with pytest.raises(ConfigError, match=said):
        async with testing.configured(text):
            pass


# by hand: what no upstream of these tests can bring about


@contextlib.asynccontextmanager
async def alone(**rules):
    """The plugin of a running Weir; its upstream is never asked."""
    async with house(HI, **rules) as (weir, _):
        yield weir.plan.plugins[-1]


async def tried(plugin, fault, *, status=200, first_token=None):
    exchange, attempt = testing.exchange(), Attempt(1, Target("a"), [], b"")
    plugin.on_attempt(exchange, attempt)
    attempt.status, attempt.fault = status, fault
    exchange.first_token_at = None if first_token is None else attempt.started + first_token
    plugin.on_attempt_end(exchange, attempt)
    plugin.on_attempt_end(exchange, attempt)  # as where a plugin before it refused the try: no lease, no verdict


@pytest.mark.parametrize("kind", Kind)
async def test_only_what_is_the_upstreams_counts(kind):
    async with alone(fail_max=1) as plugin:
        await tried(plugin, Fault(kind))
        assert (plugin.state()["upstreams"]["a"]["breaker"]["state"] == "open") == kind.is_upstreams


async def test_a_try_that_it_did_not_let_go_says_nothing():
    async with alone(fail_max=2) as plugin:
        await tried(plugin, Fault(Kind.BROKEN))
        assert plugin.state()["upstreams"]["a"]["breaker"]["failures_in_a_row"] == 1


@pytest.mark.parametrize(
    ("status", "first_token", "state"), [(200, 11, "open"), (200, 9, "closed"), (101, 600, "closed")]
)
async def test_a_websockets_first_token_is_never_slow(status, first_token, state):
    async with alone(fail_max=1, slow_first_token="10s") as plugin:
        await tried(plugin, None, status=status, first_token=first_token)
        assert plugin.state()["upstreams"]["a"]["breaker"]["state"] == state


async def test_a_target_without_an_upstream_is_never_out():
    async with alone(fail_max=1) as plugin:
        await tried(plugin, Fault(Kind.BROKEN))
        static = Target("")
        assert plugin.select_targets(testing.exchange(), [Target("a"), static]) == [static]
        assert plugin.select_targets(testing.exchange(), []) == []
        plugin.on_attempt(testing.exchange(), Attempt(1, static, [], b""))
