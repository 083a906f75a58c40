"""Traces as a collector gets them, from the SDK's real exporter: who is whose child, what they say, what they never say."""

import asyncio
import contextlib
import re

import orjson
import pytest

from proxy import testing
from proxy.plugin import Plugin, Response, Unauthorized
from tests import wire
from tests.plugins.tracing.collector import collector

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, PARENT = CALLER.split("-")[1:3]
ASK = {
    "model": "gpt-4o",
    "max_tokens": 50,
    "temperature": 1,
    "messages": [{"role": "user", "content": "canary-prompt"}],
    "tools": [{"type": "function", "function": {"name": "canary_tool"}}],
}
SERVER, CLIENT, ERROR = 2, 3, 2
BUSY = testing.answer(b'{"error":{"message":"canary-busy","type":"x","param":null,"code":null}}', status=503)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


def config(receiver, *upstreams, plugins="", **settings):
    told = orjson.dumps({"endpoint": receiver.url, **settings}).decode()
    blocks = ", ".join(f'{name}: {{base_url: "{each.url}/v1"}}' for name, each in zip("ab", upstreams, strict=False))
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f"upstreams: {{{blocks}}}\nplugins:\n  - tracing: {told}\n{plugins}"
        f"routes: [{{name: default, targets: [{', '.join('ab'[: len(upstreams)])}]}}]\n"
    )


@contextlib.asynccontextmanager
async def house(script, **settings):
    """A collector, an upstream and a Weir that traces."""
    async with (
        collector() as receiver,
        testing.upstream(script) as upstream,
        testing.configured(config(receiver, upstream, **settings)) as weir,
    ):
        yield receiver, upstream, weir


async def test_an_exchange_is_the_callers_child_and_its_attempt_its_own():
    async with house(testing.chat("canary answer"), plugins="  - metering\n") as (receiver, upstream, weir):
        answer = await testing.ask(weir, ASK, headers={"traceparent": CALLER, "tracestate": "a=1,b=2"})
        server, client = await receiver.after(2)
    assert (server.trace_id, server.parent_id, server.kind, server.name) == (
        TRACE,
        PARENT,
        SERVER,
        "POST /v1/chat/completions",
    )
    assert (client.trace_id, client.parent_id, client.kind, client.name) == (
        TRACE,
        server.span_id,
        CLIENT,
        "chat gpt-4o",
    )
    assert (server.state, client.state) == ("a=1,b=2", "a=1,b=2")
    assert upstream.last.headers["traceparent"] == f"00-{TRACE}-{client.span_id}-01"
    assert upstream.last.headers["tracestate"] == "a=1,b=2"
    assert server.start <= client.start <= client.end <= server.end
    assert server.attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "weir.request_id": answer.headers["x-weir-request-id"],
        "weir.route": "default",
        "weir.outcome": "ok",
        "weir.attempts": 1,
        "weir.cost_usd": 0.0,
    }
    port = int(upstream.url.rpartition(":")[2])
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 1.0,
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "weir.upstream": "a",
        "weir.outcome": "ok",
    }


async def test_of_a_stream_the_first_token_is_told():
    async with house(testing.chat("to be or not")) as (receiver, _upstream, weir):
        await testing.ask(weir, {**ASK, "stream": True})
        server, client = await receiver.after(2)
    ((event, at),) = client.events
    assert (event, client.start <= at <= client.end) == ("first_token", True)
    assert 0 < client.attributes["gen_ai.response.time_to_first_chunk"] * 1e9 <= client.end - client.start
    assert client.attributes["gen_ai.request.stream"] is True
    assert client.attributes["gen_ai.usage.output_tokens"] == 4
    assert client.attributes["weir.usage_estimated"] is True
    assert server.parent_id == ""


async def test_each_attempt_has_a_span_and_its_upstream_that_ones_traceparent():
    async with (
        collector() as receiver,
        testing.upstream(BUSY) as first,
        testing.upstream(testing.chat("hi")) as second,
        testing.configured(config(receiver, first, second, plugins="  - failover: {max_attempts: 2}\n")) as weir,
    ):
        await testing.ask(weir, ASK, headers={"traceparent": CALLER})
        server, failed, served = await receiver.after(3)
    assert [failed.parent_id, served.parent_id] == [server.span_id] * 2
    assert [each.last.headers["traceparent"].split("-")[2] for each in (first, second)] == [
        failed.span_id,
        served.span_id,
    ]
    assert (failed.status, failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == (
        ERROR,
        "overloaded",
        503,
    )
    assert (served.status, served.attributes["http.request.resend_count"]) == (0, 1)
    assert (server.status, server.attributes["weir.attempts"], server.attributes["weir.outcome"]) == (0, 2, "ok")
    assert "gen_ai.usage.input_tokens" not in failed.attributes
    assert failed.end <= served.start


async def test_an_upstream_that_cannot_be_reached_is_an_error_of_both():
    async with collector() as receiver, testing.upstream(BUSY) as upstream:
        text = config(receiver, upstream).replace(upstream.url, "http://127.0.0.1:1")
        async with testing.configured(text) as weir:
            await testing.ask(weir, ASK)
            server, client = await receiver.after(2)
    assert (server.status, server.attributes["error.type"]) == (ERROR, "upstream_unreachable")
    assert (server.attributes["http.response.status_code"], client.status) == (502, ERROR)
    assert "http.response.status_code" not in client.attributes


class Refusing(Plugin):
    def on_request(self, exchange):
        raise Unauthorized("no")


class Answering(Plugin):
    def on_request(self, exchange):
        return Response(200, headers={"x-weir-cache": "hit"}, body=b"{}")


class Unready(Plugin):
    def on_attempt(self, exchange, attempt):
        raise Unauthorized("no")


async def test_an_attempt_that_was_refused_before_it_was_announced_is_traced_too():
    async with house(BUSY) as (receiver, _upstream, weir):
        text = weir.plan.source.file.read_text().replace(
            "plugins:\n", f"plugins:\n  - it: {{use: '{__name__}:Unready'}}\n"
        )
        weir.plan.source.file.write_text(text)
        await weir.reloads.reload()
        await testing.ask(weir, ASK, headers={"traceparent": CALLER})
        server, client = await receiver.after(2)
        assert b"weir_plugin_errors_total{" not in weir.metrics.page()
    assert (server.attributes["http.response.status_code"], client.parent_id) == (401, server.span_id)


@pytest.mark.parametrize(("plugin", "status"), [("Refusing", 401), ("Answering", 200)])
async def test_what_no_upstream_is_asked_for_has_a_span_of_its_own(plugin, status):
    plugins = f"  - it: {{use: '{__name__}:{plugin}'}}\n"
    async with house(BUSY, plugins=plugins) as (receiver, _upstream, weir):
        await testing.ask(weir, ASK, headers={"traceparent": CALLER})
        (server,) = await receiver.after(1)
    assert (server.parent_id, server.attributes["http.response.status_code"], server.status) == (PARENT, status, 0)
    assert server.attributes.get("weir.cache") == ("hit" if plugin == "Answering" else None)


async def test_what_the_edge_or_the_routes_refuse_is_traced_too():
    async with collector() as receiver, testing.upstream(testing.chat("hi")) as upstream:
        text = config(receiver, upstream).replace("name: default,", "name: default, match: {path: '/v1/chat/*'},")
        async with testing.configured(text) as weir:
            await testing.ask(weir, ASK, path="/v1//x", headers={"traceparent": CALLER})
            await testing.ask(weir, ASK, path="/v1/files/canary?key=canary", headers={"traceparent": CALLER})
            found = await receiver.after(2)
    assert [(span.trace_id, span.name, span.attributes["http.response.status_code"]) for span in found] == [
        (TRACE, "POST", 400),
        (TRACE, "POST /v1/files", 404),
    ]
    assert "?" not in found[1].attributes["url.path"]


async def test_nothing_of_a_message_is_told():
    async with house(testing.chat("canary answer")) as (receiver, _upstream, weir):
        for path in (testing.CHAT, "/v1/responses", "/v1/completions", "/v1/embeddings", "/generate"):
            body = {**ASK, "prompt": "canary", "input": "canary", "inputs": "canary", "n": "canary", "seed": 2**64 - 1}
            await testing.ask(weir, body, path=path, headers={"authorization": "Bearer canary", "x-a": "canary"})
        spans = await receiver.after(10)
    assert "canary" not in repr([(span.name, span.attributes, span.resource, span.events) for span in spans])
    operations = [span.attributes.get("gen_ai.operation.name") for span in spans if span.kind == CLIENT]
    assert operations == ["chat", "chat", "text_completion", "embeddings", "text_completion"]


# -- sampling


async def test_what_the_caller_does_not_record_is_not_recorded_and_says_so():
    async with house(testing.chat("hi")) as (receiver, upstream, weir):
        await testing.ask(weir, ASK, headers={"traceparent": CALLER.replace("-01", "-00")})
        unsampled = upstream.last.headers["traceparent"]
        await testing.ask(weir, ASK)
        await receiver.after(2)
    assert re.fullmatch(rf"00-{TRACE}-(?!{PARENT})[0-9a-f]{{16}}-00", unsampled)
    assert all(span.trace_id != TRACE for span in receiver.spans)


@pytest.mark.parametrize(("sample", "environment_", "flags"), [("0%", {}, "00"), ("100%", {}, "01"), (None, {"OTEL_TRACES_SAMPLER_ARG": "0"}, "00"), (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "00")])  # fmt: skip
async def test_who_begins_a_trace_is_sampled_by_ratio(monkeypatch, sample, environment_, flags):
    for name, value in environment_.items():
        monkeypatch.setenv(name, value)
    settings = {} if sample is None else {"sample": sample}
    async with collector() as receiver, testing.upstream(testing.chat("hi")) as upstream:
        async with testing.configured(config(receiver, upstream, **settings)) as weir:
            await testing.ask(weir, ASK, headers={"tracestate": "stale=1"})
            await testing.ask(weir, ASK, headers={"traceparent": CALLER})
        assert len(receiver.spans) == (4 if flags == "01" else 2)  # all of them by the drain
    assert upstream.requests[0].headers["traceparent"].endswith(flags)
    assert "tracestate" not in upstream.requests[0].headers
    assert upstream.requests[1].headers["traceparent"].endswith("-01")


# -- on the way to the collector


async def test_a_drain_sends_what_waits(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    async with collector() as receiver, testing.upstream(testing.chat("hi")) as upstream:
        async with testing.configured(config(receiver, upstream, headers={"x-api-key": "k"})) as weir:
            await asyncio.gather(*(testing.ask(weir, ASK) for _ in range(20)))
            assert receiver.spans == []
        await receiver.after(40)
        assert receiver.headers[0]["x-api-key"] == "k"


async def test_a_collector_that_is_away_costs_spans_and_no_request(monkeypatch):
    monkeypatch.setattr("plugins.tracing.export.FLUSH_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    async with collector() as receiver, testing.upstream(testing.chat("hi")) as upstream:
        receiver.hangs = asyncio.Event()
        async with testing.configured(config(receiver, upstream)) as weir:
            answers = await asyncio.gather(*(testing.ask(weir, ASK) for _ in range(30)))
            page = weir.metrics.page().decode()
        receiver.hangs.set()
    assert {answer.status for answer in answers} == {200}
    assert 'weir_spans_total{result="ended"} 60.0' in page


async def test_what_became_of_spans_is_counted():
    async with house(testing.chat("hi")) as (receiver, _upstream, weir):
        await testing.ask(weir, ASK)
        await wire.until(lambda: b'weir_spans_total{result="exported"} 2.0' in weir.metrics.page())
        receiver.status = 400
        await testing.ask(weir, ASK)
        await wire.until(lambda: b'weir_spans_total{result="failed"} 2.0' in weir.metrics.page())


async def test_the_resource_says_where_it_runs(monkeypatch):
    monkeypatch.setenv("POD_NAME", "app-7d9")
    monkeypatch.setenv("POD_NAMESPACE", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.namespace.name=other,team=blue")
    async with collector() as receiver, testing.upstream(testing.chat("hi")) as upstream:
        for settings, name in (({}, "weir"), ({"service_name": "gate"}, "gate")):
            receiver.spans.clear()
            async with testing.configured(config(receiver, upstream, **settings)) as weir:
                await testing.ask(weir, ASK)
                (server, _) = await receiver.after(2)
            told = {key: server.resource[key] for key in ("service.name", "k8s.pod.name", "k8s.namespace.name", "team")}
            assert list(told.values()) == [name, "app-7d9", "other", "blue"]


async def test_a_stream_that_lives_through_a_reload_is_traced_by_the_config_that_it_began_with():
    words = testing.stream(*testing.chat_events([f"w{number}" for number in range(30)]), pause=0.02)
    async with house(words, service_name="before") as (receiver, upstream, weir):
        stream = asyncio.ensure_future(testing.ask(weir, {**ASK, "stream": True}))
        await wire.until(lambda: upstream.requests)
        file = weir.plan.source.file
        file.write_text(file.read_text().replace("before", "after"))
        assert await weir.reloads.reload() == "ok"
        await testing.ask(weir, {**ASK, "stream": True})
        assert (await stream).is_whole
        await receiver.after(4)
    by_name = {
        name: [each.name for each in receiver.spans if each.resource["service.name"] == name]
        for name in ("before", "after")
    }
    assert {name: sorted(names) for name, names in by_name.items()} == {
        "before": ["POST /v1/chat/completions", "chat gpt-4o"],
        "after": ["POST /v1/chat/completions", "chat gpt-4o"],
    }


# -- without


async def test_without_the_plugin_a_traceparent_passes_as_it_came():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, ["metering"]) as weir:
        await testing.ask(weir, ASK, headers={"TraceParent": "anything", "tracestate": "a=1", "baggage": "b=2"})
    assert [
        field for field in upstream.last.fields if field[0].lower() in (b"traceparent", b"tracestate", b"baggage")
    ] == [
        (b"TraceParent", b"anything"),
        (b"tracestate", b"a=1"),
        (b"baggage", b"b=2"),
    ]
