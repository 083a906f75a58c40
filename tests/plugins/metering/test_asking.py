"""A stream is asked for its usage where the app did not, and the app cannot tell."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from plugins.metering.asking import asked
from proxy import testing
from tests import wire

EVENTS = testing.chat_events(["to", "be", "or not [] to be"])
COUNTED = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
USAGE = testing.chat_event({}).replace(b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":null}]', b'"choices":[],"usage":' + orjson.dumps(COUNTED))  # fmt: skip
PLAIN = b"".join(EVENTS)
WITH_USAGE = b"".join((*EVENTS[:-1], USAGE, EVENTS[-1]))
REFUSAL = testing.answer(b'{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"]}]}', status=422)


def is_asked(body: bytes) -> bool:
    return bool((orjson.loads(body).get("stream_options") or {}).get("include_usage"))


def openai(size: int = 10**6, pause: float = 0.0) -> testing.Script:
    """Sends the usage to those who ask, in pieces of so many bytes."""

    async def script(received: testing.Received, wire: testing.Wire) -> None:
        body = WITH_USAGE if is_asked(received.body) else PLAIN
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        await testing.stream(*pieces, pause=pause)(received, wire)

    return script


async def strict(received: testing.Received, wire: testing.Wire) -> None:
    """As Mistral: an unknown field is an error, and the usage comes with the last chunk unasked."""
    if b"stream_options" in received.body:
        await REFUSAL(received, wire)
    else:
        await testing.stream(PLAIN.replace(b'"finish_reason":"stop"}]', b'"finish_reason":"stop"}],"usage":' + orjson.dumps(COUNTED)))(received, wire)  # fmt: skip


@pytest.mark.parametrize("body", [
    b'{"model": "gpt-4o", "stream": true}',
    b'  {"stream":true,"model":"gpt-4o","messages":[{"role":"user","content":"\\u00e9 \\"stream\\""}], "seed": 1e2 }\n',
    b'{"model":"gpt-4o","stream":true,"stream_options":null}',
    b'{"model":"gpt-4o","stream":true,"stream_options":{}}',
    b'{"model":"gpt-4o","stream":true,"stream_options":{"include_obfuscation":false}}',
])  # fmt: skip
async def test_an_app_that_did_not_ask_sees_what_it_would_see_without_weir(house, body):
    async with house(openai()) as home:
        answer = await testing.ask(home.weir, body)
        line = await home.line()
    assert answer.body == PLAIN
    assert is_asked(home.upstream.last.body)
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (7, 5, False)
    assert line["cost_usd"] == "0.0000675"


async def test_the_rest_of_the_body_goes_up_as_it_came(house):
    body = b'{ "model":"gpt-4o",  "stream":true, "x": 1.0, "x": 12345678901234567890123, "s": "\\u00e9\\/" }'
    async with house(openai()) as home:
        await testing.ask(home.weir, body)
    sent = home.upstream.last.body
    assert sent.replace(b'"stream_options":{"include_usage":true},', b"") == body
    assert home.upstream.last.headers["content-length"] == str(len(sent))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 150, 400])
async def test_the_event_is_hidden_however_the_stream_is_cut(house, size):
    async with house(openai(size)) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "stream": True})
        assert (await home.line())["tokens"]["output"] == 5
    assert answer.body == PLAIN


async def test_an_app_that_asked_gets_its_event(house):
    async with house(openai()) as home:
        answer = await testing.ask(
            home.weir, body := b'{"stream":true,"stream_options":{"include_usage":true},"model":"gpt-4o"}'
        )
        assert (await home.line())["tokens"]["output"] == 5
    assert (answer.body, home.upstream.last.body) == (WITH_USAGE, body)


async def test_an_explicit_no_goes_up_as_it_is_and_the_bill_is_an_estimate(house):
    body = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":false},"messages":[{"role":"user","content":"12345678"}]}'
    async with house(openai()) as home:
        answer = await testing.ask(home.weir, body)
        line = await home.line()
    assert (answer.body, home.upstream.last.body) == (PLAIN, body)
    assert (line["tokens"]["input"], line["tokens"]["output"], line["estimated"]) == (2, 3, True)


@pytest.mark.parametrize("body", [
    b'{"model":"gpt-4o"}',
    b'{"model":"gpt-4o","stream":false}',
    b'{"model":"gpt-4o","stream":"true"}',
    b'{"model":"gpt-4o","stream":true,"stream_options":"yes"}',
    b'{"model":"gpt-4o","messages":[{"stream":true}]}',
    b'["stream"]',
    b'{"stream":true,',
])  # fmt: skip
async def test_what_is_no_stream_or_no_request_goes_up_as_it_came(house, body):
    async with house(testing.chat("hi")) as home:
        assert (await testing.ask(home.weir, body)).status == 200
    assert home.upstream.last.body == body


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/unknown", "/generate_stream"])
async def test_only_chat_and_completions_know_the_field(house, path):
    async with house(openai()) as home:
        await testing.ask(home.weir, body := b'{"model":"gpt-4o","stream":true}', path=path)
    assert home.upstream.last.body == body


async def test_a_large_body_is_asked_for_as_well(house):
    async with house(openai()) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "pad": "x" * 200_000, "stream": True})
        assert (await home.line())["tokens"]["output"] == 5
    assert (answer.body, is_asked(home.upstream.last.body)) == (PLAIN, True)


async def test_an_upstream_that_refuses_to_be_asked_gets_what_the_app_wrote(house):
    body = b'{"model":"gpt-4o","stream":true}'
    async with house(strict) as home:
        answer = await testing.ask(home.weir, body)
        line = await home.line()
        assert (answer.status, answer.headers["x-weir-attempts"]) == (200, "2")
        assert home.upstream.last.body == body
        assert (line["tokens"]["output"], [attempt["status"] for attempt in line["attempts"]]) == (5, [422, 200])
        again = await testing.ask(home.weir, body)
        assert (again.status, again.headers["x-weir-attempts"]) == (200, "1"), "it is remembered"
    assert len(home.upstream.requests) == 3


async def test_what_the_app_did_wrong_is_told_as_the_upstream_tells_it_and_nothing_is_learnt(house):
    wrong = testing.answer(b'{"error":{"message":"no such role","type":"x","param":null,"code":null}}', status=400)
    async with house(wrong) as home:
        answer = await testing.ask(home.weir, body := b'{"model":"gpt-4o","stream":true}')
        assert (answer.status, answer.json()["error"]["message"]) == (400, "no such role")
        assert home.upstream.last.body == body
        home.upstream.script = openai()
        await testing.ask(home.weir, body)
    assert is_asked(home.upstream.last.body)


async def test_an_upstream_may_be_declared_unwilling(house):
    async with house(strict, settings="    include_usage: false\n") as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "stream": True})
        assert (await home.line())["tokens"]["output"] == 5
    assert (answer.status, len(home.upstream.requests)) == (200, 1)


async def test_asking_may_be_switched_off(house):
    async with house(openai(), metering="{include_usage: false}") as home:
        await testing.ask(home.weir, body := b'{"model":"gpt-4o","stream":true}')
        assert (await home.line())["estimated"]
    assert home.upstream.last.body == body


async def test_other_events_without_choices_pass(house):
    azure = b'data: {"choices":[],"id":"","model":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
    odd = b'data: {"choices":[],"usage":null}\n\n'
    async with house(testing.stream(azure, odd, *EVENTS[:-1], USAGE, EVENTS[-1])) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "stream": True})
        assert (await home.line())["tokens"]["output"] == 5
    assert answer.body == azure + odd + PLAIN


async def test_a_usage_beside_a_choice_that_says_nothing_is_not_seen_either(house):
    litellm = USAGE.replace(b'"choices":[]', b'"choices":[{"index":0,"delta":{}}]')
    async with house(testing.stream(*EVENTS[:-1], litellm, EVENTS[-1])) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "stream": True})
        assert (await home.line())["tokens"]["output"] == 5
    assert answer.body == PLAIN


@pytest.mark.parametrize(
    "choice",
    [
        b'{"index":0,"delta":{},"finish_reason":"stop"}',
        b'{"index":0,"delta":{"content":""}}',
        b'{"index":0,"text":""}',
    ],
)
async def test_a_usage_beside_a_choice_that_says_something_passes(house, choice):
    told = USAGE.replace(b'"choices":[]', b'"choices":[%b]' % choice)
    async with house(testing.stream(*EVENTS[:-1], told, EVENTS[-1])) as home:
        answer = await testing.ask(home.weir, {"model": "gpt-4o", "stream": True})
    assert told in answer.body


async def test_each_event_goes_down_when_it_comes(house):
    seen = asyncio.Event()

    async def waiting(received: testing.Received, wire: testing.Wire) -> None:
        await testing.stream(*EVENTS[:2], ends=False)(received, WithoutEnd(wire))
        await seen.wait()
        await wire.send(
            *(b"%x\r\n%b\r\n" % (len(event), event) for event in (EVENTS[2], EVENTS[3], USAGE, EVENTS[4], b""))
        )

    class WithoutEnd:
        def __init__(self, wire):
            self.send, self.close = wire.send, lambda: None

    body = b'{"model":"gpt-4o","stream":true}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with house(waiting) as home, wire.connected(home.weir.url) as client:
        await client.send(head + body)
        answer = await client.start("POST")
        await answer.until(EVENTS[1])
        seen.set()
        assert (await answer.whole()).body == PLAIN


def test_the_wish_is_put_where_nothing_else_changes():
    body = b'{"stream":true,"stream_options":{"include_usage":null}}'
    assert asked(body, orjson.loads(body)) is None, "what the app said stands, whatever it means"
