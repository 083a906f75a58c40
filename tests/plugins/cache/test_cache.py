"""Who asks the same again gets the same again, from here: fast, free, marked, and nobody else's."""

import asyncio
import pathlib
from hashlib import sha256

import orjson
import pytest

from proxy import testing
from proxy.plugin import EventFilter, Plugin, PluginConfig
from tests import wire
from tests.plugins.cache.house import ASK, EVENTS, PRICES, SAID, STREAM, USAGE, house, usage_event

TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


async def test_an_answer_is_given_again():
    async with house(SAID) as home:
        first, again = await home.ask(), await home.ask()
    assert (first.headers["x-weir-cache"], again.headers["x-weir-cache"]) == ("miss", "hit")
    assert (first.body, home.calls) == (again.body, 1)
    assert again.headers["age"] == "0"
    assert again.headers["x-weir-request-id"] != first.headers["x-weir-request-id"]
    assert home.counted("weir_cache_requests_total") == {'result="miss"': 1.0, 'result="hit"': 1.0}


async def test_a_stream_is_given_again_event_by_event():
    async with house(SAID) as home:
        first, again = await home.ask(STREAM), await home.ask(STREAM)
    assert (first.body, home.calls) == (again.body, 1)
    assert again.body == b"".join(EVENTS)
    assert again.headers["content-type"].startswith("text/event-stream")
    assert again.headers["x-weir-cache"] == "hit"


async def test_how_a_key_is_spelled_and_what_is_volatile_makes_no_difference():
    body = b'{"messages": [{"content": "What is a weir?", "role": "user"}],  "model":"m", "user": "ada", "metadata": {"a": "1"}}'
    async with house(SAID) as home:
        assert await home.results(ASK, body, {**ASK, "service_tier": "flex"}) == ["miss", "hit", "hit"]


async def test_embeddings_are_kept_too():
    made = orjson.dumps(
        {
            "object": "list",
            "data": [{"embedding": [0.1], "index": 0}],
            "model": "e",
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }
    )
    async with house(testing.answer(made), before=("metering",)) as home:
        answers = [await home.ask({"model": "e", "input": "hi"}, path="/v1/embeddings") for _ in range(2)]
    assert [answer.body for answer in answers] == [made, made]
    assert home.calls == 1
    assert [line["saved_tokens"] for line in home.lines("ledger")] == [0, 2]


async def test_other_requests_pass_it_by_unmarked():
    async with house(testing.answer(b"{}")) as home:
        answers = [await home.ask({"model": "m", "input": "x"}, path="/v1/moderations") for _ in range(2)]
    assert home.calls == 2
    assert ["x-weir-cache" in answer.headers for answer in answers] == [False, False]
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store", "no-store"]


async def test_no_cache_between_here_and_the_app_may_keep_an_answer():
    script = testing.answer(b"{}", status=500, vary="origin", cache_control="public, max-age=60")
    async with house(script) as home:
        answer = await home.ask()
    assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "origin, authorization")


# -- what is repeatable

UNREPEATABLE = [
    (testing.CHAT, {**ASK, "store": True}),
    (testing.CHAT, {**ASK, "web_search_options": {}, "store": True}),
    (testing.CHAT, {**ASK, "web_search_options": {"search_context_size": "low"}}),
    (testing.CHAT, {**ASK, "tools": [{"type": "web_search"}]}),
    (testing.CHAT, {**ASK, "audio": {"voice": "alloy"}}),
    (testing.CHAT, b'{"model": "m", "messages": '),
    (testing.CHAT, b"[1]"),
    ("/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_1"}),
    ("/v1/responses", {"model": "m", "input": "x", "conversation": "conv_1"}),
    ("/v1/responses", {"model": "m", "input": "x", "background": True}),
    ("/v1/responses", {"model": "m", "input": "x", "tools": [{"type": "mcp"}]}),
]


@pytest.mark.parametrize(("path", "body"), UNREPEATABLE)
async def test_what_cannot_be_repeated_goes_up_each_time(path, body):
    async with house(SAID) as home:
        assert await home.results(body, body, path=path) == ["bypass", "bypass"]
        assert home.calls == 2


async def test_the_apps_own_tools_are_no_reason():
    async with house(SAID) as home:
        assert await home.results({**ASK, **TOOLS}, {**ASK, **TOOLS}) == ["miss", "hit"]


# -- cache-control

DIRECTIVES = [
    ("no-store", "bypass", 2),
    ("no-cache", "miss", 2),
    ("No-Cache, foo=bar", "miss", 2),
    ("max-age=0", "miss", 2),
    ("max-age=60", "hit", 1),
    ("max-age=nonsense", "hit", 1),
    ("only-if-cached", "hit", 1),
]


@pytest.mark.parametrize(("directive", "result", "calls"), DIRECTIVES)
async def test_a_request_says_whether_it_wants_what_is_kept(directive, result, calls):
    async with house(SAID) as home:
        await home.ask()
        assert await home.results(ASK, cache_control=directive) == [result]
        assert home.calls == calls


@pytest.mark.parametrize(("directive", "then"), [("no-store", "miss"), ("no-cache", "hit")])
async def test_no_store_keeps_nothing_and_no_cache_does(directive, then):
    async with house(SAID) as home:
        await home.ask(cache_control=directive)
        assert await home.results(ASK) == [then]


async def test_an_answer_that_is_too_old_is_asked_for_again():
    async with house(SAID) as home:
        await home.ask()
        await asyncio.sleep(1.1)
        assert (await home.ask()).headers["age"] == "1"
        assert await home.results(ASK, cache_control="max-age=1") == ["miss"]
        assert (await home.ask()).headers["age"] == "0"


async def test_after_its_time_it_is_gone():
    async with house(SAID, ttl="50ms") as home:
        await home.ask()
        await asyncio.sleep(0.1)
        assert await home.results(ASK) == ["miss"]


# -- whose

AUTH = {
    "auth": {"keys": [{"name": name, "sha256": sha256(f"{name}-key".encode()).hexdigest()} for name in ("ada", "bob")]}
}


async def test_two_principals_never_get_each_others():
    async with house(SAID, before=(AUTH,)) as home:
        assert await home.results(ASK, ASK, key="ada-key") == ["miss", "hit"]
        assert await home.results(ASK, ASK, key="bob-key") == ["miss", "hit"]
        assert home.calls == 2


async def test_without_principals_the_credential_says_whose():
    async with house(SAID) as home:
        assert await home.results(ASK, ASK, key="a") == ["miss", "hit"]
        assert await home.results(ASK, key="b") == ["miss"]
        assert await home.results(ASK, key="", x_api_key="a") == ["miss"]
        assert await home.results(ASK, key="", api_key="a") == ["miss"]


async def test_who_says_nothing_of_itself_gets_nothing_of_others():
    async with house(SAID) as home:
        assert await home.results(ASK, ASK, key="") == ["bypass", "bypass"]
        assert await home.results(ASK, key="", authorization="Bearer ") == ["bypass"]
        assert home.calls == 3


async def test_a_scope_in_the_body_or_the_header_is_no_scope():
    forged = {**ASK, "principal": "ada", "scope": "shared", "user": "ada"}
    async with house(SAID) as home:
        await home.ask(key="ada")
        assert await home.results(forged, key="bob", x_weir_user="ada", x_principal="ada") == ["miss"]


async def test_all_share_where_the_config_says_so():
    async with house(SAID, scope="shared") as home:
        assert await home.results(ASK, key="a") == ["miss"]
        assert await home.results(ASK, key="b") == ["hit"]
        assert await home.results(ASK, key="") == ["hit"]


async def test_what_parsers_read_differently_is_not_shared():
    twice = b'{"model": "m", "messages": [{"role": "user", "content": "evil", "content": "What is a weir?"}]}'
    async with house(SAID, scope="shared") as home:
        assert await home.results(twice, ASK) == ["bypass", "miss"]


# -- what is kept

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def said(reason="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": "x", **message}, "finish_reason": reason}
    return testing.answer(orjson.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": USAGE}))


def streamed(*events, ends=True):
    return testing.stream(*events, ends=ends)


A, B = EVENTS[:2]
ERROR = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": 503}}\n\n'
STOP, DONE = testing.chat_event({}, "stop"), b"data: [DONE]\n\n"
TOOL = testing.chat_event({"tool_calls": [{"index": 0, **CALL}]})


async def cut_json(received, up):
    await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{}")
    up.close()


async def reset_stream(received, up):
    await testing.stream(A, ends=False)(received, up)
    up.reset()


NOT_KEPT = {
    "an error": (testing.answer(b'{"error": {"message": "no"}}', status=500), ASK),
    "a refusal": (testing.answer(b'{"error": {"message": "no"}}', status=400), ASK),
    "a 200 with an error": (testing.answer(b'{"error": {"message": "no", "code": 500}}'), ASK),
    "another 2xx": (testing.answer(b"{}", status=202), ASK),
    "no JSON": (testing.answer(b"<p>", content_type="text/html"), ASK),
    "stopped at a length": (said("length"), ASK),
    "filtered": (said("content_filter"), ASK),
    "without an end": (said(None), ASK),
    "a tool call": (said("tool_calls", tool_calls=[CALL]), {**ASK, **TOOLS}),
    "a tool call that says stop": (said("stop", tool_calls=[CALL]), {**ASK, **TOOLS}),
    "a function call": (said("function_call", function_call={"name": "f", "arguments": ""}), ASK),
    "JSON cut short": (cut_json, ASK),
    "a stream cut short": (streamed(A, ends=False), STREAM),
    "a stream that was reset": (reset_stream, STREAM),
    "a stream that ends early in order": (streamed(A, B), STREAM),
    "a stream cut behind its [DONE]": (streamed(A, STOP, DONE, ends=False), STREAM),
    "an error event": (streamed(A, ERROR), STREAM),
    "an error event behind the end": (streamed(A, STOP, ERROR, DONE), STREAM),
    "a stream stopped at a length": (streamed(A, testing.chat_event({}, "length"), DONE), STREAM),
    "a stream that was filtered": (streamed(A, testing.chat_event({}, "content_filter"), DONE), STREAM),
    "a stream without a reason": (streamed(A, DONE), STREAM),
    "a lone [DONE]": (streamed(DONE), STREAM),
    "a streamed tool call": (streamed(TOOL, testing.chat_event({}, "tool_calls"), DONE), {**STREAM, **TOOLS}),
    "a streamed tool call that says stop": (streamed(TOOL, STOP, DONE), {**STREAM, **TOOLS}),
    "compressed": (testing.answer(b"\x1f\x8b", content_encoding="gzip"), ASK),
    "too large": (testing.chat("x" * 5000), ASK),
}


@pytest.mark.parametrize(("script", "body"), NOT_KEPT.values(), ids=NOT_KEPT)
async def test_only_what_is_whole_and_good_is_kept(script, body):
    async with house(script, max_entry="4KiB") as home:
        assert await home.results(body, body) == ["miss", "miss"]
        assert home.calls == 2


@pytest.mark.parametrize(
    "name", ["a tool call", "a function call", "a streamed tool call", "a tool call that says stop"]
)
async def test_tool_calls_are_kept_where_that_is_wanted(name):
    script, body = NOT_KEPT[name]
    async with house(script, tool_calls=True) as home:
        assert await home.results(body, body) == ["miss", "hit"]


async def test_what_the_app_did_not_wait_for_is_not_kept():
    go_on = asyncio.Event()

    async def script(received, up):
        await testing.stream(A, ends=False)(received, _Open(up))
        await go_on.wait()

    async with house(script) as home:
        async with wire.connected(home.weir.url) as client:
            body = orjson.dumps(STREAM)
            await client.send(
                b"POST %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ada\r\ncontent-length: %d\r\n\r\n%b"
                % (testing.CHAT.encode(), len(body), body)
            )
            await (await client.start("POST")).until(b"\n\n")
            client.leave()
        await asyncio.wait_for(home.upstream.wires[0].gone.wait(), 1)
        home.upstream.script = SAID
        assert await home.results(STREAM) == ["miss"]


class _Open:
    def __init__(self, up):
        self.send = up.send

    def close(self):
        """Left open."""


async def test_a_good_answer_is_not_lost_to_a_failure_that_follows():
    async with house(SAID) as home:
        await home.ask()
        home.upstream.script = testing.answer(b"{}", status=500)
        assert (await home.ask(cache_control="no-cache")).status == 500
        assert await home.results(ASK) == ["hit"]


class Shout(Plugin[PluginConfig]):
    """Stands behind the cache and changes answers."""

    async def on_response(self, exchange, response):
        return EventFilter() if response.is_event_stream else None


async def test_what_plugins_behind_it_change_is_neither_kept_nor_shared(caplog):
    async with house(SAID, behind=({"shout": {"use": f"{__name__}:Shout"}},)) as home:
        assert await home.results(STREAM, STREAM) == ["miss", "miss"]
    assert "answers of route 'main' are changed behind the cache" in caplog.text


class Cheaper(Plugin[PluginConfig]):
    """Sends every second request another way, as a budget does."""

    async def on_request(self, exchange):
        if "x-poor" in exchange.request.headers:
            exchange.detour = "other"


@pytest.mark.parametrize("directives", [{}, {"cache_control": "no-cache"}])
async def test_an_answer_that_came_another_way_is_not_kept(directives):
    cheaper = {"cheaper": {"use": f"{__name__}:Cheaper"}}
    async with house(SAID, before=(cheaper,), other="[{upstream: up, model: small}]") as home:
        poor = [await home.ask(x_poor="1", **directives) for _ in range(2)]
        assert [request.json()["model"] for request in home.upstream.requests] == ["small", "small"]
        assert await home.results(ASK) == ["miss"]
        assert await home.results(ASK, x_poor="1") == ["hit"]
    assert "hit" not in {answer.headers["x-weir-cache"] for answer in poor}


# -- the bill


@pytest.fixture
def prices(tmp_path: pathlib.Path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    return {"metering": {"prices": str(tmp_path / "prices.yaml")}}


async def test_a_hit_costs_nothing_and_says_what_it_saved(prices):
    async with house(streamed(*EVENTS[:-1], usage_event(), DONE), before=(prices,)) as home:
        for _ in range(3):
            await home.ask(STREAM)
    paid, *hits = home.lines("ledger")
    assert (paid["cached"], paid["cost_usd"], paid["saved_usd"], paid["tokens"]["input"]) == (False, "0.000017", "0", 5)
    for hit in hits:
        assert (hit["cached"], hit["cost_usd"], hit["saved_usd"], hit["saved_tokens"]) == (True, "0", "0.000017", 11)
        assert (hit["tokens"]["input"], hit["tokens"]["output"], hit["upstream"], hit["attempts"]) == (0, 0, None, [])
        assert (hit["status"], hit["outcome"]) == (200, "ok")
    labels = 'model="m",principal="none",route="main",upstream="up"'
    assert home.counted("weir_saved_cost_usd_total") == {labels: 0.000034}
    assert home.counted("weir_cost_usd_total") == {labels: 0.000017}
    assert sum(home.counted("weir_saved_tokens_total").values()) == 22


# -- the usage event

ASKED = {**STREAM, "stream_options": {"include_usage": True}}
TOLD = streamed(*EVENTS[:-1], usage_event(), DONE)
ESTIMATED = {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
"""Of a question of 15 characters, and an answer of six deltas."""


@pytest.mark.parametrize("order", [{"before": ("metering",)}, {}], ids=["metering before", "alone"])
@pytest.mark.parametrize("first", [STREAM, ASKED], ids=["unasked first", "asked first"])
async def test_the_usage_event_is_for_those_who_asked(order, first):
    async def script(received, up):
        tells = b"include_usage" in received.body
        await (TOLD if tells else streamed(*EVENTS))(received, up)

    async with house(script, **order) as home:
        await home.ask(first)
        plain, asked = await home.ask(STREAM), await home.ask(ASKED)
        assert plain.body == b"".join(EVENTS)
        knows_none = not order and first is STREAM
        usage = usage_event(ESTIMATED if knows_none else USAGE)
        assert asked.body == b"".join([*EVENTS[:-1], usage, DONE])
        assert (plain.headers["x-weir-cache"], asked.headers["x-weir-cache"], home.calls) == ("hit", "hit", 1)


async def test_a_usage_that_nobody_reported_is_estimated(prices):
    async with house(streamed(*EVENTS), before=({"metering": {**prices["metering"], "include_usage": False}},)) as home:
        _, whole, asked, plain = [await home.ask(body) for body in (STREAM, ASK, ASKED, STREAM)]
        assert home.calls == 1
    assert whole.json()["usage"] == ESTIMATED
    assert whole.json()["choices"][0]["message"]["content"] == "A weir stands in a stream"
    assert asked.body == b"".join([*EVENTS[:-1], usage_event(ESTIMATED), DONE])
    assert plain.body == b"".join(EVENTS)
    assert [line["saved_tokens"] for line in home.lines("ledger")] == [0, 10, 10, 0]


async def test_json_without_a_usage_makes_a_stream_with_one():
    script = testing.answer(
        b'{"choices": [{"index": 0, "message": {"content": "%b"}, "finish_reason": "stop"}]}' % (b"x" * 80)
    )
    async with house(script) as home:
        _, asked, again = [await home.ask(body) for body in (ASK, ASKED, ASK)]
        assert home.calls == 1
    assert b'"usage":{"prompt_tokens":4,"completion_tokens":20,"total_tokens":24}' in asked.body
    assert b"usage" not in again.body


async def test_an_estimated_usage_comes_at_the_streams_pace():
    async with house(streamed(*EVENTS), pace="original") as home:
        _, asked = [await home.ask(body) for body in (STREAM, ASKED)]
        assert home.calls == 1
    assert asked.body == b"".join([*EVENTS[:-1], usage_event(ESTIMATED), DONE])


# -- the store


class Failing:
    def __init__(self, store):
        self.store = store

    async def find(self, key, exchange):
        raise RuntimeError("the store is broken")

    def put(self, key, value, seconds):
        raise RuntimeError("the store is broken")


async def test_a_store_that_fails_is_a_miss():
    async with house(SAID) as home:
        [plugin] = home.weir.plan.plugins
        plugin._store = Failing(plugin._store)
        assert await home.results(ASK, ASK, STREAM) == ["miss", "miss", "miss"]


async def test_what_somebody_else_wrote_into_the_store_is_a_miss():
    async with house(SAID) as home:
        await home.ask()
        [plugin] = home.weir.plan.plugins
        home.weir.gateway.settle()
        values = plugin._store.values
        for key in list(values._kept):
            values.put(key, b"garbage", 60)
        assert await home.results(ASK, ASK) == ["miss", "hit"]


@pytest.mark.parametrize(
    ("memory", "then"),
    [
        ({"entries": 2, "size": "1MiB"}, ["miss", "hit", "hit"]),
        ({"entries": 100, "size": "700B"}, ["miss", "hit", "hit"]),
    ],
)
async def test_the_memory_is_bounded_in_entries_and_bytes(memory, then):
    asks = [{**ASK, "seed": seed} for seed in range(3)]
    async with house(SAID, memory=memory) as home:
        for body in asks:
            await home.ask(body)
            home.weir.gateway.settle()
        found = [(await home.ask(body, cache_control="max-age=60")).headers["x-weir-cache"] for body in asks[::-1]]
        assert found[::-1] == then


async def test_a_hit_says_of_its_way_only_the_route():
    async with house(SAID) as home:
        await home.ask()
        hit = await home.ask()
    assert hit.headers["x-weir-route"] == "main"
    assert "x-weir-upstream" not in hit.headers
    assert [(line["upstream"], line["outcome"]) for line in home.lines("access")] == [("up", "ok"), (None, "ok")]
