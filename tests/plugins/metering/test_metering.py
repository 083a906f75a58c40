"""One ledger line per exchange whatever happened; tokens, money and times in the metrics."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import orjson
import pytest
from typing_extensions import override

from proxy import testing
from proxy.plugin import PRINCIPAL, Plugin, PluginConfig, Principal, Response, Unauthorized
from tests import wire

CHAT = testing.CHAT
COUNTED = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 64},
}
ANSWER = testing.answer(
    orjson.dumps({"model": "gpt-4o-2024-08-06", "choices": [{"message": {"content": "hi"}}], "usage": COUNTED})
)
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * 400}]}
STREAM = {**ASK, "stream": True}
WORDS = testing.chat_events([f"w{number}" for number in range(40)])


class WhoConfig(PluginConfig):
    does: str = "knows"


class Who(Plugin[WhoConfig]):
    """Knows who asks; or refuses, answers or crashes instead."""

    Config = WhoConfig

    @override
    async def on_request(self, exchange):
        match self.config.does:
            case "refuses":
                raise Unauthorized("who are you?")
            case "answers":
                return Response.of_json(200, {"choices": [], "usage": COUNTED})
            case "crashes":
                raise RuntimeError("oh no")
        exchange[PRINCIPAL] = Principal("search-team", {"feature": "search"}, metric="search-team")
        return None


def who(does: str = "knows") -> str:
    return f"  - who: {{use: '{__name__}:Who', does: {does}}}\n"


async def test_an_answer_leaves_one_line_that_says_it_all(house):
    async with house(ANSWER, before=who()) as home:
        answer = await testing.ask(home.weir, ASK, headers={"x-weir-user": "ada", "x-weir-prompt-version": "v7"})
        line = await home.line()
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("duration_ms") < 60_000
    assert line == {
        "log": "ledger",
        "id": answer.headers["x-weir-request-id"],
        "principal": "search-team",
        "labels": {"feature": "search"},
        "user": "ada",
        "prompt_version": "v7",
        "route": "default",
        "detour": None,
        "endpoint": "chat",
        "upstream": "up",
        "model": "gpt-4o",
        "served_model": "gpt-4o-2024-08-06",
        "attempts": [{"upstream": "up", "model": None, "status": 200, "outcome": "ok", "fault": None}],
        "tokens": {"input": 1000, "cached_input": 400, "cache_write": 0, "output": 100, "reasoning": 64},
        "estimated": False,
        "cost_usd": "0.003",
        "cached": False,
        "saved_tokens": 0,
        "saved_usd": "0",
        "ttft_ms": None,
        "status": 200,
        "outcome": "ok",
    }


async def test_tokens_and_money_are_counted_by_who_pays(house):
    async with house(ANSWER, before=who()) as home:
        for _ in range(3):
            await testing.ask(home.weir, ASK)
        await wire.until(lambda: len(home.lines()) == 3)
        tokens, cost = home.metric("weir_tokens_total"), home.metric("weir_cost_usd_total")
        wasted, unpriced = home.metric("weir_wasted_cost_usd_total"), home.metric("weir_unpriced_requests_total")
    paid = 'model="gpt-4o-2024-08-06",principal="search-team",route="default",upstream="up"'
    kinds = {"input": 3000.0, "cached_input": 1200.0, "output": 300.0, "reasoning": 192.0}
    assert tokens == {f'{{kind="{kind}",{paid}}}': count for kind, count in kinds.items()}
    assert cost == {f"{{{paid}}}": 0.009}
    assert (wasted, unpriced) == ({}, {})


async def test_a_stream_has_its_time_to_the_first_token_and_per_token(house):
    async with house(testing.stream(*WORDS, pause=0.005)) as home:
        await testing.ask(home.weir, STREAM)
        line = await home.line()
        count = home.metric("gen_ai_server_time_per_output_token_seconds_count")
        total = home.metric("gen_ai_server_time_per_output_token_seconds_sum")
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (100, 40, True)
    assert 0 < line["ttft_ms"] < line["duration_ms"]
    assert count == {'{model="gpt-4o",upstream="up"}': 1.0}
    assert 0.005 <= total['{model="gpt-4o",upstream="up"}'] < 1


SHAPES = {
    "chat, JSON": (CHAT, False, orjson.dumps({"usage": COUNTED}), (1000, 100)),
    "embeddings": ("/v1/embeddings", False, b'{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}', (8, 0)),
    "responses, JSON": ("/v1/responses", False, b'{"usage":{"input_tokens":36,"output_tokens":87}}', (36, 87)),
    "transcription": ("/v1/audio/transcriptions", False, b'{"usage":{"type":"tokens","input_tokens":14,"output_tokens":5}}', (14, 5)),
    "TGI, native": ("/generate", False, b'{"details":{"generated_tokens":9,"prefill":[{},{}]}}', (2, 9)),
    "usage on the last chunk": (CHAT, True, b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n', (3, 1)),
    "usage on every chunk": (CHAT, True, b"".join(b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":%b}],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n' % (end, n) for n, end in ((1, b"null"), (2, b"null"), (3, b'"stop"'))), (3, 3)),
    "TGI, per prompt": ("/v1/completions", True, b"".join(b'data: {"choices":[{"index":%d,"text":"a","finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":5}}\n\n' % n for n in (0, 1)), (4, 10)),
    "responses, stream": ("/v1/responses", True, b'data: {"type":"response.output_text.delta","delta":"a"}\n\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":4,"output_tokens":2}}}\n\n', (4, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("path", "streams", "body", "tokens"), SHAPES.values(), ids=SHAPES)
async def test_usage_is_read_in_every_shape(house, path, streams, body, tokens):
    script = testing.stream(body) if streams else testing.answer(body)
    async with house(script) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o"}, path=path)
        line = await home.line()
    assert answer.body == body
    assert (line["tokens"]["input"], line["tokens"]["output"]) == tokens
    assert (line["estimated"], Decimal(line["cost_usd"]) > 0) == (False, True)


DETAILS = b'[{"generated_text":"a","details":{"finish_reason":"length","generated_tokens":7,"prefill":[],"tokens":[]}}]'


@pytest.mark.parametrize("body", [b'{"generated_text":"a"}', DETAILS], ids=["plain", "details"])
async def test_native_tgi_tells_its_usage_in_the_header(house, body):
    script = testing.answer(body, x_prompt_tokens="12", x_generated_tokens="7")
    async with house(script) as home:
        await testing.ask(home.weir, {"inputs": "x"}, path="/generate")
        line = await home.line()
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (12, 7, False)


def left_after(events: int) -> testing.Script:
    """Sends so many events, then nothing for long."""

    async def script(received: testing.Received, wire: testing.Wire) -> None:
        await testing.stream(*WORDS[:events], pause=0.002, ends=False)(received, Open(wire))
        await asyncio.sleep(30)

    return script


class Open:
    """A wire that nobody closes."""

    def __init__(self, wire: testing.Wire) -> None:
        self.send = wire.send

    def close(self) -> None:
        pass


@pytest.mark.parametrize("events", [0, 1, 10, 39, 40])
async def test_an_app_that_leaves_pays_for_what_was_delivered(house, events):
    async with house(left_after(events), before=who()) as home:
        async with wire.connected(home.weir.url) as client:
            body = orjson.dumps(STREAM)
            await client.send(
                b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
            )
            answer = await client.start("POST")
            if events:
                await answer.until(WORDS[events - 1])
        line = await home.line()
        wasted = home.metric("weir_wasted_cost_usd_total")
        (wire_up,) = home.upstream.wires
        await wire.until(wire_up.gone.is_set)
    assert (line["outcome"], line["estimated"]) == ("client_abort", True)
    assert (line["tokens"]["input"], line["tokens"]["output"]) == (100, events)
    usd = 100 * Decimal("0.0000025") + events * Decimal("0.00001")
    assert Decimal(line["cost_usd"]) == usd
    assert wasted == {'{reason="abort"}': float(usd)}


async def test_an_app_that_leaves_before_the_first_byte_pays_for_the_prompt(house):
    async def silent(received: testing.Received, wire: testing.Wire) -> None:
        await asyncio.sleep(30)

    async with house(silent) as home:
        async with wire.connected(home.weir.url) as client:
            body = orjson.dumps(ASK)
            await client.send(
                b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
            )
            await wire.until(lambda: home.upstream.requests)
        line = await home.line()
    assert (line["outcome"], line["estimated"], line["status"]) == ("client_abort", True, None)
    assert (line["tokens"]["input"], line["tokens"]["output"]) == (100, 0)


@pytest.mark.parametrize(
    "path", ["/chat/completions", "/v1/chat%2Fcompletions", "/openai/deployments/gpt-4o/chat/completions"]
)
async def test_no_spelling_of_the_path_makes_a_stream_free(house, path):
    async with house(testing.stream(*WORDS)) as home:
        await testing.ask(home.weir, STREAM, path=path)
        line = await home.line()
        asked = home.upstream.last.json()
    assert (line["endpoint"], line["tokens"]["input"], line["tokens"]["output"]) == ("chat", 100, 40)
    assert Decimal(line["cost_usd"]) > 0
    assert asked["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("ends", [True, False], ids=["in order", "cut"])
async def test_a_stream_that_breaks_off_is_billed_for_what_came(house, ends):
    async with house(testing.stream(*WORDS[:10], ends=ends)) as home:
        await testing.ask(home.weir, STREAM)
        line = await home.line()
        assert home.metric("weir_wasted_cost_usd_total") == {}
    assert (line["outcome"], line["estimated"], line["tokens"]["output"]) == ("stream_interrupted", True, 10)


@pytest.mark.parametrize("size", [2 * 2**20, 5 * 2**20], ids=["of 2 MB", "above the reader's limit"])
async def test_a_usage_behind_a_long_line_is_read(house, size):
    """Field case 40."""
    told = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":7,"total_tokens":10}}\n\n'
    async with house(testing.stream(testing.chat_event({"content": "x" * size}), told, WORDS[-1])) as home:
        answer = await testing.ask(home.weir, {**STREAM, "stream_options": {"include_usage": True}})
        line = await home.line()
    assert (answer.is_whole, len(answer.body) > size) == (True, True)
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (3, 7, False)


async def test_a_long_line_without_a_usage_is_estimated_and_says_so(house):
    async with house(testing.stream(testing.chat_event({"content": "word " * 2**20}), *WORDS[-2:])) as home:
        await testing.ask(home.weir, STREAM)
        line = await home.line()
    assert (line["estimated"], line["tokens"]["output"] >= 2**20) == (True, True)


async def test_a_usage_from_before_the_cut_is_not_less_than_what_came(house):
    """Some servers report a running count with each chunk, and not always with the last."""
    counted = WORDS[0].replace(
        b'"finish_reason":null}]', b'"finish_reason":null}],"usage":{"prompt_tokens":3,"completion_tokens":1}'
    )
    async with house(testing.stream(counted, *WORDS[1:10], ends=False)) as home:
        await testing.ask(home.weir, STREAM)
        line = await home.line()
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (3, 10, True)


async def hangs_up(received: testing.Received, wire: testing.Wire) -> None:
    wire.close()


BROKE = testing.answer(b'{"error":{"message":"busy"}}', status=503)
CANCELLED = testing.answer(b'{"id":"resp_1","status":"cancelled","output":[],"usage":null}')
ENDS = {
    "refused by a plugin before it": (ANSWER, "refuses", CHAT, 401, "rejected", 0),
    "answered by a plugin before it": (ANSWER, "answers", CHAT, 200, "ok", 0),
    "a plugin before it crashed": (ANSWER, "crashes", CHAT, 500, "upstream_error", 0),
    "an ambiguous path": (ANSWER, "knows", "/v1/a//b", 400, "client_error", 0),
    "an error of the upstream": (BROKE, "knows", CHAT, 503, "upstream_error", 1),
    "a client error": (testing.answer(b'{"error":{"message":"no"}}', status=404), "knows", CHAT, 404, "client_error", 1),
    "no answer": (hangs_up, "knows", CHAT, 502, "upstream_error", 1),
    "a list of models": (testing.answer(b'{"data":[]}'), "knows", "/v1/models", 200, "ok", 1),
    "a cancellation": (CANCELLED, "knows", "/v1/responses/resp_1/cancel", 200, "ok", 1),
    "a count of tokens": (testing.answer(b'{"input_tokens":100}'), "knows", "/v1/responses/input_tokens", 200, "ok", 1),
}  # fmt: skip


@pytest.mark.parametrize(("script", "does", "path", "status", "outcome", "attempts"), ENDS.values(), ids=ENDS)
async def test_what_used_nothing_leaves_its_line_too(house, script, does, path, status, outcome, attempts):
    async with house(script, before=who(does)) as home:
        assert (await testing.ask(home.weir, ASK, path=path)).status == status
        line = await home.line()
        assert home.metric("weir_unpriced_requests_total") == {}
    assert (line["status"], line["outcome"], len(line["attempts"])) == (status, outcome, attempts)
    assert (line["cost_usd"], set(line["tokens"].values()), line["estimated"]) == ("0", {0}, False)


async def test_a_body_over_the_limit_leaves_its_line(house):
    async with house(ANSWER) as home:
        assert (await testing.ask(home.weir, b"x" * 600_000)).status == 413
        assert (await home.line())["status"] == 413


async def test_a_request_without_a_route_leaves_its_line(house):
    async with house(ANSWER, last=", match: {path: /v1/embeddings}") as home:
        assert (await testing.ask(home.weir, ASK)).status == 404
        line = await home.line()
    assert (line["route"], line["status"], line["cost_usd"]) == (None, 404, "0")


async def test_a_model_without_a_price_is_counted_and_not_free(house):
    body = orjson.dumps({"model": "mystery-1", "usage": COUNTED})
    async with house(testing.answer(body)) as home:
        await testing.ask(home.weir, {"model": "mystery-1"})
        line = await home.line()
        unpriced, cost = home.metric("weir_unpriced_requests_total"), home.metric("weir_cost_usd_total")
    assert (line["cost_usd"], line["tokens"]["input"]) == (None, 1000)
    assert (unpriced, cost) == ({'{model="other"}': 1.0}, {})


async def test_a_free_model_costs_nothing_and_is_not_unpriced(house):
    async with house(testing.answer(orjson.dumps({"model": "free-model", "usage": COUNTED}))) as home:
        await testing.ask(home.weir, {"model": "free-model"})
        assert (await home.line())["cost_usd"] == "0"
        assert home.metric("weir_unpriced_requests_total") == {}


async def test_an_explicit_usage_of_nothing_is_believed(house):
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    async with house(testing.answer(orjson.dumps({"model": "gpt-4o", "usage": zero}))) as home:
        await testing.ask(home.weir, ASK)
        line = await home.line()
    assert (line["cost_usd"], line["estimated"], set(line["tokens"].values())) == ("0", False, {0})


async def test_ten_thousand_models_users_and_paths_make_no_series(house):
    async with house(testing.answer(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')) as home:

        async def some(first: int) -> None:
            async with wire.connected(home.weir.url) as client:
                for number in range(first, first + 500):
                    body = b'{"model":"m%d"}' % number
                    path = CHAT if number % 2 else f"/v1/{number}"
                    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-weir-user: u{number}\r\ncontent-length: {len(body)}\r\n\r\n"
                    await client.send(head.encode() + body)
                    await client.answer("POST")

        for number in range(2):
            await testing.ask(home.weir, {"model": "first"}, path=CHAT if number else "/v1/0")
        await wire.until(lambda: home.metric("weir_event_loop_lag_seconds"))
        before = len(home.weir.metrics.page().splitlines())
        await asyncio.gather(*(some(first) for first in range(0, 10_000, 500)))
        await wire.until(lambda: len(home.lines()) == 10_002)
        assert len(home.weir.metrics.page().splitlines()) == before


HELP = {
    "weir_tokens_total": "tokens by kind",
    "weir_cost_usd_total": "what upstreams' tokens and time cost",
    "weir_saved_cost_usd_total": "what answers from a cache would have cost",
    "weir_saved_tokens_total": "tokens of answers from a cache",
    "weir_wasted_cost_usd_total": "cost of answers that nobody wanted any more, and of attempts that failed",
    "weir_feedback_total": "scores that apps handed in",
    "weir_feedback_score_total": "sum of the scores: by weir_feedback_total it is the mean",
    "weir_unpriced_requests_total": "requests without a price",
}


async def test_each_help_text_can_be_read_without_the_one_before_it(house):
    async with house(ANSWER) as home:
        page = home.weir.metrics.page().decode()
    assert [f"# HELP {name} {text}" for name, text in HELP.items() if f"# HELP {name} {text}\n" not in page] == []


@pytest.mark.parametrize(("user", "shown"), [("x" * 1000, "x" * 256), ("a\udcffb", "a?b"), ("ü", "ü"), ('"\\', '"\\')])
async def test_what_an_app_says_of_its_user_cannot_break_a_line(house, user, shown):
    async with house(ANSWER) as home, wire.connected(home.weir.url) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-weir-user: {user}\r\ncontent-length: 2\r\n\r\n{{}}"
        await client.send(head.encode("utf-8", "surrogateescape"))
        await client.answer("POST")
        assert (await home.line())["user"] == shown


async def test_feedback_leaves_a_line_that_says_what_it_is_about(house):
    async with house(ANSWER, before=who()) as home:
        answer = await testing.ask(home.weir, ASK, headers={"x-weir-prompt-version": "x" * 300})
        line = await home.line()
        request_id = answer.headers["x-weir-request-id"]
        home.weir.feedback.hand_in(orjson.dumps({"request_id": request_id, "score": 0.5, "comment": 'a "b"\n'}))
        unknown = "req_" + "0" * 24
        home.weir.feedback.hand_in(orjson.dumps({"request_id": unknown, "score": 1, "label": "thumb"}))
        await wire.until(lambda: home.out.getvalue().count(b'"feedback"') == 2)
        rated, late = [orjson.loads(each) for each in home.out.getvalue().splitlines() if b'"feedback"' in each]
    assert (rated["score"], rated["label"], rated["comment"]) == (0.5, None, 'a "b"\n')
    shared = [
        "id",
        "principal",
        "labels",
        "user",
        "prompt_version",
        "route",
        "upstream",
        "model",
        "served_model",
        "status",
    ]
    assert {key: rated[key] for key in shared} == {key: line[key] for key in shared}
    assert line["prompt_version"] == "x" * 256
    assert (late["id"], late["score"], late["label"], late["principal"], late["route"]) == (
        unknown,
        1.0,
        "thumb",
        None,
        None,
    )
    assert home.metric("weir_feedback_total") == {
        '{model="gpt-4o-2024-08-06",principal="search-team",route="default"}': 1.0,
        '{model="other",principal="unknown",route="unknown"}': 1.0,
    }
    assert sum(home.metric("weir_feedback_score_total").values()) == 1.5


async def test_the_ledger_may_be_a_file(house, tmp_path):
    file = tmp_path / "ledger.jsonl"
    async with house(ANSWER, metering=f"{{ledger: '{file}'}}") as home:
        await testing.ask(home.weir, ASK)
        await wire.until(file.exists)
        assert home.lines() == []
    (line,) = file.read_bytes().splitlines()
    assert orjson.loads(line)["cost_usd"] == "0.003"


async def test_no_ledger_still_counts(house):
    async with house(ANSWER, metering="{ledger: none}") as home:
        await testing.ask(home.weir, ASK)
        await wire.until(lambda: home.metric("weir_cost_usd_total"))
        assert home.lines() == []


async def test_lines_of_the_last_requests_are_written_at_the_stop(house):
    async with house(ANSWER) as home:
        await asyncio.gather(*(testing.ask(home.weir, ASK) for _ in range(50)))
    assert len(home.lines()) == 50


async def test_new_prices_are_taken_and_bad_ones_are_not(house, tmp_path, caplog):
    prices = tmp_path / "prices.yaml"
    prices.write_text('models: {m: {input: "1", output: "1"}}')

    async def cost() -> str | None:
        before = len(home.lines())
        await testing.ask(home.weir, {"model": "m"})
        await wire.until(lambda: len(home.lines()) > before)
        return home.lines()[-1]["cost_usd"]

    async with house(
        testing.answer(orjson.dumps({"model": "m", "usage": COUNTED})), metering=f"{{prices: '{prices}'}}"
    ) as home:
        assert await cost() == "0.0011"
        prices.write_text("models: {m: {input: 2.5, output: 1}}")
        await wire.until(lambda: "the new prices are not taken" in caplog.text)
        assert "put it in quotes" in caplog.text
        assert await cost() == "0.0011"
        prices.write_text('models: {m: {input: "2", output: "2"}}')
        await wire.until(lambda: home.weir.plan.plugins[0]._book.find("up", "m", None).input == Decimal("0.000002"))
        assert await cost() == "0.0022"


async def test_a_route_may_go_unmetered(house):
    routes = "  - {name: quiet, match: {header: {x-quiet: '*'}}, targets: [up], plugins: {metering: off}}\n"
    async with house(ANSWER, routes=routes) as home:
        await testing.ask(home.weir, ASK, headers={"x-quiet": "1"})
        await testing.ask(home.weir, ASK)
        assert (await home.line())["route"] == "default"


async def test_an_answer_that_is_read_to_its_end_for_nobody_leaves_its_line_at_a_stop(house):
    """The app leaves and Weir stops, while the upstream is still read for its usage."""
    async with house(testing.stream(*WORDS, pause=0.01), settings="    on_disconnect: drain\n") as home:
        async with wire.connected(home.weir.url) as client:
            body = orjson.dumps(STREAM)
            head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            await client.send(head % (CHAT.encode(), len(body)) + body)
            await (await client.start("POST")).until(WORDS[0])
        await wire.until(lambda: home.weir.in_flight == 0)
    (line,) = home.lines()
    assert (line["outcome"], line["tokens"]["output"]) == ("client_abort", 40)


# -- money by the hour


async def test_what_its_requests_cost_together_is_what_it_was_busy(house):
    async def slow(received, up):
        await asyncio.sleep(0.1 if b"slow" in received.body else 0.05)
        await ANSWER(received, up)

    async with house(slow, settings='    usd_per_hour: "3600"\n') as home:
        asked = [testing.ask(home.weir, {**ASK, "model": f"slow-{number}"}) for number in range(8)]
        await asyncio.gather(*asked, testing.ask(home.weir, ASK))
        await wire.until(lambda: len(home.lines()) == 9 and not home.weir.in_flight)
        lines, seconds = home.lines(), home.metric("weir_upstream_seconds_total")
        cost = home.metric("weir_cost_usd_total")
        unpriced = home.metric("weir_unpriced_requests_total")
    busy, time = seconds['{state="busy",upstream="up"}'], sum(line["attempts"][0]["busy_seconds"] for line in lines)
    tokens = 9 * Decimal("0.003")  # by the upstream's own prices
    paid = sum(Decimal(line["cost_usd"]) for line in lines)
    assert time == pytest.approx(busy, abs=1e-4)
    assert float(paid - tokens) == pytest.approx(busy, abs=1e-4)
    assert sum(cost.values()) == pytest.approx(float(paid))
    assert seconds['{state="idle",upstream="up"}'] > 0
    assert unpriced == {}


async def test_without_it_no_time_is_counted(house):
    async with house(ANSWER) as home:
        await testing.ask(home.weir, ASK)
        assert "busy_seconds" not in (await home.line())["attempts"][0]
        assert home.metric("weir_upstream_seconds_total") == {}
