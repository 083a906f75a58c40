"""Answers that begin with a 200 and fail all the same: another target takes over while nothing has gone down."""

import asyncio
import gzip

import openai
import orjson
import pytest

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.plugins.failover.house import (
    ASK,
    DONE,
    DOWN,
    HELLO,
    IN_BAND,
    ROLE,
    SERVES,
    STOP,
    STREAM,
    begins,
    house,
    idle,
    sdk,
    slowly,
    way,
)

WHOLE = (ROLE, HELLO, STOP, DONE)
SERVES_STREAM = testing.stream(*WHOLE)
BEGIN = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
)


def request(body):
    text = orjson.dumps(body)
    return BEGIN % (len(text), text)


@pytest.mark.parametrize(
    "pieces",
    [
        (IN_BAND,),
        (ROLE, IN_BAND),
        (ROLE + IN_BAND,),
        (ROLE, IN_BAND[:20], IN_BAND[20:]),
        (b": processing\n\n", ROLE, IN_BAND, DONE),
        (ROLE, b'{"error": {"message": "gave up"}}\n'),
    ],
)
async def test_an_error_before_the_first_token_is_not_seen(pieces):
    async with house(testing.stream(*pieces), SERVES_STREAM, failover={"max_attempts": 2}) as (weir, a, b):
        answer = await testing.ask(weir, STREAM)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert way(answer) == (200, "b", "2")
    assert answer.body == b"".join(WHOLE)
    assert answer.is_whole
    assert (len(a.requests), len(b.requests)) == (1, 1)


CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","error":null}}\n\n'
FAILED = (
    b'event: response.failed\ndata: {"type":"response.failed","response":'
    b'{"id":"r","status":"failed","error":{"code":"rate_limit_exceeded","message":"slow down"}}}\n\n'
)
NO_QUOTA = b'event: error\ndata: {"type":"error","code":"insufficient_quota","message":"no money"}\n\n'
RESPONSE = (
    CREATED,
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","error":null}}\n\n',
)
START = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":5}}}\n\n'
BLOCK = (
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}\n\n'
)
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
MESSAGE = (
    START,
    BLOCK,
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"text":"hi"}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)


@pytest.mark.parametrize(
    ("path", "pieces", "whole"),
    [
        ("/v1/responses", (CREATED, FAILED), RESPONSE),
        ("/v1/responses", (CREATED + NO_QUOTA,), RESPONSE),
        ("/v1/responses", (CREATED,), RESPONSE),
        ("/v1/messages", (START, OVERLOADED), MESSAGE),
        ("/v1/messages", (START, BLOCK + OVERLOADED), MESSAGE),
        ("/v1/messages", (START, BLOCK), MESSAGE),
    ],
)
async def test_nor_is_one_behind_the_preamble_of_another_dialect(path, pieces, whole):
    """Field case 15: what comes before the first delta is not seen twice, and the next target answers."""
    async with house(testing.stream(*pieces), testing.stream(*whole), failover={"max_attempts": 2}) as (weir, *_):
        answer = await testing.ask(weir, {**STREAM, "input": "hi"}, path=path)
    assert way(answer) == (200, "b", "2")
    assert (answer.body, answer.is_whole) == (b"".join(whole), True)


@pytest.mark.parametrize("pieces", [(), (ROLE,), (ROLE, HELLO[:30])])
@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_that_ends_before_its_first_token_is_not_seen(pieces, ends):
    async with house(testing.stream(*pieces, ends=ends), SERVES_STREAM) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "b", "2")
    assert answer.body == b"".join(WHOLE)


@pytest.mark.parametrize("pieces", [(), (ROLE,), (b": waiting\n\n",)])
async def test_a_stream_without_a_token_in_time_gives_way(pieces):
    async with house(begins(*pieces), SERVES_STREAM, failover={"first_token": "150ms"}) as (weir, a, _):
        answer = await testing.ask(weir, STREAM)
        await wire.until(a.wires[0].gone.is_set)
    assert way(answer) == (200, "b", "2")
    assert answer.body == b"".join(WHOLE)
    assert len(a.requests) == 1


SLOW = testing.stream(*WHOLE, pause=0.15)
HASTY = {"first_token": "100ms"}


async def test_a_slow_stream_that_nobody_can_take_over_goes_on():
    async with house(SLOW, failover=HASTY, behind=[{"circuit_breaker": {"fail_max": 1}}]) as (weir, _):
        answers = [await testing.ask(weir, STREAM) for _ in range(2)]
        page = weir.metrics.page().decode()
    for answer in answers:
        assert way(answer) == (200, "a", "1")
        assert answer.body == b"".join(WHOLE)
        assert answer.is_whole
    assert 'weir_attempts_total{outcome="ok",upstream="a"} 2.0' in page


SLOW_TO_BEGIN = slowly(SERVES_STREAM, 0.3)
whichever_is_slow = pytest.mark.parametrize("slow", [SLOW, SLOW_TO_BEGIN], ids=["token", "header"])


@whichever_is_slow
async def test_nor_where_the_others_went_out_in_the_meantime(slow):
    async with house(slow, DOWN, failover=HASTY, behind=[{"circuit_breaker": {"fail_max": 1}}]) as (weir, _, b):
        breaker = weir.plan.plugins[-1]._breakers["b"]
        breaker.fail(breaker.acquire(), "for a test")
        answer = await testing.ask(weir, STREAM)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert (way(answer), answer.body, b.requests) == ((200, "a", "1"), b"".join(WHOLE), [])


async def test_nor_where_one_upstream_alone_can_serve():
    bound = {"model": "m", "input": "hi", "stream": True, "previous_response_id": "resp_1"}
    async with house(SLOW, SERVES_STREAM, failover=HASTY) as (weir, _, b):
        answer = await testing.ask(weir, bound, path="/v1/responses")
    assert (way(answer), answer.body, b.requests) == ((200, "a", "1"), b"".join(WHOLE), [])


@whichever_is_slow
async def test_nor_where_the_budget_is_spent(slow):
    async with house(slow, DOWN, failover=HASTY) as (weir, _, b):
        weir.plan.plugins[0]._budget._tokens = 0.0
        answer = await testing.ask(weir, STREAM)
    assert (way(answer), answer.body, b.requests) == ((200, "a", "1"), b"".join(WHOLE), [])


@pytest.mark.parametrize("scripts", [(begins(ROLE),), (begins(ROLE), SERVES_STREAM)], ids=["alone", "one of two"])
async def test_a_stream_without_a_token_by_the_deadline_is_a_504_that_harms_nobody(scripts):
    patient = {"deadline": "300ms", "first_token": "none"}
    async with house(*scripts, failover=patient, behind=[{"circuit_breaker": {"fail_max": 1}}]) as (weir, a, *_):
        for _ in range(2):
            answer = await testing.ask(weir, STREAM)
            assert (way(answer), answer.json()["error"]["code"]) == ((504, "a", "1"), "deadline_exceeded")
        await wire.until(a.wires[0].gone.is_set)
        assert (await idle(weir))["a"] == 0
    assert len(a.requests) == 2


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Model is overloaded", "type": "overloaded", "code": 503}},
        {"error": "no engine"},
        {"object": "error", "message": "no engine", "type": "InternalServerError", "code": 500},
        [{"error": {"code": 503, "message": "try later", "status": "UNAVAILABLE"}}],
    ],
)
async def test_a_200_that_is_an_error_is_not_seen(error):
    async with house(testing.answer(orjson.dumps(error)), SERVES) as (weir, *_):
        answer = await testing.ask(weir, ASK)
    assert way(answer)[:2] == (200, "b")
    assert answer.json()["choices"][0]["message"]["content"] == "hello world"


async def test_a_json_answer_that_breaks_off_is_not_seen():
    async def cut(received, wire):
        await wire.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"cho')
        wire.close()

    async with house(cut, SERVES) as (weir, *_):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")


async def test_an_answer_that_speaks_of_errors_is_one():
    said = orjson.dumps({"choices": [{"message": {"content": '{"error": "not mine"}'}}], "error": None})
    async with house(testing.answer(said), SERVES) as (weir, *_):
        answer = await testing.ask(weir, ASK)
    assert (way(answer), answer.body) == ((200, "a", "1"), said)


# -- after the first token


@pytest.mark.parametrize("ending", [{"ends": True}, {"ends": False}])
async def test_after_a_token_has_gone_down_nothing_is_asked_again(ending):
    async with house(testing.stream(ROLE, HELLO, pause=0.05, **ending), SERVES_STREAM) as (weir, a, b):
        answer = await testing.ask(weir, STREAM)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert way(answer) == (200, "a", "1")
    assert answer.body.startswith(ROLE + HELLO)
    assert b'"upstream_stream_interrupted"' in answer.body[len(ROLE + HELLO) :]
    assert not answer.is_whole
    assert (len(a.requests), b.requests) == (1, [])


@pytest.mark.parametrize(
    "pieces", [(ROLE, HELLO, IN_BAND), (ROLE + HELLO + IN_BAND,)], ids=["later", "in the same read"]
)
async def test_an_error_after_a_token_is_passed_on(pieces):
    async with house(testing.stream(*pieces, pause=0.05), SERVES_STREAM) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
    assert answer.body == ROLE + HELLO + IN_BAND
    assert not b.requests


async def test_a_last_try_that_fails_is_told_as_it_came():
    async with house(DOWN, testing.stream(ROLE, IN_BAND)) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "b", "3")
    assert answer.body == ROLE + IN_BAND


async def test_a_last_200_that_is_an_error_goes_down_as_the_failure_that_it_is():
    error = orjson.dumps({"error": {"message": "Model is overloaded", "type": "overloaded", "code": 503}})
    async with house(testing.answer(error), failover={"max_attempts": 1}) as (weir, _):
        answer = await testing.ask(weir, ASK)
        await idle(weir)
        page = weir.metrics.page().decode()
    assert (way(answer), answer.body) == ((200, "a", "1"), error)
    assert 'weir_attempts_total{outcome="upstream_error",upstream="a"} 1.0' in page


# -- what is held, and for how long


async def test_a_beginning_is_held_until_the_first_token_and_no_longer():
    async def script(received, wire):
        await wire.send(sse.CHUNKED, sse.chunk(ROLE))
        await asyncio.sleep(0.2)
        await wire.send(sse.chunk(HELLO))
        await seen.wait()
        await wire.send(sse.chunk(STOP + DONE), sse.LAST)

    seen = asyncio.Event()
    async with house(script, SERVES_STREAM) as (weir, *_), wire.connected(weir.url) as app:
        await app.send(request(STREAM))
        async with asyncio.timeout(5):
            answer = await app.start()
            assert await answer.until(b"\n\n") == ROLE + HELLO
            seen.set()
            assert (await answer.whole()).body == b"".join(WHOLE)


async def test_the_last_try_is_not_held():
    async with house(DOWN, begins(ROLE), failover={"max_attempts": 2}) as (weir, *_), wire.connected(weir.url) as app:
        await app.send(request({**STREAM, "messages": []}))
        async with asyncio.timeout(5):
            assert await (await app.start()).until(b"\n\n") == ROLE


async def test_a_beginning_that_is_too_long_goes_down():
    long = b": %b\n\n" % bytes(3000)
    little = {"hold_bytes": "2KiB"}
    async with house(begins(ROLE, long), SERVES_STREAM, failover=little) as (weir, *_), wire.connected(weir.url) as app:
        await app.send(request(STREAM))
        async with asyncio.timeout(5):
            assert await (await app.start()).until(long) == ROLE + long


async def test_answers_are_asked_for_uncompressed():
    async with house(SERVES_STREAM, SERVES_STREAM) as (weir, a, _):
        await testing.ask(weir, STREAM, headers={"accept-encoding": "gzip, br"})
    assert a.last.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("coding", "number"), [("gzip", "2"), ("br", "1")], ids=["gzip", "an unknown coding"])
async def test_one_that_comes_compressed_all_the_same_is_looked_at_where_it_can_be(coding, number):
    packed = gzip.compress(b"".join((ROLE, IN_BAND)))
    zipped = testing.answer(packed, content_type="text/event-stream", content_encoding=coding)
    async with house(zipped, SERVES_STREAM, failover={"max_attempts": 2}) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "b" if number == "2" else "a", number)
    assert answer.body == (b"".join(WHOLE) if number == "2" else packed)


async def test_an_app_that_leaves_ends_the_try_and_what_would_follow():
    async with house(begins(ROLE), SERVES_STREAM) as (weir, a, b):
        async with wire.connected(weir.url) as app:
            await app.send(request(STREAM))
            await wire.until(lambda: a.requests)
            app.leave()
        await wire.until(a.wires[0].gone.is_set)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert not b.requests


async def test_an_app_that_leaves_during_a_pause_is_not_asked_for():
    slow = {"backoff": {"first": "10s", "most": "10s"}}
    async with house(DOWN, failover=slow) as (weir, a):
        async with wire.connected(weir.url) as app:
            await app.send(request(ASK))
            await wire.until(lambda: a.requests)
            app.leave()
        assert await idle(weir) == {"a": 0}
    assert len(a.requests) <= 2


# -- hold: full


async def test_with_a_full_hold_a_cut_answer_is_replaced():
    cut = testing.stream(ROLE, HELLO, ends=False)
    async with house(cut, SERVES_STREAM, failover={"hold": "full"}) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "b", "2")
    assert answer.body == b"".join(WHOLE)
    assert answer.is_whole


async def test_with_a_full_hold_the_last_cut_is_told():
    cut = testing.stream(ROLE, HELLO, ends=False)
    async with house(DOWN, cut, failover={"hold": "full"}) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "b", "3")
    assert answer.body.startswith(ROLE + HELLO)
    assert b'"upstream_stream_interrupted"' in answer.body
    assert not answer.is_whole


async def test_a_full_hold_ends_where_an_answer_grows_too_long():
    long = [testing.chat_event({"content": "x" * 500}) for _ in range(8)]
    cut = testing.stream(ROLE, *long, ends=False, pause=0.005)
    async with house(cut, SERVES_STREAM, failover={"hold": "full", "hold_full_bytes": "2KiB"}) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "a", "1")
    assert answer.body.startswith(ROLE + b"".join(long))
    assert not b.requests


async def test_a_full_hold_gives_a_long_answer_its_time():
    long = testing.stream(ROLE + HELLO, *[HELLO] * 4, STOP, DONE, pause=0.15)
    async with house(long, SERVES_STREAM, failover={"hold": "full", "first_token": "700ms"}) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert way(answer) == (200, "a", "1")
    assert answer.is_whole


# -- the official SDK


async def test_the_sdk_streams_what_the_next_target_says():
    async with house(testing.stream(ROLE, IN_BAND), SERVES_STREAM) as (weir, *_), sdk(weir) as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**STREAM)]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.role for delta in deltas].count("assistant") == 1
    assert "".join(delta.content or "" for delta in deltas) == "hello"


async def test_the_sdk_raises_where_a_stream_breaks_off_after_a_token():
    cut = testing.stream(ROLE, HELLO, ends=False, pause=0.05)
    async with house(cut, SERVES_STREAM) as (weir, *_), sdk(weir) as client:
        stream = await client.chat.completions.create(**STREAM)
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass
