"""An account counts whole micro-dollars, and knows what is spent of each of its amounts."""

from __future__ import annotations

from decimal import Decimal
from zoneinfo import ZoneInfo

from plugins.budget.account import UNLIMITED, Account
from plugins.budget.settings import Amount
from proxy import testing
from proxy.store.memory import Memory
from tests.plugins.budget.conftest import NOON

DAY, MONTH = Amount(Decimal(2), "day"), Amount(Decimal(30), "month")


def account(*amounts: Amount, subject: str = "search-team", name: str = "budget") -> Account:
    return Account(name, subject, amounts or (DAY,), NOON, ZoneInfo("UTC"), [0.5, 1.0])


async def held(store: Memory, of: Account, micro: int):
    exchange = testing.exchange()
    mine = of.hold(store.claim(exchange, of.claims(micro, "local"), lambda *_: None), micro)
    await exchange.admission.decided(exchange)
    return exchange, mine


def test_it_lasts_until_its_first_period_ends_and_claims_of_all():
    made = account(DAY, MONTH)
    assert made.ends == made.purses[0].period.ends
    claims = made.claims(5, "closed")
    assert [(c.kind, c.key, c.limit, c.amount, c.seconds, c.when_down) for c in claims] == [
        ("total", "budget:search-team:usd:2026-11-28", 2_000_000, 5, 43_200.0, "closed"),
        ("total", "budget:search-team:usd:2026-11", 30_000_000, 5, 3600 * (12 + 48), "closed"),
    ]
    assert {claim.limit for claim in made.claims(0, "local")} == {UNLIMITED}


def test_what_apps_write_makes_no_endless_key():
    assert len(account(subject="x" * 10_000).claims(1, "local")[0].key) < 200


async def test_parts_of_a_micro_dollar_are_carried_on():
    store, made = Memory(lambda: 0.0), account()
    for _ in range(10):
        exchange, mine = await held(store, made, 1)
        made.release(mine)
        made.settle(mine, Decimal("0.00000025"))
        exchange.admission.settle()
    assert made.used(made.purses[0]) == 2
    await made.look(store)
    assert made.used(made.purses[0]) == 2


async def test_what_is_only_reserved_is_not_spent():
    store, made, other = Memory(lambda: 0.0), account(), account()
    exchange, mine = await held(store, other, 700_000)
    other.release(mine)
    other.settle(mine, Decimal("0.6"))
    exchange.admission.settle()
    _, waiting = await held(store, made, 500_000)
    await made.look(store)
    assert made.used(made.purses[0]) == 600_000
    made.release(waiting)
    made.release(waiting)
    await made.look(store)
    assert made.used(made.purses[0]) == 1_100_000, "nobody has told the store that it was not used"


def test_each_level_is_reached_once():
    (purse,) = account().purses
    assert [purse.reached(used) for used in (900_000, 1_000_000, 1_500_000, 2_500_000, 3_000_000)] == [
        [],
        [0.5],
        [],
        [1.0],
        [],
    ]
