"""An exchange is completed exactly once, and its stages are finished, whatever ended it; usage is known by then."""

import asyncio
from typing import Any, ClassVar

import pytest
from typing_extensions import override

from proxy import testing
from proxy.errors import Outcome
from proxy.plugin import BodyFilter, Exchange, Plugin, PluginConfig, Response, Usage
from tests import wire
from tests.recording import completed, entry, journal, of, outcomes

STREAM = {"model": "m", "stream": True}


@pytest.fixture(autouse=True)
def _empty_journal() -> None:
    journal.clear()


def request(body: bytes = b'{"model":"m","stream":true}', path: str = testing.CHAT) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


IN_BAND = b'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n'
SHUT = testing.answer(b'{"error": {"message": "busy", "type": "x", "code": null, "param": null}}', status=503)
WORDS = testing.chat_events(["one", "two"])


async def hang_up(received: testing.Received, wire: testing.Wire) -> None:
    wire.close()


ENDINGS: dict[str, tuple[Any, str]] = {
    "a stream": (testing.stream(*WORDS), "ok"),
    "a whole answer": (testing.answer(b"{}"), "ok"),
    "a stream that is cut": (testing.stream(*WORDS[:1], ends=False), "stream_interrupted"),
    "a stream that ends without its end": (testing.stream(*WORDS[:1]), "stream_interrupted"),
    "a stream with an error in it": (testing.stream(WORDS[0], IN_BAND), "stream_interrupted"),
    "the upstream's own 503": (SHUT, "upstream_error"),
    "the upstream's 404": (testing.answer(b"{}", status=404), "client_error"),
    "an upstream that hangs up": (hang_up, "upstream_error"),
}


@pytest.mark.parametrize("settings", ["", "on_disconnect: drain"])
@pytest.mark.parametrize("stage", ["tap", "event_tap", "event_filter"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_on_complete_and_finish_come_once_with_the_outcome_of(ending: str, stage: str, settings: str):
    script, outcome = ENDINGS[ending]
    plugins = [entry("p", stage=stage)]
    async with testing.upstream(script) as upstream, testing.weir(upstream, plugins, settings=settings) as weir:
        await testing.ask(weir, STREAM)
        await completed(weir, 1)
    assert outcomes() == [f"p on_complete {outcome}"]
    has_stage = stage == "tap" or "a stream" in ending
    assert of("finish", "on_complete") == [f"p finish {outcome}"] * has_stage + [f"p on_complete {outcome}"]


@pytest.mark.parametrize(
    ("crash", "outcome"),
    [
        ({"stage": "event_filter", "fails": "feed"}, "stream_interrupted"),
        ({"stage": "event_filter", "fails": "finish"}, "stream_interrupted"),
        ({"stage": "body_filter", "fails": "apply"}, "upstream_error"),
        ({"fails": "on_response"}, "upstream_error"),
        ({"stage": "event_tap", "fails": "feed"}, "ok"),
        ({"stage": "event_tap", "fails": "finish"}, "ok"),
        ({"stage": "body_filter"}, "ok"),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("stage", ["tap", "event_tap", "event_filter"])
async def test_a_stage_hears_of_the_end_once_when_another_plugin(
    crash: dict[str, str], outcome: str, place: str, stage: str
):
    plugins = [entry("p", stage=stage), entry("crash", **crash)]
    plugins = plugins if place == "before" else plugins[::-1]
    async with testing.upstream(testing.stream(*WORDS)) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, STREAM)
        await completed(weir, 2)
        failed = b'weir_plugin_errors_total{plugin="crash"} 1.0' in weir.metrics.page()
    assert failed == ("fails" in crash)
    assert answer.is_whole == (outcome != "stream_interrupted")
    assert [line for line in outcomes() if line.startswith("p ")] == [f"p on_complete {outcome}"]
    has_stage = crash != {"fails": "on_response"} or place == "after" or stage == "tap"
    finished = [line for line in of("finish") if line.startswith("p ")]
    if has_stage and stage == "event_filter":
        assert len(finished) == 1, "it is asked for what it holds before the end is known"
    else:
        assert finished == [f"p finish {outcome}"] * has_stage


async def test_on_complete_comes_once_when_the_upstream_is_down():
    async with testing.upstream(SHUT) as upstream:
        pass
    async with testing.weir(upstream, [entry("p")]) as weir:
        assert (await testing.ask(weir, STREAM)).status == 502
        await completed(weir, 1)
    assert outcomes() == ["p on_complete upstream_error"]


async def test_on_complete_comes_once_when_a_plugin_crashes_and_not_for_those_not_entered():
    plugins = [entry("a"), entry("crash", fails="on_request"), entry("later")]
    async with testing.upstream(SHUT) as upstream, testing.weir(upstream, plugins) as weir:
        assert (await testing.ask(weir, STREAM)).status == 500
        await completed(weir, 2)
    assert outcomes() == ["crash on_complete upstream_error", "a on_complete upstream_error"]


LOST = """
server: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0'}}
upstreams: {{up: {{base_url: 'http://127.0.0.1:1/v1'}}}}
plugins: [{{p: {{use: 'tests.recording:Recording'}}}}, {{q: {{use: 'tests.recording:Recording', refuses: {refuses}}}}}]
routes: [{{name: r, match: {{path: /v1/x}}, targets: [up]}}]
"""


@pytest.mark.parametrize(("refuses", "status", "outcome"), [("false", 404, "client_error"), ("true", 403, "rejected")])
async def test_a_request_without_a_route_meets_the_chain_before_it_hears_so(refuses, status, outcome):
    async with testing.configured(LOST.format(refuses=refuses)) as weir:
        assert (await testing.ask(weir, STREAM)).status == status
        await completed(weir, 2)
    assert of("on_request") == ["p on_request", "q on_request"]
    assert outcomes() == [f"q on_complete {outcome}", f"p on_complete {outcome}"]


async def test_what_the_edge_refuses_meets_no_plugin():
    async with testing.configured(LOST.format(refuses="false")) as weir:
        assert (await testing.ask(weir, STREAM, path="/v1/a//b")).status == 400
    assert of("on_") == []


class All(Plugin[PluginConfig]):
    """Sees the end of every exchange."""

    sees_all = True
    ends: ClassVar[list[str]] = []

    async def on_complete(self, exchange, outcome):
        self.ends.append(f"{exchange.request.path} {outcome}")


async def test_a_plugin_that_sees_all_completes_what_ended_before_it():
    All.ends.clear()
    plugins = [entry("a", refuses=True), {"all": {"use": f"{__name__}:All"}}]
    async with testing.upstream(SHUT) as upstream, testing.weir(upstream, plugins) as weir:
        assert (await testing.ask(weir, STREAM)).status == 403
        assert (await testing.ask(weir, STREAM, path="/v1/a//b")).status == 400
        await wire.until(lambda: len(All.ends) == 2)
    assert All.ends == ["/v1/chat/completions rejected", "/v1/a//b client_error"]


class Slow(Plugin[PluginConfig]):
    """Waits in one hook until it is cancelled; says when it got there, and completes like any other."""

    hook = ""
    seconds = 30.0
    there: ClassVar[asyncio.Event]
    completions: ClassVar[list[Outcome]]

    async def wait(self, hook: str) -> None:
        if hook == Slow.hook:
            Slow.there.set()
            await asyncio.sleep(Slow.seconds)

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        await self.wait("on_request")
        return None

    @override
    async def on_attempt(self, exchange, attempt) -> None:
        await self.wait("on_attempt")

    @override
    async def on_response(self, exchange, response):
        await self.wait("on_response")

    @override
    async def on_complete(self, exchange, outcome) -> None:
        await asyncio.sleep(0.01)  # the app has gone, and nobody cancels this
        Slow.completions.append(outcome)


async def silent(received: testing.Received, wire: testing.Wire) -> None:
    """Takes the request and says nothing."""
    Slow.there.set()
    await wire.gone.wait()


async def half(received: testing.Received, wire: testing.Wire) -> None:
    """Begins a stream and never goes on."""
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", WORDS[0], pause=0.02)
    Slow.there.set()
    await wire.gone.wait()


PHASES = {
    "on_request": testing.chat("hi"),
    "on_attempt": testing.chat("hi"),
    "the upstream's thinking": silent,
    "on_response": testing.stream(*WORDS),
    "the stream": half,
}


@pytest.mark.parametrize("stage", ["tap", "event_tap", "event_filter"])
@pytest.mark.parametrize("phase", PHASES)
async def test_on_complete_comes_once_when_the_app_leaves_during(phase: str, stage: str):
    await leave_during(phase, PHASES[phase], stage=stage)
    assert Slow.completions == [Outcome.CLIENT_ABORT]
    assert outcomes() == ["tapped on_complete client_abort"]
    assert of("finish") == (["tapped finish client_abort"] if phase == "the stream" else [])
    ends = of("on_attempt_end")
    assert ends == ([] if phase == "on_request" else ["tapped on_attempt_end client_abort"])


@pytest.mark.parametrize("phase", ["on_attempt", "on_response", "the stream"])
async def test_on_complete_comes_once_also_when_the_answer_is_read_to_its_end_for_nobody(phase: str, monkeypatch):
    monkeypatch.setattr(Slow, "seconds", 0.1)
    await leave_during(phase, slow_words, "on_disconnect: drain")
    assert Slow.completions == [Outcome.CLIENT_ABORT]
    assert outcomes() == ["tapped on_complete client_abort"]
    assert of("finish") == ["tapped finish ok"]


async def leave_during(phase: str, script: Any, settings: str = "", stage: str = "event_tap") -> None:
    """Returns when Weir has stopped, and all its tasks with it."""
    Slow.hook, Slow.there, Slow.completions = phase, asyncio.Event(), []
    plugins = [entry("tapped", stage=stage), {"slow": {"use": f"{__name__}:Slow"}}]
    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream, plugins, settings=settings) as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(request())
        await asyncio.wait_for(Slow.there.wait(), 10)
        client.leave()
        await completed(weir, 1)


async def slow_words(received: testing.Received, wire: testing.Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", WORDS[0], pause=0.02)
    if Slow.hook == "the stream":
        Slow.there.set()
    await wire.send(*WORDS[1:], pause=0.05)
    wire.close()


async def test_completion_waits_for_no_app_and_a_stop_waits_for_completion():
    Slow.hook, Slow.there, Slow.completions = "", asyncio.Event(), []
    async with testing.upstream(testing.chat("hi")) as upstream:
        async with testing.weir(upstream, [{"slow": {"use": f"{__name__}:Slow"}}]) as weir:
            await testing.ask(weir, {"model": "m"})
        assert Slow.completions == [Outcome.OK]


# -- usage


class Metered(Plugin[PluginConfig]):
    reads_usage = True
    seen: ClassVar[list[Usage | None]]

    @override
    async def on_complete(self, exchange, outcome) -> None:
        Metered.seen.append(exchange.usage)


@pytest.fixture
def metered() -> list[Usage | None]:
    Metered.seen = []
    return Metered.seen


REPORT = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
REPORTED = (
    b'data: {"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
)
ANSWERS = {
    "JSON": testing.chat("one two", usage=REPORT),
    "a stream": testing.stream(*WORDS[:-1], REPORTED, WORDS[-1]),
    "a body that a filter holds": testing.chat("one two", usage=REPORT),
    "a stream that a filter holds": testing.stream(*WORDS[:-1], REPORTED, WORDS[-1]),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_who_reads_usage_finds_it_on_the_exchange_when_all_is_over(kind: str, metered: list[Usage | None]):
    plugins = [{"metered": {"use": f"{__name__}:Metered"}}]
    plugins += [{"deaf": {"use": f"{__name__}:Deaf"}}] if "filter" in kind else []
    async with testing.upstream(ANSWERS[kind]) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": "stream" in kind})
    assert metered == [Usage(input_tokens=7, output_tokens=2)]
    assert ("filter" in kind) == (b"prompt_tokens" not in answer.body)


class Deaf(Plugin[PluginConfig]):
    """Takes the usage out of what the app gets: what was used stays what the upstream said."""

    @override
    async def on_response(self, exchange, response):
        return WithoutUsage()


class WithoutUsage(BodyFilter):
    @override
    async def apply(self, body: bytes) -> bytes:
        return body.replace(b"prompt_tokens", b"p").replace(b"completion_tokens", b"c")
