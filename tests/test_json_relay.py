"""JSON answers that pass as they came, and what is known of them afterwards."""

import gzip

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import json_relay, testing
from proxy.chain import Chain
from proxy.json_relay import MAX_ERROR_BYTES
from proxy.plugin import BodyFilter, Plugin, PluginConfig, Response, Tap, usage_from_body
from tests import wire

ASK = {"model": "m", "messages": []}
FULL = orjson.dumps({"error": {"message": "Model is overloaded", "type": "overloaded", "code": 503}})
SAID: list[str] = []


class Faults(Plugin[PluginConfig]):
    """Notes what each attempt and each exchange came to."""

    def on_attempt_end(self, exchange, attempt):
        SAID.append(f"{attempt.outcome} {attempt.fault and attempt.fault.kind}")

    async def on_complete(self, exchange, outcome):
        SAID.append(str(outcome))


class StageConfig(PluginConfig):
    kind: str


class Same(BodyFilter):
    async def apply(self, body):
        return body


class Staged(Plugin[StageConfig]):
    Config = StageConfig

    async def on_response(self, exchange, response):
        return {"tap": Tap, "body_filter": Same}[self.config.kind]()


class Meter(Plugin[PluginConfig]):
    reads_usage = True

    async def on_complete(self, exchange, outcome):
        SAID.append(f"usage {exchange.usage and exchange.usage.output_tokens}")


class Answers(Plugin[PluginConfig]):
    """Answers by itself."""

    async def on_request(self, exchange):
        return Response.of_json(200, {"error": "said by a plugin"})


def used(name, **settings):
    return {name.lower(): {"use": f"{__name__}:{name}", **settings}}


async def got(script, *plugins):
    """The answer's body; SAID has what was known of it."""
    SAID.clear()
    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream, [used("Faults"), *plugins]) as weir,
    ):
        answer = await testing.ask(weir, ASK)
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert (answer.status, answer.is_whole) == (200, True)
    [line] = [line for line in page.splitlines() if line.startswith("weir_requests_total")]
    SAID.append(line.partition('outcome="')[2].partition('"')[0])
    return answer.body


def cut(body, *sizes):
    """With its length, in pieces of these sizes and the rest."""

    async def script(_, wire):
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        rest = body
        for size in sizes:
            await wire.send(rest[:size], pause=0.02)
            rest = rest[size:]
        await wire.send(rest)

    return script


FAILED = ["upstream_error overloaded", "upstream_error", "upstream_error"]


@pytest.mark.parametrize("stage", [(), (used("Staged", kind="tap"),), (used("Staged", kind="body_filter"),)])
async def test_an_error_passes_as_it_came_and_its_attempt_has_failed(stage):
    assert await got(testing.answer(FULL), *stage) == FULL
    assert SAID == FAILED


@pytest.mark.parametrize("sizes", [(1,), (8,), (10, 30), (len(FULL) - 1,)])
async def test_however_it_is_cut(sizes):
    assert await got(cut(FULL, *sizes)) == FULL
    assert SAID == FAILED


async def test_also_where_it_is_packed():
    packed = gzip.compress(FULL)
    assert await got(testing.answer(packed, content_encoding="gzip")) == packed
    assert SAID == FAILED


async def test_an_error_that_is_the_apps_is_its_own():
    said = orjson.dumps({"error": {"message": "bad", "type": "invalid_request_error"}})
    assert await got(testing.answer(said)) == said
    assert SAID == ["client_error client", "client_error", "client_error"]


@pytest.mark.parametrize(
    "said",
    [
        b'{"status": "completed", "error": null}',
        b'{"status":"completed","error":null}',
        orjson.dumps({"choices": [{"message": {"content": '{"error": "not mine"}'}, "finish_reason": "stop"}]}),
        orjson.dumps({"choices": [{"finish_reason": "stop"}], "error": {"message": "late"}}),
        b'{"error": no JSON',
        orjson.dumps({"data": "x" * MAX_ERROR_BYTES, "error": {"message": "behind so much that nobody looks"}}),
        b"",
    ],
)
async def test_these_are_answers(said):
    assert await got(testing.answer(said)) == said
    assert SAID == ["ok None", "ok", "ok"]


async def test_who_asks_for_the_usage_gets_it_of_longer_answers_too():
    usage = {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
    said = orjson.dumps({"data": "x" * MAX_ERROR_BYTES, "usage": usage})
    assert await got(cut(said, 10, 40_000), used("Meter")) == said
    assert sorted(SAID) == ["ok", "ok", "ok None", "usage 7"]


async def test_the_usage_of_an_error_is_none():
    await got(testing.answer(FULL), used("Meter"))
    assert sorted(SAID) == sorted([*FAILED, "usage None"])


async def test_what_a_plugin_says_is_no_upstreams_failure():
    assert await got(testing.answer(FULL), used("Answers")) == b'{"error":"said by a plugin"}'
    assert SAID == ["ok", "ok"]


# -- what long answers say is found at their ends

COUNTED = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
LONG_TEXT = 'a "usage":{"prompt_tokens":1} \\ "model":"x", {[' * 200


def noted(said):
    exchange = testing.exchange()
    exchange.chain = Chain([Meter(PluginConfig(), name="meter")], SAID.append)
    json_relay.read(exchange, Response(200), said)
    return exchange.usage, exchange.model


def parsed(said):
    value = orjson.loads(said)
    return usage_from_body(value), value.get("model")


SHAPES = {
    "a chat": {"id": "x", "created": 1, "model": "m", "choices": [{"text": LONG_TEXT}], "usage": COUNTED},
    "members behind it": {"model": "m", "choices": [LONG_TEXT], "usage": COUNTED, "tier": "default", "a": None, "b": {}, "c": []},
    "details": {"model": "m", "choices": [LONG_TEXT], "usage": {**COUNTED, "prompt_tokens_details": {"cached_tokens": 2}}},
    "vectors": {"object": "list", "data": [0.5] * 2000, "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}},
}  # fmt: skip


@pytest.mark.parametrize("option", [0, orjson.OPT_INDENT_2])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_long_answer_is_not_parsed_for_its_usage(shape, option, monkeypatch):
    said = orjson.dumps(shape, option=option)
    known = parsed(said)
    sizes, loads = [], orjson.loads
    monkeypatch.setattr(json_relay.orjson, "loads", lambda text: sizes.append(len(text)) or loads(text))
    assert noted(said) == known
    assert max(sizes) < 400


MEMBERS = st.dictionaries(
    st.sampled_from(["usage", "model", "choices", "id", "x", 'a"usage', "error"]),
    st.recursive(
        st.sampled_from([COUNTED, {}, [], None, 1, "m", LONG_TEXT, '"usage"', ',"usage":{"prompt_tokens":1}}', "\\"]),
        lambda inner: (
            st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["usage", "model", "y"]), inner, max_size=2)
        ),
        max_leaves=4,
    ),
)


@given(MEMBERS, st.booleans(), st.sampled_from([0, orjson.OPT_INDENT_2]))
def test_whatever_a_long_answer_holds_it_says_what_all_of_it_does(members, is_last, option):
    padded = {**members, "pad": [LONG_TEXT]} if is_last else {"pad": [LONG_TEXT], **members}
    said = orjson.dumps(padded, option=option)
    usage, model = parsed(said)
    assert noted(said) == (usage, model if isinstance(model, str) else None)
