"""What a budget lets through, what it refuses and how, and that it counts what the ledger does."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal

import orjson
import pytest

from proxy import testing
from proxy.source import ConfigError
from tests import wire
from tests.plugins.budget.conftest import counted

CHEAP = (
    "  - {name: cheap, match: {path: /v1/cheap}, targets: [{upstream: cheap, model: small}], plugins: {budget: off}}\n"
)
SMALL = '  cheap: {base_url: "URL/v1", prices: {small: {input: "1", output: "10"}}}\n'


async def test_what_fits_passes_and_what_does_not_is_told_what_and_until_when(house):
    async with house(counted(0, 1000), "{usd: 2.5/day, time_zone: Europe/Berlin}") as home:
        assert [(await home.ask()).status for _ in range(3)] == [200, 200, 429]
        refused = await home.ask()
        assert (await home.ask(400)).status == 200, "what is cheaper still fits"
        assert home.metric("weir_rate_limited_total") == {'{limit="usd/day",principal="search-team"}': 2.0}
    assert refused.json() == {
        "error": {
            "message": "the budget 'budget' of principal 'search-team', $2.5 a day, does not pay for this request: $0.5 is "
            "left and it may cost $1.0019; it begins anew at 2026-11-29T00:00:00+01:00",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
            "param": None,
        }
    }
    assert refused.headers["retry-after"] == str(11 * 3600)
    assert refused.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/chat%2Fcompletions",
        "/openai/deployments/gpt/chat/completions",
        "/v1/engines/gpt/completions",
    ],
)
async def test_no_spelling_of_the_path_is_a_way_around_it(house, path):
    """Some servers answer there as well: what they cost is reserved like any other's, by the model that counts there."""
    async with house(counted(0, 1000), "{usd: 2.5/day}") as home:
        model = "free" if "/gpt/" in path else "gpt"
        assert [(await home.ask(path=path, model=model)).status for _ in range(3)] == [200, 200, 429]


async def test_a_new_day_is_a_new_budget(house, clock):
    async with house(counted(0, 1000), "{usd: 1.5/day}") as home:
        assert [(await home.ask()).status for _ in range(2)] == [200, 429]
        clock[0] += dt.timedelta(hours=12)
        assert [(await home.ask()).status for _ in range(2)] == [200, 429]


async def test_all_periods_must_pay(house, clock):
    async with house(counted(0, 1000), "{usd: [2/day, 2.5/week, 100/month]}") as home:
        first = [(await home.ask()).status for _ in range(2)]
        await home.ledger(2)
        clock[0] += dt.timedelta(days=1)
        second = [await home.ask(900) for _ in range(2)]
        await home.ledger(4)
        clock[0] += dt.timedelta(days=1)  # a Monday
        third = await home.ask(900)
        await home.ledger(5)
        assert home.spent() == {
            "search-team 2026-11-30": (Decimal(1), Decimal(2)),
            "search-team 2026-W49": (Decimal(1), Decimal("2.5")),
            "search-team 2026-11": (Decimal(3), Decimal(100)),
        }
    assert (first, [answer.status for answer in second], third.status) == ([200, 429], [200, 429], 200)
    assert "$2.5 a week" in second[1].json()["error"]["message"]


async def test_each_has_a_budget_of_its_own_and_some_another(house):
    async with house(counted(0, 1000), "{usd: 1.5/day, limits: {ops-team: 2.5/day, bad-team: 0/day}}") as home:
        passed = {
            who: [(await home.ask(who=who)).status for _ in range(3)]
            for who in ("search-team", "ops-team", "bad-team", "stranger")
        }
    assert passed == {
        "search-team": [200, 429, 429],
        "ops-team": [200, 200, 429],
        "bad-team": [429, 429, 429],
        "stranger": [200, 429, 429],
    }


@pytest.mark.parametrize(("by", "one", "other"), [
    ("label:feature", {"headers": {"x-feature": "search"}}, {"headers": {"x-feature": "chat"}}),
    ("label:feature", {}, {"headers": {"x-feature": "chat"}}),
    ("route", {}, {"path": "/v1/completions"}),
    ("model", {}, {"model": "gpt-mini"}),
    ("header:x-team", {"headers": {"x-team": "a"}}, {"headers": {"x-team": "b"}}),
])  # fmt: skip
async def test_whose_it_is_may_be_told_by_other_things(house, by, one, other):
    routes = "  - {name: texts, match: {path: /v1/completions}, targets: [up]}\n"
    prices = '  up2: {base_url: "URL/v1"}\n'
    async with house(counted(0, 1000), f"{{by: '{by}', usd: 1.5/day}}", routes=routes, upstreams=prices) as home:
        assert [(await home.ask(**one)).status for _ in range(2)] == [200, 429]
        assert (await home.ask(**other)).status == 200


async def test_two_hundred_at_once_spend_no_more_than_there_is(house):
    async def slow(received, wire):
        await asyncio.sleep(0.05)
        await counted(0, 1000)(received, wire)

    async with house(slow, "{usd: 20.5/day}") as home:
        statuses = [answer.status for answer in await asyncio.gather(*(home.ask() for _ in range(200)))]
        lines = await home.ledger(200)
        assert home.spent() == {"search-team 2026-11-28": (Decimal(20), Decimal("20.5"))}
    assert (statuses.count(200), statuses.count(429)) == (20, 180)
    assert sum(Decimal(line["cost_usd"]) for line in lines) == 20


async def test_an_answer_that_costs_more_than_was_reserved_overshoots_by_no_more_than_that(house):
    async with house(counted(0, 3000), "{usd: 2/day}") as home:
        statuses = [(await home.ask()).status for _ in range(3)]
        await home.ledger(3)
        assert home.spent() == {"search-team 2026-11-28": (Decimal(3), Decimal(2))}
    assert statuses == [200, 429, 429]


async def test_what_was_reserved_too_much_is_there_again(house):
    async with house(counted(10, 1), "{usd: 1.5/day}") as home:
        assert [(await home.ask()).status for _ in range(20)] == [200] * 20
        await home.ledger(20)
        assert home.spent() == {"search-team 2026-11-28": (20 * Decimal("0.002"), Decimal("1.5"))}


async def test_sums_of_parts_of_a_micro_dollar_stay_true(house):
    """0.2 micro-dollars each: rounded one by one, they would be nothing, or five times as much."""
    prices = '  mini: {base_url: "URL/v1", prices: {gpt: {input: "0.02", output: "0"}}}\n'
    routes = "  - {name: mini, match: {path: /v1/embeddings}, targets: [mini]}\n"
    async with house(counted(10, 0), "{usd: 1/day}", upstreams=prices, routes=routes) as home:
        for _ in range(12):
            assert (await home.ask(None, path="/v1/embeddings", input="x" * 40)).status == 200
        lines = await home.ledger(12)
        assert home.spent() == {"search-team 2026-11-28": (Decimal("0.000002"), Decimal(1))}
    assert sum(Decimal(line["cost_usd"]) for line in lines) == Decimal("0.0000024")


async def test_a_stream_whose_app_left_is_settled_as_the_ledger_has_it(house):
    words = testing.chat_events([f"w{number}" for number in range(40)])

    async def left_open(received, wire_):
        await testing.stream(*words[:10], pause=0.001, ends=False)(received, Open(wire_))
        await asyncio.sleep(30)

    async with house(left_open, "{usd: 10/day}") as home:
        body = orjson.dumps({"model": "gpt", "stream": True, "max_tokens": 5000, "messages": [{"content": "x" * 400}]})
        async with wire.connected(home.weir.url) as client:
            head = f"POST {testing.CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            await client.send(head.encode() + body)
            answer = await client.start("POST")
            await answer.until(words[9])
        (line,) = await home.ledger(1)
        await wire.until(lambda: home.spent()["search-team 2026-11-28"][0])
        used, _ = home.spent()["search-team 2026-11-28"]
    assert (line["outcome"], line["tokens"]["output"]) == ("client_abort", 10)
    assert used == Decimal(line["cost_usd"]) == Decimal("0.02")


class Open:
    def __init__(self, wire_):
        self.send, self.close = wire_.send, lambda: None


async def test_what_failed_attempts_wasted_is_spent_too(house):
    """The first upstream's answer breaks off before a token has gone down, and the second serves."""
    broken = testing.stream(testing.chat_event({"role": "assistant"}), ends=False)
    calls = iter([broken, counted(100, 100)])

    async def script(received, wire_):
        await next(calls)(received, wire_)

    async with house(script, "{usd: 10/day}", after="  - failover: {backoff: {first: 1ms}}\n") as home:
        answer = await home.ask(prompt=100, stream=True)
        (line,) = await home.ledger(1)
        used, _ = home.spent()["search-team 2026-11-28"]
    assert (answer.status, len(line["attempts"])) == (200, 2)
    wasted = Decimal(line["attempts"][0]["wasted_usd"])
    assert wasted > 0
    assert used == Decimal(line["cost_usd"]) + wasted


async def test_an_upstream_that_fails_costs_nothing(house):
    async with house(testing.answer(b'{"error":{"message":"busy"}}', status=503), "{usd: 1.5/day}") as home:
        assert [(await home.ask()).status for _ in range(3)] == [503] * 3
        await home.ledger(3)
        assert home.spent() == {"search-team 2026-11-28": (Decimal(0), Decimal("1.5"))}


async def test_a_refusal_by_what_comes_after_it_costs_nothing(house):
    async with house(counted(0, 1), "{usd: 1.5/day}", after="  - guard: {models: [other]}\n") as home:
        assert [(await home.ask()).status for _ in range(3)] == [403] * 3
        await home.ledger(3)
        assert home.spent() == {"search-team 2026-11-28": (Decimal(0), Decimal("1.5"))}


async def test_what_costs_nothing_is_served_when_all_is_spent(house):
    routes = "  - {name: static, match: {path: /v1/completions}, targets: [{static: sorry}]}\n"
    async with house(counted(0, 3000), "{usd: 2/day}", routes=routes) as home:
        assert [(await home.ask()).status for _ in range(2)] == [200, 429]
        assert (await home.ask(model="free")).status == 200
        assert (await testing.ask(home.weir, {"model": "gpt", "prompt": "x"}, path="/v1/completions")).status == 200
        assert (await testing.ask(home.weir, {"input": "x"}, path="/v1/moderations")).status == 200
        assert (await home.ask(path="/v1/responses/resp_1/cancel")).status == 200


@pytest.mark.parametrize(
    ("before", "again"), [("  - cache\n", (200, "hit")), ("", (429, None))], ids=["before", "behind"]
)
async def test_a_cached_answer_is_served_when_all_is_spent_where_the_cache_stands_before(house, before, again):
    answer = orjson.dumps({"message": {"role": "assistant", "content": "yes"}, "index": 0, "finish_reason": "stop"})
    script = counted(0, 1500, choices=[orjson.Fragment(answer)])
    async with house(script, "{usd: 2/day}", before=before, after="" if before else "  - cache\n") as home:
        assert (await home.ask()).status == 200
        await home.settled("1.5")
        told = await home.ask()
        assert (told.status, told.headers.get("x-weir-cache")) == again
        assert (await home.ask(999)).status == 429


async def test_without_a_limit_an_answer_is_taken_to_be_as_long_as_the_last_ones(house):
    async with house(counted(0, 100), "{usd: 1.05/day}") as home:
        assert (await home.ask(None)).status == 200, "1000 tokens, since nobody knows"
        await home.settled("0.1")
        for _ in range(9):
            assert (await home.ask(None)).status == 200
        assert (await home.ask(None)).status == 429, "$0.05 is left, and answers are 100 tokens long"


async def test_of_several_targets_the_dearest_counts(house):
    routes = "  - {name: two, match: {path: /v1/completions}, targets: [cheap, up]}\n"
    prices = '  cheap: {base_url: "URL/v1", prices: {"*": {input: "1", output: "10"}}}\n'
    async with house(counted(0, 1000), "{usd: 0.5/day}", routes=routes, upstreams=prices) as home:
        assert (await home.ask(path="/v1/completions")).status == 429
        assert (await home.ask(100, path="/v1/completions")).status == 200


async def test_a_request_that_no_budget_pays_for_is_told_so(house):
    async with house(counted(0, 1), "{usd: 1.5/day}") as home:
        told = (await home.ask(2000)).json()["error"]["message"]
    assert "it may cost $2.0019; all of it would not be enough: ask for fewer tokens" in told


# -- what has no price


async def test_what_has_no_price_passes_and_is_not_counted(house):
    async with house(counted(0, 1000, model="mystery"), "{usd: 0.5/day}") as home:
        assert [(await home.ask(model="mystery")).status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("path", [testing.CHAT, "/v1/audio/speech", "/v1/embeddings"])
async def test_what_has_no_price_may_be_refused_before_it_costs_anything(house, path):
    async with house(counted(0, 1000), "{usd: 0.5/day, unpriced: reject}") as home:
        refused = await home.ask(model="mystery", path=path)
        assert (await home.ask(100)).status == 200
        assert (await home.ask(model="free")).status == 200
        assert len(home.upstream.requests) == 2
    assert (refused.status, refused.json()["error"]["code"], refused.json()["error"]["param"]) == (
        403,
        "model_not_priced",
        "model",
    )
    assert refused.json()["error"]["message"].startswith("the model 'mystery' has no price at the upstream 'up', and ")


# -- downgrade


async def test_beyond_it_a_cheaper_route_serves(house):
    async with house(counted(0, 1000), "{usd: 1.5/day, downgrade_to: cheap}", routes=CHEAP, upstreams=SMALL) as home:
        answers = [await home.ask() for _ in range(3)]
        lines = await home.ledger(3)
        assert home.spent() == {"search-team 2026-11-28": (Decimal(1), Decimal("1.5"))}
        assert home.metric("weir_budget_detours_total") == {'{budget="budget"}': 2.0}
        assert home.metric("weir_rate_limited_total") == {}
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.headers.get("x-weir-detour") for answer in answers] == [None, "cheap", "cheap"]
    assert [(line["route"], line["detour"], line["upstream"], line["model"]) for line in lines] == [
        ("default", None, "up", "gpt"),
        ("default", "cheap", "cheap", "small"),
        ("default", "cheap", "cheap", "small"),
    ]


# -- start


STARTS = {
    "no prices": ("who, budget: {usd: 5/day}", "plugin 'budget' needs 'prices', which none before it gives on route 'default'"),
    "prices too late": ("who, budget: {usd: 5/day}, metering", "put metering before it"),
    "nobody says who pays": ("metering, budget: {usd: 5/day}", "plugin 'budget' needs 'principal', which none before it gives"),
    "nobody has labels": ("metering, budget: {by: 'label:x', usd: 5/day}", "plugin 'budget' needs 'principal'"),
    "no such route": ("who, metering, budget: {usd: 5/day, downgrade_to: defualt}", "no route is named 'defualt'; did you mean 'default'?"),
}  # fmt: skip


@pytest.mark.parametrize(("plugins", "told"), STARTS.values(), ids=STARTS)
async def test_what_cannot_work_is_a_start_up_error(plugins, told):
    plugins = plugins.replace("who", "who: {use: 'tests.plugins.budget.conftest:Who'}")
    listed = "".join(
        f"  - {plugin}\n" for plugin in plugins.split(", ", plugins.count("}, ") + plugins.count("metering, "))
    )
    text = f"upstreams: {{up: {{base_url: 'http://127.0.0.1:9/v1'}}}}\nplugins:\n{listed}routes: [{{name: default, targets: [up]}}]\n"
    with pytest.raises(ConfigError) as refused:
        async with testing.configured(text):
            pass
    assert told in str(refused.value)


async def test_one_that_needs_nobody_starts_without_auth(house):
    text = "upstreams: {up: {base_url: 'http://127.0.0.1:9/v1'}}\nplugins: [metering, budget: {by: route, usd: 5/day}]\nroutes: [{name: default, targets: [up]}]\n"
    async with testing.configured('server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n' + text):
        pass


# -- state and metrics


async def test_how_much_is_spent_is_a_metric_of_callers_that_the_config_names(house):
    async with house(counted(0, 1000), "{usd: [4/day, 10/week]}") as home:
        await home.ask()
        await home.ask(who="stranger")
        await wire.until(
            lambda: (
                home.metric("weir_budget_used_ratio")
                == {
                    '{budget="budget",period="day",principal="search-team"}': 0.25,
                    '{budget="budget",period="week",principal="search-team"}': 0.1,
                }
            )
        )


async def test_a_period_that_has_ended_leaves_nothing_spent(house, clock, monkeypatch):
    monkeypatch.setattr("plugins.budget.budget.ALL_TURNS", 2)
    name = '{budget="budget",period="day",principal="search-team"}'
    async with house(counted(0, 1000), "{usd: 4/day}") as home:
        await home.ask()
        await wire.until(lambda: home.metric("weir_budget_used_ratio") == {name: 0.25})
        clock[0] += dt.timedelta(days=1)
        await wire.until(lambda: home.metric("weir_budget_used_ratio") == {name: 0.0})


async def test_accounts_and_what_is_shown_of_them_are_bounded(house, monkeypatch):
    monkeypatch.setattr("plugins.budget.budget.MOST_ACCOUNTS", 5)
    monkeypatch.setattr("plugins.budget.budget.SHOWN", 3)
    async with house(counted(0, 1), "{usd: 4/day}") as home:
        for number in range(9):
            await home.ask(who=f"w{number}")
        state = home.weir.state()["plugins"]["budget"]
    assert (state["subjects"], len(state["spent"])) == (5, 3)


async def test_an_upstream_by_the_hour_is_reserved_by_the_token_and_settled_by_its_time(house):
    script = counted(0, 10)
    upstreams = '  gpu: {base_url: "URL/v1", usd_per_hour: "3600"}\n'
    routes = "  - {name: gpu, match: {model: llama}, targets: [gpu]}\n"
    async with house(script, "{usd: 9/day}", upstreams=upstreams, routes=routes) as home:
        refused = await home.ask(1000, model="llama")
        assert (await home.ask(100, model="llama")).status == 200
        (first, second) = await home.ledger(2)
    error = refused.json()["error"]
    assert (refused.status, "may cost $10" in error["message"]) == (429, True)
    assert first["cost_usd"] == "0"
    assert 0 < Decimal(second["cost_usd"]) < 1
