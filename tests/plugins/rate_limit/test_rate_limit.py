"""rate_limit as apps and operators see it, with the memory store."""

from __future__ import annotations

import asyncio
import random

import openai
import orjson
import pytest

from proxy import testing
from proxy.plugin import Plugin, PluginConfig, Response, Unauthorized
from proxy.services import Tasks
from tests import wire
from tests.plugins.rate_limit.house import (
    ASK,
    SERVES,
    SOMEBODY,
    STREAM,
    ask,
    counted,
    house,
    leaves,
    standing,
    statuses,
)

EMBED = {"model": "m", "input": "hi"}
PROMPT = -(-len(orjson.dumps(ASK)) // 4)


class Answers(Plugin[PluginConfig]):
    """A cache, say."""

    async def on_request(self, exchange):
        return Response.of_json(200, {"choices": []})


class Refuses(Plugin[PluginConfig]):
    async def on_request(self, exchange):
        raise Unauthorized("not you")


class Lingers(Plugin[PluginConfig]):
    """A ledger of one's own that is slow."""

    async def on_complete(self, exchange, outcome):
        await asyncio.sleep(60)


def behind(plugin: type) -> dict[str, dict[str, str]]:
    return {plugin.__name__.lower(): {"use": f"{__name__}:{plugin.__name__}"}}


def metric(weir, name: str) -> dict[str, float]:
    page = weir.metrics.page().decode().splitlines()
    return {
        line.rsplit(" ", 1)[0].removeprefix(name): float(line.rsplit(" ", 1)[1])
        for line in page
        if line.startswith(name)
    }


async def test_requests_over_the_limit_are_refused_and_told_why():
    async with house(requests="3/day") as (weir, upstream):
        assert await statuses(weir, 5) == [200, 200, 200, 429, 429]
        refused = await ask(weir)
    assert len(upstream.requests) == 3
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
    wait = int(refused.headers["retry-after"])
    assert error["message"] == (
        f"rate limit reached for principal 'bob': 3 requests per day; 0 left, 1 asked for; try again in {wait} s"
    )
    assert 86400 <= wait <= 86400 + 1440
    assert standing(refused) == {"limit-requests": "3", "remaining-requests": "0", "reset-requests": "24h0m0s"}


async def test_the_official_sdk_sees_a_rate_limit_error_and_when_to_come_again():
    async with house(requests="1/min", burst=1) as (weir, _):
        client = openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="any", max_retries=0)
        await client.chat.completions.create(**ASK)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**ASK)
        await client.close()
    assert refused.value.code == "rate_limit_exceeded"
    assert 60 <= int(refused.value.response.headers["retry-after"]) <= 61


async def test_the_official_sdk_comes_again_when_it_was_told_to():
    async with house(requests="1/s") as (weir, upstream):
        client = openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="any", max_retries=2)
        for _ in range(2):
            await client.chat.completions.create(**ASK)
        await client.close()
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["JSON", "stream"])
async def test_answers_say_how_the_limits_stand_instead_of_the_upstreams_own(body):
    script = testing.chat("hello world")
    if body is STREAM:
        script = testing.stream(
            *testing.chat_events(["hi"]), x_ratelimit_limit_requests="9", x_ratelimit_reset_tokens="1s"
        )
    async with house(script, requests="10/min", tokens="1000/min", concurrent=5) as (weir, _):
        answer = await ask(weir, {**body, "max_tokens": 100})
    reserved = 100 - (-len(orjson.dumps({**body, "max_tokens": 100})) // 4)
    assert standing(answer) == {
        "limit-requests": "10",
        "remaining-requests": "9",
        "reset-requests": "1m0s",
        "limit-tokens": "1000",
        "remaining-tokens": str(1000 - reserved),
        "reset-tokens": "1m0s",
        "limit-concurrent": "5",
        "remaining-concurrent": "4",
    }
    assert answer.is_whole


async def test_without_a_limit_the_upstreams_own_pass():
    script = testing.answer(b"{}", x_ratelimit_limit_requests="9")
    async with house(script, limits={"eve": {"requests": "1/s"}}) as (weir, _):
        assert standing(await ask(weir)) == {"limit-requests": "9"}
        assert standing(await ask(weir, x_team="eve"))["limit-requests"] == "1"


@pytest.mark.parametrize(
    ("settings", "one", "other"),
    [
        ({"by": "principal"}, {"x_team": "bob"}, {"x_team": "eve"}),
        ({"by": "header:x-user"}, {"x_user": "a"}, {"x_user": "b"}),
        ({"by": "header:x-user"}, {}, {"x_user": "ü" * 500}),
        ({"by": "route"}, {}, {"x_tier": "free"}),
    ],
)
async def test_whose_requests_are_counted_together(settings, one, other):
    routes = [{"name": "free", "match": {"header": {"x-tier": "free"}}, "targets": ["up"]}]
    async with house(requests="2/min", routes=routes, **settings) as (weir, _):
        assert await statuses(weir, 3, **one) == [200, 200, 429]
        assert await statuses(weir, 3, **other) == [200, 200, 429]


async def test_models_that_the_config_names_are_told_apart_and_others_are_one():
    limits = {"gpt-4o": {"requests": "2/min"}}
    async with house(by="model", requests="1/min", limits=limits) as (weir, _):
        assert await statuses(weir, 3, {**ASK, "model": "gpt-4o"}) == [200, 200, 429]
        assert await statuses(weir, 2, {**ASK, "model": "made-up"}) == [200, 429]
        assert await statuses(weir, 1, {**ASK, "model": "also-made-up"}) == [429]


async def test_who_the_app_says_it_is_changes_nothing():
    """Field case 62."""
    async with house(requests="5/min") as (weir, _):
        found = []
        for _ in range(50):
            body = {**ASK, "user": str(random.random()), "metadata": {"user_id": str(random.random())}}
            forged = {"x_forwarded_for": f"10.0.0.{random.randrange(255)}", "x_weir_user": str(random.random())}
            found += await statuses(weir, 1, body, **forged)
    assert (found.count(200), found.count(429)) == (5, 45)


async def test_what_a_header_says_is_not_said_again():
    async with house(by="header:x-secret", requests="1/min") as (weir, _):
        await ask(weir, x_secret="hunter2")
        refused = await ask(weir, x_secret="hunter2")
    assert (
        "rate limit reached for what the header 'x-secret' says: 1 requests per minute"
        in refused.json()["error"]["message"]
    )


async def test_some_have_limits_of_their_own():
    limits = {"eve": {"requests": "3/min"}, "ann": {"concurrent": 1}, "joe": {"requests": None}}
    async with house(requests="1/min", limits=limits) as (weir, _):
        assert await statuses(weir, 2) == [200, 429]
        assert await statuses(weir, 4, x_team="eve") == [200, 200, 200, 429]
        assert await statuses(weir, 2, x_team="ann") == [200, 429]
        assert await statuses(weir, 3, x_team="joe") == [200, 200, 200]


async def test_routes_share_a_limit_unless_they_override_it():
    routes = [
        {"name": "shares", "match": {"header": {"x-way": "shares"}}, "targets": ["up"]},
        {
            "name": "own",
            "match": {"header": {"x-way": "own"}},
            "targets": ["up"],
            "plugins": {"rate_limit": {"requests": "1/min"}},
        },
        {"name": "free", "match": {"header": {"x-way": "free"}}, "targets": ["up"], "plugins": {"rate_limit": False}},
    ]
    async with house(requests="2/min", routes=routes) as (weir, _):
        assert await statuses(weir, 1) == [200]
        assert await statuses(weir, 2, x_way="shares") == [200, 429]
        assert await statuses(weir, 2, x_way="own") == [200, 429]
        assert await statuses(weir, 3, x_way="free") == [200, 200, 200]


async def test_several_rate_limits_in_one_chain_count_apart_and_all_tell_how_they_stand():
    models = {"models": {"use": "rate_limit", "by": "model", "tokens": "1000/min", "requests": "2/min"}}
    async with house(SERVES, models, requests="10/min", concurrent=3) as (weir, _):
        answer = await ask(weir, {**ASK, "max_tokens": 10})
        told = standing(answer)
        assert (told["limit-requests"], told["limit-concurrent"], told["limit-tokens"]) == ("2", "3", "1000")
        assert await statuses(weir, 2) == [200, 429]
        assert standing(await ask(weir, x_team="eve"))["limit-requests"] == "2"


async def test_a_list_of_rates_holds_all_of_them():
    async with house(requests=["100/s", "2/min"]) as (weir, _):
        assert await statuses(weir, 3) == [200, 200, 429]


async def test_a_burst_is_how_many_come_at_once():
    async with house(requests="600/hour", burst=2) as (weir, _):
        assert await statuses(weir, 3) == [200, 200, 429]
        refused = await ask(weir)
    assert "600 requests per hour, 2 at once" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) <= 13


async def test_a_rejected_request_uses_nothing_of_any_limit():
    """Field case 58: A runs, B is rejected, A ends, C passes."""
    release = asyncio.Event()

    async def waits(received, wire):
        await release.wait()
        await SERVES(received, wire)

    async with house(waits, requests="2/min", tokens="100000/min", concurrent=1) as (weir, upstream):
        running = asyncio.ensure_future(ask(weir))
        await wire.until(lambda: upstream.requests)
        refused = await ask(weir)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert "1 requests at the same time; 0 left" in refused.json()["error"]["message"]
        release.set()
        assert (await running).status == 200
        assert (await ask(weir)).status == 200
        assert (await ask(weir)).status == 429


async def test_one_at_a_time_is_never_refused_while_nothing_runs():
    """Field case 54: the slot is free before the app can know that its answer is whole."""
    async with house(requests="1000/min", concurrent=1) as (weir, _):
        for _ in range(40):
            for body in (ASK, STREAM):
                assert (await ask(weir, body)).status == 200


async def test_who_is_slow_when_all_is_over_holds_neither_slots_nor_tokens(monkeypatch):
    """Field case 54."""
    monkeypatch.setattr(Tasks.drain, "__defaults__", (0.01,))  # what still runs at the end is not waited for
    async with house(counted(1, 1), behind(Lingers), tokens="600/day", concurrent=1) as (weir, _):
        assert await statuses(weir, 6, {**ASK, "max_tokens": 500}) == [200] * 6


async def test_what_was_refused_elsewhere_uses_nothing():
    async with house(SERVES, behind(Refuses), requests="1/min", concurrent=1) as (weir, _):
        assert await statuses(weir, 3) == [401, 401, 401]


async def test_what_a_plugin_answered_is_a_request_without_tokens():
    async with house(SERVES, behind(Answers), requests="2/min", tokens="1000/min") as (weir, upstream):
        assert await statuses(weir, 3) == [200, 200, 429]
    assert upstream.requests == []


async def test_a_request_without_a_route_or_an_upstream_uses_nothing():
    async with testing.upstream(SERVES) as upstream:
        config = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {"up": {"base_url": f"{upstream.url}/v1"}},
            "plugins": [SOMEBODY, {"rate_limit": {"requests": "1/min"}}],
            "routes": [{"name": "chat", "match": {"path": testing.CHAT}, "targets": ["up"]}],
        }
        async with testing.configured(orjson.dumps(config).decode()) as weir:
            for _ in range(3):
                assert (await ask(weir, path="/v1/embeddings")).status == 404
                weir.gateway.settle()
            assert await statuses(weir, 2) == [200, 429]


async def remaining(weir, limit: str = "tokens") -> int:
    """What bob has left when all is over."""
    await wire.until(lambda: not weir.in_flight)
    weir.gateway.settle()
    plugin = next(plugin for plugin in weir.plan.plugins if plugin.name == "rate_limit")
    claim = next(dimension.claim for dimension in plugin._bounds("bob").dims if dimension.name == limit)
    return (await weir.store.take("look", [claim._replace(amount=0)])).remaining[0]


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["JSON", "stream"])
async def test_the_usage_that_was_reported_is_what_counts(body):
    """Field case 59: once, prompts and answers, streams too."""
    async with house(counted(40, 5), tokens="1000/min") as (weir, _):
        for number in range(1, 4):
            assert (await ask(weir, {**body, "max_tokens": 100})).status == 200
            assert await remaining(weir) == 1000 - number * 45


async def test_of_input_and_output_each_counts_its_own():
    async with house(counted(40, 5), input_tokens="1000/min", output_tokens="100/min") as (weir, _):
        await ask(weir)
        assert (await remaining(weir, "input_tokens"), await remaining(weir, "output_tokens")) == (960, 95)


async def test_where_nobody_reports_a_usage_what_was_said_counts():
    without = testing.stream(*testing.chat_events(["word"] * 7))
    async with house(without, tokens="1000/min") as (weir, _):
        await ask(weir, STREAM)
        assert await remaining(weir) == 1000 - 1 - 7


async def test_an_app_that_leaves_pays_for_what_it_got():
    async with house(endless(), tokens="1000/min", concurrent=1) as (weir, _):
        await leaves(weir, {**STREAM, "max_tokens": 500}, after=20)
        left = await remaining(weir)
        assert await remaining(weir, "concurrent") == 1
    assert 1000 - 500 < left <= 1000 - 20


async def test_a_stream_that_breaks_off_pays_for_what_it_got():
    broken = testing.stream(*testing.chat_events(["word"] * 9, ends=False), ends=False)
    async with house(broken, tokens="1000/min") as (weir, _):
        answer = await ask(weir, {**STREAM, "max_tokens": 500})
        assert not answer.is_whole
        assert await remaining(weir) == 1000 - 1 - 9


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_an_answer_that_an_upstream_refused_has_no_tokens(status):
    refusal = testing.answer(b'{"error": {"message": "no", "type": "x", "code": "y"}}', status=status)
    async with house(refusal, tokens="1000/min", requests="9/min") as (weir, _):
        assert (await ask(weir, {**ASK, "max_tokens": 100})).status == status
        assert await remaining(weir) == 1000


async def test_tokens_are_reserved_while_a_request_runs():
    release = asyncio.Event()

    async def waits(received, wire):
        await release.wait()
        await counted(3, 2)(received, wire)

    async with house(waits, tokens="1000/min") as (weir, upstream):
        running = asyncio.ensure_future(ask(weir, {**ASK, "max_tokens": 900}))
        await wire.until(lambda: upstream.requests)
        refused = await ask(weir, {**ASK, "max_tokens": 900})
        assert (refused.status, refused.json()["error"]["type"]) == (429, "tokens")
        assert "1000 tokens per minute" in refused.json()["error"]["message"]
        release.set()
        assert (await running).status == 200
        weir.gateway.settle()
        assert (await ask(weir, {**ASK, "max_tokens": 900})).status == 200


async def test_a_request_that_is_too_much_for_the_limit_passes_while_nothing_is_used():
    """Field case 65: and then nothing more, until what it used has left the window."""
    async with house(counted(1000, 200), tokens="1000/min") as (weir, _):
        assert await statuses(weir, 2, {**ASK, "max_tokens": 5000}) == [200, 429]
        assert standing(await ask(weir))["remaining-tokens"] == "0"


async def test_answers_are_expected_to_be_as_long_as_they_were():
    async with house(counted(2, 300), output_tokens="1000/min") as (weir, _):
        first = standing(await ask(weir))
        weir.gateway.settle()
        second = standing(await ask(weir))
    assert (first["remaining-output-tokens"], second["remaining-output-tokens"]) == ("744", "400")


async def test_no_spelling_of_the_path_is_a_way_around_it():
    """Its stream reports no usage, so that only what is known to be a chat can be counted."""
    for path in ("/chat/completions", "/v1/chat%2Fcompletions", "/openai/deployments/m/chat/completions"):
        async with house(testing.stream(*testing.chat_events(["word"] * 500)), tokens="700/day") as (weir, _):
            found = []
            for _ in range(3):
                found.append((await ask(weir, {**STREAM, "max_tokens": 500}, path=path)).status)
                weir.gateway.settle()
        assert found == [200, 429, 429], path


async def test_embeddings_have_no_answer_and_other_endpoints_no_tokens():
    async with house(testing.answer(b"{}"), tokens="1000/min") as (weir, _):
        prompt = -(-len(orjson.dumps(EMBED)) // 4)
        assert standing(await ask(weir, EMBED, path="/v1/embeddings"))["remaining-tokens"] == str(1000 - prompt)
        before = await remaining(weir)
        assert standing(await ask(weir, EMBED, path="/v1/moderations"))["remaining-tokens"] == str(before)
        assert await remaining(weir) == before


async def test_requests_and_tokens_have_windows_of_their_own():
    """Field case 57: one does not end with the other."""
    async with house(counted(10, 10), requests=["1/s", "3/min"], tokens="100/min") as (weir, _):
        assert (await ask(weir, {**ASK, "max_tokens": 10})).status == 200
        weir.gateway.settle()
        refused = await ask(weir, {**ASK, "max_tokens": 10})
        assert "1 requests per second" in refused.json()["error"]["message"]
        assert standing(refused)["remaining-tokens"] == "80"


async def test_two_thousand_leave_and_nothing_is_in_flight():
    """At random moments, also while they still send."""
    async with house(endless(0.001), requests="1000000/min", tokens="100000000/min", concurrent=64) as (weir, _):
        for _ in range(50):
            async with asyncio.TaskGroup() as group:
                for _ in range(40):
                    group.create_task(leaves_at_random(weir))
        await wire.until(lambda: not weir.in_flight)
        assert await remaining(weir, "concurrent") == 64


async def test_refusals_are_counted_by_limit_and_caller():
    async with house(requests="1/min", tokens="100/min") as (weir, _):
        await statuses(weir, 3)
        for name in ("eve", "ann"):
            await statuses(weir, 2, x_team=name)
        await statuses(weir, 2, {**ASK, "max_tokens": 90}, x_team="joe")
        assert metric(weir, "weir_rate_limited_total") == {
            '{limit="requests",principal="bob"}': 2.0,
            '{limit="requests",principal="other"}': 3.0,
        }
        state = weir.state()
    assert state["plugins"]["rate_limit"] == {
        "principal: 1 requests per minute, 100 tokens per minute": {"subjects": 4, "refused": 5}
    }
    assert state["store"] == {"kind": "memory", "counts": 8, "values": 0}


def endless(pause: float = 0.0005) -> testing.Script:
    return testing.stream(*testing.chat_events(["word"] * 5000), pause=pause)


async def leaves_at_random(weir) -> None:
    reader, writer = await asyncio.open_connection(*weir.url.removeprefix("http://").split(":"))
    data = orjson.dumps({**STREAM, "max_tokens": 50})
    head = f"POST {testing.CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write((head.encode() + data)[: random.choice([50, len(head), 10_000, 10_000, 10_000])])
    await asyncio.sleep(random.choice([0, 0.001, 0.003, 0.01]))
    writer.transport.abort()
    del reader
