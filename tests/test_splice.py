"""A stream that breaks off amid its text goes on at the next upstream, and the app gets one whole answer."""

from __future__ import annotations

import contextlib
import io

import openai
import orjson
import pytest
from typing_extensions import override

from proxy import testing
from proxy.plugin import Hold, Plugin, PluginConfig
from proxy.splice import can_be_continued, continuing
from tests import wire

ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "What is a weir?"}]}
ROLE = testing.chat_event({"role": "assistant", "content": ""})
FIRST = [ROLE, *testing.chat_events(["A", "weir", "stands"], ends=False)]
SENT = "A weir stands"
SECOND = testing.chat_events([" in", "a", "stream,", "regulates", "it", "and", "measures", "it."])
WHOLE = "A weir stands in a stream, regulates it and measures it."


class GoOn(Plugin[PluginConfig]):
    """Has the next target go on, whatever was wrong."""

    @override
    async def on_attempt(self, exchange, attempt):
        attempt.continues = True
        attempt.hold = Hold(65536, 5.0)

    @override
    def on_attempt_end(self, exchange, attempt):
        attempt.retry = True


@contextlib.asynccontextmanager
async def house(*scripts: testing.Script):
    async with contextlib.AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        blocks = ", ".join(
            f'u{place}: {{base_url: "{up.url}/v1", timeouts: {{idle: 300ms}}}}' for place, up in enumerate(ups)
        )
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{blocks}}}\nplugins: [{{go_on: {{use: '{__name__}:GoOn'}}}}, metering]\n"
            f"routes: [{{name: r, targets: {orjson.dumps([f'u{place}' for place in range(len(ups))]).decode()}}}]\n"
        )
        out = io.BytesIO()
        yield await stack.enter_async_context(testing.configured(text, out)), ups, out


def said(body: bytes) -> str:
    events = [orjson.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event.get("choices", ()))


async def stalls(received: testing.Received, wire: testing.Wire) -> None:
    await testing.stream(*FIRST, ends=False)(received, Open(wire))


class Open:
    def __init__(self, wire: testing.Wire) -> None:
        self.send = wire.send

    def close(self) -> None:
        """Left open."""


async def resets(received: testing.Received, wire: testing.Wire) -> None:
    await testing.stream(*FIRST, ends=False)(received, Open(wire))
    wire.reset()


IN_BAND = b'data: {"error": {"message": "out of memory", "type": "server_error"}}\n\n'
BREAKS = {
    "cut": testing.stream(*FIRST, ends=False),
    "cut amid an event": testing.stream(*FIRST, SECOND[0][:40], ends=False),
    "ended without an end": testing.stream(*FIRST),
    "ended amid an event": testing.stream(*FIRST, SECOND[0][:40]),
    "ended without the last event's blank line": testing.stream(*FIRST[:-1], FIRST[-1].rstrip()),
    "reset": resets,
    "silent": stalls,
    "an error in the stream": testing.stream(*FIRST, IN_BAND),
}


@pytest.mark.parametrize("breaks", BREAKS.values(), ids=BREAKS)
async def test_the_next_upstream_goes_on(breaks):
    async with house(breaks, testing.stream(ROLE, *SECOND)) as (weir, (one, other), _):
        answer = await testing.ask(weir, ASK)
    assert (answer.status, answer.is_whole, said(answer.body)) == (200, True, WHOLE)
    assert (answer.body.count(b'"role"'), answer.body.endswith(b"data: [DONE]\n\n")) == (1, True)
    assert one.last.json()["messages"] == ASK["messages"]
    assert other.last.json()["messages"] == [*ASK["messages"], {"role": "assistant", "content": SENT}]
    assert other.last.headers["content-length"] == str(len(other.last.body))


STARTS = {
    "over again": testing.chat_events(WHOLE.split(" ")),
    "with the last words": testing.chat_events(f"weir stands{WHOLE.removeprefix(SENT)}".split(" ")),
    "with one event": [testing.chat_event({"content": WHOLE.removeprefix(SENT)}), *SECOND[-2:]],
}


@pytest.mark.parametrize("second", STARTS.values(), ids=STARTS)
async def test_nothing_is_said_twice_at_the_seam(second):
    async with house(BREAKS["cut"], testing.stream(*second)) as (weir, _, _):
        assert said((await testing.ask(weir, ASK)).body) == WHOLE


async def test_an_answer_that_becomes_another_is_an_error():
    other = testing.chat_events(
        ["A", "weir", "stands", "and", "nobody", "knows", "what", "for,", "in", "all", "the", "world."]
    )
    long = [
        ROLE,
        *testing.chat_events(
            ["A", "weir", "stands", "and", "nobody", "knows", "what", "for,", "I", "think."], ends=False
        ),
    ]
    async with house(testing.stream(*long, ends=False), testing.stream(*other)) as (weir, _, _):
        answer = await testing.ask(weir, ASK)
    assert (answer.is_whole, b"says something else" in answer.body or b"closed the connection" in answer.body) == (
        False,
        True,
    )


async def test_a_third_one_goes_on_where_the_second_breaks_too():
    second = testing.stream(ROLE, *SECOND[:7], ends=False)
    third = testing.stream(ROLE, *testing.chat_events([" it."]))
    async with house(BREAKS["cut"], second, third) as (weir, (_, _, last), _):
        answer = await testing.ask(weir, ASK)
    assert (answer.is_whole, said(answer.body)) == (True, WHOLE)
    assert last.last.json()["messages"][-1]["content"] == "A weir stands in a stream, regulates it and measures"


async def test_where_nobody_can_go_on_the_stream_breaks_off_as_it_would():
    down = testing.answer(b'{"error": {"message": "busy"}}', status=503)
    async with house(BREAKS["cut"], down) as (weir, _, _):
        answer = await testing.ask(weir, ASK)
    assert (answer.is_whole, said(answer.body), answer.body.count(b'"error"')) == (False, SENT, 1)


async def test_an_error_in_the_stream_is_told_once_in_the_upstreams_words_where_nobody_goes_on():
    async with house(BREAKS["an error in the stream"]) as (weir, _, _):
        answer = await testing.ask(weir, ASK)
    assert (said(answer.body), answer.body.count(b"out of memory"), answer.body.count(b'"error"')) == (SENT, 1, 1)


async def test_the_usage_is_that_of_both_and_so_is_the_ledgers():
    usage = testing.chat_event({}).replace(
        b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]',
        b'"choices":[],"usage":{"prompt_tokens":13,"completion_tokens":8,"total_tokens":21}',
    )
    second = testing.stream(ROLE, *SECOND[:-1], usage, SECOND[-1])
    async with house(BREAKS["cut"], second) as (weir, _, out):
        answer = await testing.ask(weir, {**ASK, "stream_options": {"include_usage": True}})
        await wire.until(lambda: b'"ledger"' in out.getvalue())
    (told,) = [orjson.loads(line[6:])["usage"] for line in answer.body.splitlines() if b'"usage":{' in line]
    assert told == {"prompt_tokens": 13 + 10, "completion_tokens": 8 + 3, "total_tokens": 34}
    (line,) = [line for each in out.getvalue().splitlines() if (line := orjson.loads(each))["log"] == "ledger"]
    assert (line["outcome"], line["tokens"]["output"], line["upstream"]) == ("ok", 11, "u1")
    assert [attempt["fault"] for attempt in line["attempts"]] == ["broken", None]


async def ledger(out: io.BytesIO) -> dict:
    await wire.until(lambda: b'"ledger"' in out.getvalue())
    (line,) = [line for each in out.getvalue().splitlines() if (line := orjson.loads(each))["log"] == "ledger"]
    return line


async def test_what_went_down_is_billed_where_nobody_goes_on():
    down = testing.answer(b'{"error": {"message": "busy"}}', status=503)
    async with house(BREAKS["cut"], down) as (weir, _, out):
        await testing.ask(weir, ASK)
        line = await ledger(out)
    assert (line["upstream"], line["tokens"]["output"], line["estimated"]) == ("u0", 3, True)
    assert [(attempt["status"], attempt.get("wasted_tokens")) for attempt in line["attempts"]] == [
        (200, None),
        (503, 0),
    ]


async def test_what_another_goes_on_with_is_not_wasted():
    async with house(BREAKS["cut"], testing.stream(ROLE, *SECOND)) as (weir, _, out):
        await testing.ask(weir, ASK)
        line = await ledger(out)
    assert [attempt.get("wasted_tokens") for attempt in line["attempts"]] == [0, None]


async def test_the_official_client_gets_a_whole_answer():
    async with (
        house(BREAKS["reset"], testing.stream(ROLE, *SECOND)) as (weir, _, _),
        openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(**ASK)
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(words) == WHOLE


async def test_an_app_that_leaves_while_another_is_asked_leaves_nothing_behind():
    async def never(received: testing.Received, wire: testing.Wire) -> None:
        """Says nothing."""

    async with house(BREAKS["cut"], never) as (weir, (_, other), _):
        async with wire.connected(weir.url) as client:
            body = orjson.dumps(ASK)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            await client.send(head % len(body) + body)
            answer = await client.start("POST")
            await answer.until(FIRST[-1])
            await wire.until(lambda: other.requests)
        await wire.until(lambda: not weir.in_flight)
        assert {name: upstream.in_flight for name, upstream in weir.gateway.upstreams.items()} == {"u0": 0, "u1": 0}
        await wire.until(other.wires[0].gone.is_set)


TOOL = testing.chat_event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]})


@pytest.mark.parametrize(
    "event", [TOOL, testing.chat_event({"reasoning": "hm"}), testing.chat_event({"refusal": "no"})]
)
async def test_only_text_goes_on(event):
    async with house(testing.stream(*FIRST, event, ends=False), testing.stream(ROLE, *SECOND)) as (weir, (_, other), _):
        answer = await testing.ask(weir, ASK)
    assert (answer.is_whole, other.requests) == (False, [])


@pytest.mark.parametrize("more", [
    {"stream": False}, {"n": 2}, {"tools": [{}]}, {"logprobs": True}, {"response_format": {"type": "json_object"}}, {"messages": "x"},
])  # fmt: skip
def test_requests_that_no_other_can_go_on_with(more):
    assert can_be_continued(ASK)
    assert not can_be_continued({**ASK, **more})


def test_what_the_next_upstream_is_asked():
    assert continuing({"prompt": "Once"}, " upon") == ("prompt", "Once upon")
    assert continuing(ASK, "A") == ("messages", [*ASK["messages"], {"role": "assistant", "content": "A"}])
