"""Money by the hour: exact to the femto-dollar, and what a token will cost is learned."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.metering.hours import FIRST_GUESS, Hours
from plugins.metering.prices import PriceBook, PriceList
from proxy.plugin import FEMTO, Price


@pytest.mark.parametrize(
    ("usd_per_hour", "seconds", "usd"),
    [("3.60", 1.0, "0.001"), ("2.50", 3600.0, "2.50"), ("1", 1.0, "0.000277777777778"), ("2.50", 0.0, "0")],
)
def test_so_much_time_costs_so_much(usd_per_hour, seconds, usd):
    assert Hours(Decimal(usd_per_hour)).cost(seconds) == Decimal(usd)


@given(st.lists(st.floats(0.0, 1000.0), max_size=200))
def test_parts_add_up_to_the_whole(parts):
    hours = Hours(Decimal("2.49"))
    together = sum((hours.cost(part) for part in parts), Decimal(0))
    assert abs(together - hours.cost(sum(parts))) <= Decimal(len(parts) + 2) / FEMTO


def test_what_a_token_will_cost_is_guessed_and_then_learned():
    hours = Hours(Decimal(3600))
    assert hours.per_token() == Decimal(str(FIRST_GUESS)).quantize(hours.per_token())
    for _ in range(200):
        hours.learn(2.0, 1000)
    hours.learn(5.0, 0)
    assert float(hours.per_token()) == pytest.approx(0.002, rel=0.01)


def test_budgets_ask_for_it_by_the_token():
    own = PriceList({"taxed": Price(input=Decimal(1), output=Decimal(2))})
    book = PriceBook(PriceList({"m": Price(free=True)}), {"gpu": own}, {"gpu": Hours(Decimal(3600))})
    time = int(Hours(Decimal(3600)).per_token() * FEMTO)
    assert book.femto("gpu", "m") == (0, time)
    assert book.femto("gpu", "taxed") == (10**9, 2 * 10**9 + time)
    assert (book.femto("up", "m"), book.femto("up", "x")) == ((0, 0), None)
