"""The hooks of a chain: their order, who is called, what answers and refusals do, failures, completion."""

from typing import Any

import pytest
from typing_extensions import override

from proxy import testing
from proxy.chain import mode_of
from proxy.errors import Outcome, PluginFailed, Rejected, StoreDown
from proxy.plugin import Attempt, Exchange, FailureMode, Key, Plugin, PluginConfig, Response, Tap, Target
from tests.recording import chain_of, completed, entry, idle, journal, of, outcomes

STREAM = {"model": "m", "stream": True}
COUNT: Key[int] = Key("count")


@pytest.fixture(autouse=True)
def _empty_journal() -> None:
    journal.clear()


# -- order


async def test_requests_meet_the_yaml_list_and_responses_meet_it_in_reverse():
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.weir(upstream, [entry("a"), entry("b")]) as weir,
    ):
        assert (await testing.ask(weir, {"model": "m"})).status == 200
        await completed(weir, 2)
    assert journal == [
        "a lifespan",
        "b lifespan",
        "a on_request",
        "b on_request",
        "a select_targets",
        "b select_targets",
        "a on_attempt",
        "b on_attempt",
        "b on_response 200",
        "a on_response 200",
        "a on_attempt_end ok",
        "b on_attempt_end ok",
        "b on_complete ok",
        "a on_complete ok",
        "b left",
        "a left",
    ]


async def test_only_overridden_hooks_are_called():
    called: list[str] = []

    class Watched(Plugin[PluginConfig]):
        """Each of its hooks that somebody looks up is noted; it overrides one."""

        @override
        def __getattribute__(self, name: str) -> Any:
            if name.startswith(("on_", "select_")):
                called.append(name)
            return super().__getattribute__(name)

        @override
        async def on_request(self, exchange: Exchange) -> None:
            return None

    chain = chain_of(Watched(PluginConfig(), name="w"))
    exchange = testing.exchange()
    await chain.on_request(exchange)
    chain.select_targets(exchange, [Target("up")])
    await chain.on_response(exchange, Response(200))
    await chain.on_complete(exchange, Outcome.OK)
    assert called == ["on_request"]


def test_a_chain_without_hooks_says_that_nothing_needs_to_be_asked():
    chain = chain_of(idle())
    asked = {name: value for name, value in vars(chain).items() if name.startswith(("sees_", "reads_"))}
    assert asked == dict.fromkeys(
        ("reads_usage", "reads_bodies", "sees_requests", "sees_responses", "sees_attempts"), False
    )


# -- answers and refusals


@pytest.mark.parametrize(("how", "status"), [("answers", 200), ("refuses", 403)])
async def test_an_answer_or_a_refusal_is_seen_by_those_entered_already_and_by_no_later_one(how: str, status: int):
    plugins = [entry("before"), entry("it", **{how: True}), entry("after")]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        await completed(weir, 2)
    outcome = {"answers": "ok", "refuses": "rejected"}[how]
    assert answer.status == status
    assert answer.headers["x-weir-request-id"]
    assert upstream.requests == []
    assert of("on_") == [
        "before on_request",
        "it on_request",
        f"before on_response {status}",
        f"it on_complete {outcome}",
        f"before on_complete {outcome}",
    ]


async def test_a_refusal_in_on_response_takes_the_answers_place_for_the_plugins_before(monkeypatch):
    class Guard(Plugin[PluginConfig]):
        @override
        async def on_response(self, exchange: Exchange, response: Response) -> None:
            raise Rejected("that was rude", code="rude")

    monkeypatch.setitem(globals(), "Guard", Guard)
    plugins = [entry("before"), {"guard": {"use": f"{__name__}:Guard"}}]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        await completed(weir, 1)
    assert (answer.status, answer.json()["error"]["code"]) == (403, "rude")
    assert of("on_response", "on_complete") == ["before on_response 403", "before on_complete rejected"]


# -- facts


async def test_facts_between_plugins_are_typed_keys_and_belong_to_one_exchange():
    one, other = testing.exchange(), testing.exchange()
    one[COUNT] = 3
    assert one[COUNT] == 3
    assert COUNT in one
    assert COUNT not in other
    assert other.get(COUNT, 0) == 0
    assert Key("count") not in one, "the key counts, not its name"
    with pytest.raises(KeyError):
        other[COUNT]


# -- failures


class Crashing(Plugin[PluginConfig]):
    """Raises `error` wherever it is called."""

    error: Exception = RuntimeError("boom")

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        raise self.error

    @override
    def select_targets(self, exchange, targets):
        raise self.error

    @override
    async def on_attempt(self, exchange, attempt) -> None:
        raise self.error

    @override
    def on_attempt_end(self, exchange, attempt) -> None:
        raise self.error

    @override
    async def on_response(self, exchange, response):
        raise self.error

    @override
    async def on_complete(self, exchange, outcome) -> None:
        raise self.error


def crashing(mode: FailureMode, error: Exception = Crashing.error) -> Crashing:
    plugin = Crashing(PluginConfig(failure_mode=mode), name="crashing")
    plugin.error = error
    return plugin


async def test_open_the_request_goes_on_without_the_plugin_and_the_failure_is_counted():
    failures: list[str] = []
    chain = chain_of(crashing(FailureMode.OPEN), failures=failures)
    exchange, targets = testing.exchange(), [Target("up")]
    assert await chain.on_request(exchange) is None
    assert chain.select_targets(exchange, targets) == targets
    await chain.on_attempt(exchange, None)
    response, stages = await chain.on_response(exchange, Response(200))
    assert (response.status, stages) == (200, [])
    assert failures == ["crashing"] * 4


async def test_a_failure_is_logged_with_its_plugin_and_its_request(caplog):
    chain, exchange = chain_of(crashing(FailureMode.OPEN)), testing.exchange()
    await chain.on_request(exchange)
    chain.on_attempt_end(exchange, Attempt(1, Target("up"), [], b""))
    told = [(record.message, record.plugin, record.request_id) for record in caplog.records]
    assert told == [("plugin failed", "crashing", "req_test")] * 2


async def test_closed_the_request_ends_and_the_failure_is_counted():
    failures: list[str] = []
    chain = chain_of(crashing(FailureMode.CLOSED), failures=failures)
    exchange = testing.exchange()
    with pytest.raises(PluginFailed, match="the plugin 'crashing' failed"):
        await chain.on_request(exchange)
    with pytest.raises(PluginFailed):
        chain.select_targets(exchange, [])
    with pytest.raises(PluginFailed):
        await chain.on_attempt(exchange, None)
    exchange.answered_by = None
    response, _ = await chain.on_response(exchange, Response(200))
    assert (response.status, response.error.error_code) == (500, "plugin_failed")
    assert failures == ["crashing"] * 4


@pytest.mark.parametrize("mode", FailureMode)
async def test_what_fails_when_all_is_over_is_counted_and_hurts_nobody(mode: FailureMode):
    failures: list[str] = []
    chain = chain_of(crashing(mode), failures=failures)
    exchange = testing.exchange()
    exchange.entered = 1
    await chain.on_complete(exchange, Outcome.OK)
    assert failures == ["crashing"]


@pytest.mark.parametrize("mode", FailureMode)
async def test_a_refusal_is_no_failure_in_either_mode(mode: FailureMode):
    failures: list[str] = []
    with pytest.raises(Rejected):
        await chain_of(crashing(mode, Rejected("no")), failures=failures).on_request(testing.exchange())
    assert failures == []


async def test_a_store_that_is_down_is_judged_by_the_failure_mode():
    down = StoreDown("redis is away")
    with pytest.raises(StoreDown):
        await chain_of(crashing(FailureMode.CLOSED, down)).on_request(testing.exchange())
    assert await chain_of(crashing(FailureMode.OPEN, down)).on_request(testing.exchange()) is None


def test_yaml_overrides_the_failure_mode_of_the_class():
    assert mode_of(idle()) is FailureMode.CLOSED
    assert mode_of(idle(mode=FailureMode.OPEN)) is FailureMode.OPEN
    assert mode_of(idle(mode=FailureMode.CLOSED)) is FailureMode.CLOSED


@pytest.mark.parametrize("hook", ["on_request", "select_targets", "on_attempt ", "on_response"])
async def test_a_closed_plugin_that_crashes_is_a_500_with_its_name_and_an_open_one_is_skipped(hook: str):
    for mode, status in (("closed", 500), ("open", 200)):
        plugins = [entry("crash", fails=hook.strip(), failure_mode=mode)]
        async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
            answer = await testing.ask(weir, {"model": "m"})
            await completed(weir, 1)
            assert answer.status == status
            assert b'weir_plugin_errors_total{plugin="crash"}' in weir.metrics.page()
        if mode == "closed":
            assert answer.json()["error"]["message"].startswith("the plugin 'crash' failed")
            assert answer.json()["error"]["code"] == "plugin_failed"


async def test_hooks_that_wait_for_nothing_may_be_plain():
    class Plain(Plugin[PluginConfig]):
        @override
        def on_request(self, exchange):
            return Response(418) if "x-answer" in exchange.request.headers else None

        @override
        def on_attempt(self, exchange, attempt):
            journal.append("plain on_attempt")

        @override
        def on_response(self, exchange, response):
            return Tap()

    chain = chain_of(Plain(PluginConfig(), name="plain"))
    exchange, answered = testing.exchange(), testing.exchange(headers={"x-answer": "1"})
    answer = await chain.on_request(answered)
    assert answer is not None
    assert answer.status == 418
    assert await chain.on_request(exchange) is None
    await chain.on_attempt(exchange, None)
    _, stages = await chain.on_response(exchange, Response(200))
    assert (journal, [type(placed.stage) for placed in stages]) == (["plain on_attempt"], [Tap])


@pytest.mark.parametrize("is_plain", [False, True])
@pytest.mark.parametrize("wrong", ["on_request", "on_response"])
async def test_a_hook_that_returns_something_else_is_a_failure_of_the_plugin(wrong: str, is_plain: bool, monkeypatch):
    class Confused(Plugin[PluginConfig]):
        async def on_request(self, exchange):
            return {"not": "a response"} if wrong == "on_request" else None

        async def on_response(self, exchange, response):
            return Response(200) if wrong == "on_response" else None

    class Plain(Plugin[PluginConfig]):
        def on_request(self, exchange):
            return {"not": "a response"} if wrong == "on_request" else None

        def on_response(self, exchange, response):
            return Response(200) if wrong == "on_response" else None

    monkeypatch.setitem(globals(), "Confused", Plain if is_plain else Confused)
    plugins = [entry("before"), {"confused": {"use": f"{__name__}:Confused"}}]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        await completed(weir, 1)
    assert (answer.status, answer.json()["error"]["code"]) == (500, "plugin_failed")
    assert outcomes() == ["before on_complete upstream_error"]
