"""Levels that are reached are logged, counted and told once; also where several Weirs share a store."""

from __future__ import annotations

import logging

import pytest

from plugins.budget import alarms
from proxy import testing
from proxy.plugin import Services
from tests import wire
from tests.plugins.budget.conftest import counted


@pytest.fixture
async def hooks():
    """What webhooks were told."""
    async with testing.upstream(testing.answer(b"ok")) as server:
        yield server


async def test_each_level_is_told_once(house, hooks, caplog):
    caplog.set_level(logging.WARNING, "weir.budget")
    settings = f'{{usd: 10/day, warn_at: [50%, 80%, 99.5%], webhook: "{hooks.url}/secret"}}'
    async with house(counted(0, 1000), settings) as home:
        for count in range(1, 10):
            await home.ask()
            await home.settled(str(count))
        await wire.until(lambda: len(hooks.requests) == 2)
        assert home.metric("weir_budget_warnings_total") == {
            '{budget="budget",level="50%"}': 1.0,
            '{budget="budget",level="80%"}': 1.0,
        }
    assert [told.json()["level"] for told in hooks.requests] == ["50%", "80%"]
    assert hooks.requests[1].json() == {
        "text": "Budget 'budget' of principal 'search-team': 80% of $10 spent ($8) in 2026-11-28; it begins anew at "
        "2026-11-29T00:00:00+00:00",
        "budget": "budget",
        "by": "principal",
        "subject": "search-team",
        "level": "80%",
        "used_usd": "8",
        "limit_usd": "10",
        "period": "2026-11-28",
        "ends": "2026-11-29T00:00:00+00:00",
    }
    assert [record.message for record in caplog.records] == ["a budget has reached 50%", "a budget has reached 80%"]
    assert "secret" not in caplog.text


async def test_levels_that_are_passed_together_are_told_one_by_one(house, hooks):
    settings = f'{{usd: [2/day, 4/week], warn_at: [100%, 50%], webhook: "{hooks.url}"}}'
    async with house(counted(0, 2000), settings) as home:
        await home.ask()
        await wire.until(lambda: len(hooks.requests) == 3)
    told = sorted((told.json()["period"], told.json()["level"]) for told in hooks.requests)
    assert told == [("2026-11-28", "100%"), ("2026-11-28", "50%"), ("2026-W48", "50%")]


async def test_the_first_ordinary_request_that_is_refused_shows_that_all_is_spent(house, hooks):
    async with house(counted(0, 990), f'{{usd: 10/day, warn_at: [100%], webhook: "{hooks.url}"}}') as home:
        assert (await home.ask(20_000)).status == 429
        for _ in range(10):
            assert (await home.ask(990)).status == 200
        assert not hooks.requests, "what would never fit says nothing"
        assert [(await home.ask(990)).status for _ in range(3)] == [429] * 3
        await wire.until(lambda: hooks.requests)
    assert [(told.json()["level"], told.json()["used_usd"]) for told in hooks.requests] == [("100%", "9.9")]


async def test_of_several_that_share_a_store_one_tells_it(house, hooks, monkeypatch):
    """Two Weirs, and what they keep in one memory."""
    shared = []
    made = Services.__init__

    def sharing(self, *arguments, **named):
        made(self, *arguments, **named)
        shared.append(self.store)
        self.store = shared[0]

    monkeypatch.setattr(Services, "__init__", sharing)
    settings = f'{{usd: 10/day, warn_at: [50%], webhook: "{hooks.url}"}}'
    async with house(counted(0, 3000), settings) as one, house(counted(0, 3000), settings) as two:
        await one.ask()
        await one.settled("3")
        await two.ask()
        await two.settled("6")
        await one.ask()
        await one.settled("9")
        await wire.until(lambda: hooks.requests)
        assert sum(sum(home.metric("weir_budget_warnings_total").values()) for home in (one, two)) == 1
    assert len(hooks.requests) == 1


async def test_a_webhook_that_is_away_is_tried_again_and_then_told_without_its_url(house, hooks, caplog, monkeypatch):
    monkeypatch.setattr(alarms, "PAUSES", (0.0, 0.0))
    hooks.script = testing.answer(b"no", status=500)
    async with house(counted(0, 1000), f'{{usd: 2/day, warn_at: [50%], webhook: "{hooks.url}/secret"}}') as home:
        await home.ask()
        await wire.until(lambda: "cannot be told" in caplog.text)
    assert len(hooks.requests) == 2
    assert "secret" not in caplog.text
