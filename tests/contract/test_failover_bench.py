"""The sixteen faults of Failover Bench, each as its caller and the failing provider see it, with short times.

Route: a primary, then a fallback with a model of its own; plugins: metering, failover, circuit_breaker. The caller is the
official SDK without retries of its own. A stream that breaks off after tokens have gone down is told as an error; with
`hold: full` it is replaced.
"""

import asyncio
from dataclasses import dataclass

import openai
import orjson
import pytest

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.plugins.failover.house import Scripted, house, refusal, sdk, silent, slowly

WORDS = [f"word{number}" for number in range(60)]
TEXT = " ".join(WORDS)
USAGE = {"prompt_tokens": 20, "completion_tokens": 60, "total_tokens": 80}
QUICK = {"hold": "none", "first_token": "1s"}
FULL = {"hold": "full", "first_token": "1s"}
CURTAIN = b"data: [DONE]\n\n"
PROMPT = [{"role": "user", "content": "Say sixty words."}]


def told(model, first=0, last=60):
    """The events of the words from `first` up to `last`."""
    role = [{"role": "assistant", "content": ""}] if not first else []
    deltas = [*role, *({"content": f" {word}" if word != WORDS[0] else word} for word in WORDS[first:last])]
    return [chunk(model, [{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]


def chunk(model, choices, **more):
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, **more}
    return b"data: %b\n\n" % orjson.dumps(value)


def closing(model):
    return [chunk(model, [{"index": 0, "delta": {}, "finish_reason": "stop"}]), chunk(model, [], usage=USAGE)]


def answers(model="primary"):
    return testing.stream(*told(model), *closing(model), CURTAIN)


def breaks_off(after=40):
    """Dies behind so many words."""
    return testing.stream(b"".join(told("primary", 0, after)), ends=False, pause=0.05)


async def resets(received, wire):
    wire.reset()


async def stalls(received, wire):
    await wire.send(sse.CHUNKED, *map(sse.chunk, told("primary", 0, 20)))


@dataclass
class Called:
    """What the caller has in the end."""

    text: str = ""
    model: str = ""
    usage: int = 0
    error: openai.APIError | None = None
    seconds: float = 0.0


async def call(weir):
    called, loop = Called(), asyncio.get_running_loop()
    began = loop.time()
    async with sdk(weir) as client:
        try:
            stream = await client.chat.completions.create(
                model="primary", messages=PROMPT, stream=True, stream_options={"include_usage": True}
            )
            async for part in stream:
                called.model = part.model
                called.text += "".join(choice.delta.content or "" for choice in part.choices)
                called.usage = part.usage.completion_tokens if part.usage else called.usage
        except openai.APIError as error:
            called.error = error
    called.seconds = loop.time() - began
    return called


def bench(primary, fallback=None, *, failover=QUICK, breaker=None, upstream=None, windows=(None, None)):
    targets = [{"model": "primary"}, {"model": "fallback"}]
    for target, window in zip(targets, windows, strict=True):
        target.update({"context_window": window} if window else {})
    return house(
        primary,
        fallback or answers("fallback"),
        failover=failover,
        before=[{"metering": {"ledger": "none"}}],
        behind=[{"circuit_breaker": breaker or {}}],
        upstream=upstream,
        targets=targets,
    )


def is_whole(called):
    return called.error is None and called.text == TEXT and called.usage == 60


async def is_alive(weir, primary):
    primary.script = answers()
    return is_whole(await call(weir))


async def test_s01_a_429_with_retry_after_is_waited_for():
    script = Scripted(refusal(429, "rate_limit_exceeded", retry_after="2"), answers())
    async with bench(script) as (weir, *_):
        called = await call(weir)
    assert is_whole(called)
    assert called.model == "primary"
    assert len(script.at) == 2
    assert script.gaps()[0] >= 1.8


async def test_s02_a_lasting_429_is_not_hammered():
    script = Scripted(refusal(429, "rate_limit_exceeded"))
    async with bench(script) as (weir, *_):
        called = await call(weir)
    assert is_whole(called)
    assert len(script.at) <= 4


async def test_s02_nor_where_there_is_no_fallback():
    script = Scripted(refusal(429, "rate_limit_exceeded"))
    async with house(script) as (weir, _):
        called = await call(weir)
    assert isinstance(called.error, openai.RateLimitError)
    assert 2 <= len(script.at) <= 4


async def test_s03_a_single_500_is_asked_again():
    script = Scripted(refusal(500), answers())
    async with bench(script) as (weir, _, fallback):
        called = await call(weir)
    assert is_whole(called)
    assert (len(script.at), fallback.requests) == (2, [])


async def test_s04_a_lasting_503_gives_way():
    script = Scripted(refusal(503, "overloaded"))
    async with bench(script) as (weir, *_):
        called = await call(weir)
    assert is_whole(called)
    assert len(script.at) <= 6


async def test_s04_with_nowhere_to_go_it_is_told():
    async with house(refusal(503, "overloaded", "all busy")) as (weir, _):
        called = await call(weir)
    assert called.error.status_code == 503
    assert "all busy" in str(called.error)


@pytest.mark.parametrize(("is_safe", "tries"), [(True, 2), (False, 1)])
async def test_s05_a_reset_is_answered_where_asking_twice_does_no_harm(is_safe, tries):
    async with bench(Scripted(resets, answers()), upstream={"replay_safe": is_safe}) as (weir, primary, fallback):
        called = await call(weir)
    assert is_whole(called) is is_safe
    assert len(primary.requests) + len(fallback.requests) == tries
    assert is_safe or called.error.status_code == 502


async def test_s06_a_silent_route_costs_one_limit():
    async with bench(silent) as (weir, primary, _):
        called = await call(weir)
    assert is_whole(called)
    assert len(primary.requests) == 1
    assert called.seconds < 10


async def test_s07_a_slow_first_token_costs_one_limit():
    async def slow(received, wire):
        await wire.send(sse.CHUNKED, sse.chunk(told("primary")[0]))
        await slowly(answers(), 60)(received, wire)

    async with bench(slow) as (weir, primary, _):
        called = await call(weir)
    assert is_whole(called)
    assert called.model == "fallback"
    assert len(primary.requests) == 1
    assert called.seconds < 10


async def test_s08_half_an_answer_is_no_answer():
    async with bench(breaks_off()) as (weir, _, fallback):
        called = await call(weir)
    assert isinstance(called.error, openai.APIError)
    assert TEXT.startswith(called.text)
    assert not fallback.requests


async def test_s08_held_it_is_replaced():
    async with bench(breaks_off(), failover=FULL) as (weir, *_):
        called = await call(weir)
    assert is_whole(called)
    assert called.model == "fallback"


@pytest.mark.parametrize(("failover", "is_rescued"), [(QUICK, False), (FULL, True)])
async def test_s09_a_stall_ends_and_harms_nobody_else(failover, is_rescued):
    async with bench(stalls, failover=failover, upstream={"timeouts": {"idle": "400ms"}}) as (weir, primary, _):
        called = await call(weir)
        assert await is_alive(weir, primary)
    assert is_whole(called) is is_rescued
    assert (called.error is None) is is_rescued
    assert called.seconds < 10


async def test_s10_a_broken_event_passes_as_it_came():
    events = [
        *told("primary", 0, 10),
        b'data: {"choices": [{"index": 0,\n\n',
        *told("primary", 10),
        *closing("primary"),
    ]
    async with bench(testing.stream(*events, CURTAIN)) as (weir, primary, fallback):
        asked = {"model": "primary", "messages": PROMPT, "stream": True, "stream_options": {"include_usage": True}}
        answer = await testing.ask(weir, asked)
        assert await is_alive(weir, primary)
    assert answer.body == b"".join([*events, CURTAIN])
    assert answer.is_whole
    assert not fallback.requests


async def test_s11_a_missing_done_is_no_fault():
    async with bench(testing.stream(*told("primary"), *closing("primary"))) as (weir, _, fallback):
        called = await call(weir)
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert is_whole(called)
    assert 'weir_tokens_total{kind="output",model="primary",principal="none",route="main",upstream="a"} 60.0' in page
    assert 'weir_attempts_total{outcome="ok",upstream="a"} 1.0' in page
    assert called.seconds < 10
    assert not fallback.requests


async def test_s12_a_prompt_that_is_too_long_goes_to_a_larger_model_at_once():
    too_long = refusal(400, "context_length_exceeded", "maximum context length is 8192 tokens")
    async with bench(too_long, windows=(8192, 128_000)) as (weir, primary, _):
        called = await call(weir)
        assert is_whole(called)
        assert len(primary.requests) == 1
        assert await is_alive(weir, primary)
        assert len(primary.requests) == 2


async def test_s12_and_to_no_smaller_one():
    too_long = refusal(400, "context_length_exceeded", "maximum context length is 8192 tokens")
    async with bench(too_long, windows=(8192, 4096)) as (weir, primary, fallback):
        called = await call(weir)
    assert called.error.code == "context_length_exceeded"
    assert (len(primary.requests), fallback.requests) == (1, [])


async def test_s13_a_content_filter_has_the_last_word():
    async with bench(refusal(400, "content_policy_violation", "blocked")) as (weir, primary, fallback):
        called = await call(weir)
    assert called.error.code == "content_policy_violation"
    assert (len(primary.requests), fallback.requests) == (1, [])


@pytest.mark.parametrize(("failover", "is_rescued"), [(QUICK, False), (FULL, True)])
async def test_s14_no_fallback_is_asked_to_go_on_with_a_strangers_words(failover, is_rescued):
    async def picky(received, wire):
        is_user = received.json()["messages"][-1]["role"] == "user"
        script = answers("fallback") if is_user else refusal(400, "prefill", "no prefill, please")
        await script(received, wire)

    async with bench(breaks_off(), picky, failover=failover) as (weir, *_):
        called = await call(weir)
    assert is_whole(called) is is_rescued
    assert is_rescued or "prefill" not in str(called.error)


async def test_s15_a_primary_that_comes_back_is_used_again():
    breaker = {"fail_max": 3, "reset_timeout": "2s"}
    async with bench(refusal(503), breaker=breaker) as (weir, primary, _):
        during = [await call(weir) for _ in range(20)]
        assert all(map(is_whole, during))
        assert len(primary.requests) < 10
        primary.script = answers()
        async with asyncio.timeout(wire.SECONDS):
            while (called := await call(weir)).model != "primary":  # noqa: ASYNC110 - polled, bounded
                await asyncio.sleep(0.05)
    assert is_whole(called)


async def test_s16_the_fallbacks_name_and_usage_are_told():
    async with bench(refusal(503)) as (weir, primary, _):
        called = await call(weir)
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert is_whole(called)
    assert called.model == "fallback"
    assert len(primary.requests) <= 6
    assert 'weir_tokens_total{kind="output",model="fallback",principal="none",route="main",upstream="b"} 60.0' in page
    assert 'upstream="a"' not in "".join(line for line in page.splitlines() if line.startswith("weir_tokens_total"))
