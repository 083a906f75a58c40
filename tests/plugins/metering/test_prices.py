"""From what upstreams report to dollars: exact, the right name's price, and never a silent nothing."""

from __future__ import annotations

import gc
import itertools
import pathlib
import random
import tracemalloc
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plugins.metering.prices import FREE, PriceBook, PriceList, Rates, cost, rates
from proxy.plugin import ConfigError, Price, Usage
from proxy.usage import UsageReader, usage_from_body

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[3]
GOLDEN = yaml.safe_load((ROOT / "tests/golden/usage.yaml").read_text())
KINDS = {"input": "input_tokens", "output": "output_tokens", "cached_input": "cached_input_tokens"}


def reported(case: dict[str, Any]) -> Usage | None:
    if "body" in case:
        return usage_from_body(case["body"])
    reader = UsageReader()
    for event in case["stream"]:
        reader.see(event)
    return reader.total()


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_what_upstreams_report_costs_what_they_charge(case):
    usage, tokens = reported(case), case["tokens"]
    if tokens is None:
        assert usage is None
        return
    assert usage == Usage(**{KINDS.get(kind, f"{kind}_tokens"): count for kind, count in tokens.items()})
    assert cost(rates(Price(**case["price"])), usage) == Decimal(case["usd"])


def test_an_unset_price_is_its_neighbours():
    assert rates(Price(input="3", output="15")) == per_million(3, 3, 3, 15, 15)
    price = Price(input="3", cached_input="0.3", cache_write="3.75", output="15", reasoning="9")
    assert rates(price) == per_million("3", "0.3", "3.75", "15", "9")
    assert rates(Price(input="3", cached_input=0, output="15", reasoning=0)) == per_million(3, 0, 3, 15, 0)


def per_million(*usd: str | int) -> Rates:
    return Rates(*(Decimal(amount) / 10**6 for amount in usd))


def test_no_price_is_not_free():
    assert cost(None, Usage(1000, 1000)) is None
    assert cost(rates(Price(free=True)), Usage(1000, 1000, 10, 10, 10)) == Decimal(0)
    assert str(cost(FREE, Usage(1000, 1000))) == "0"


COUNT = st.integers(0, 2**53)
USD = st.decimals("0", "999999.999999999", places=9)


@given(st.tuples(COUNT, COUNT, COUNT, COUNT, COUNT), st.tuples(USD, USD, USD, USD, USD))
def test_a_cost_is_exact_and_within_bounds_whatever_is_reported(counts, usd):
    usage, found = Usage(*counts), rates(Price(**dict(zip(Price.model_fields, usd, strict=False))))
    given, made = usage.input_tokens, usage.output_tokens
    cached = min(usage.cached_input_tokens, given)
    written = min(usage.cache_write_tokens, given - cached)
    thought = min(usage.reasoning_tokens, made)
    kinds = (given - cached - written, cached, written, made - thought, thought)
    exact = sum(count * Fraction(amount) for count, amount in zip(kinds, usd, strict=True)) / 10**6
    assert Fraction(cost(found, usage)) == exact


def test_a_million_costs_add_up_to_the_last_digit():
    price, dice = rates(Price(input="0.075", cached_input="0.003625", output="0.6")), random.Random(7)
    usages = [Usage(dice.randrange(10**6), dice.randrange(10**5), dice.randrange(10**4)) for _ in range(1000)]
    total, billionths_of_a_million = Decimal(0), 0
    for usage in usages * 1000:
        total += cost(price, usage)
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        fresh = usage.input_tokens - cached
        billionths_of_a_million += fresh * 75_000_000 + cached * 3_625_000 + usage.output_tokens * 600_000_000
    assert total == Decimal(billionths_of_a_million).scaleb(-15)


def listed(*names: str) -> dict[str, Price]:
    """Each name at a price of its own."""
    return {name: Price(input=place, output=place) for place, name in enumerate(names, 1)}


def place(found: Rates | None) -> int | None:
    return None if found is None else int(found.input * 10**6)


def test_a_name_goes_before_globs_and_the_closest_glob_before_others():
    prices = PriceList(listed("*", "gpt-*", "gpt-4o*", "gpt-4o", "gpt-4o-[0-9]*", "*-mini", "gpt-4?"))
    found = {name: place(prices.named(name) or prices.matching(name)) for name in ("gpt-4o", "gpt-4o-2024", "gpt-4o-x")}
    assert found == {"gpt-4o": 4, "gpt-4o-2024": 5, "gpt-4o-x": 3}
    assert [place(prices.matching(name)) for name in ("gpt-41", "gpt-5-mini", "o4-mini", "GPT-4o", "")] == [
        7,
        2,
        6,
        1,
        1,
    ]
    assert sorted(prices.names) == ["gpt-4o"]


@pytest.mark.parametrize("order", list(itertools.permutations(("a-*", "a-*-x", "a-?-x"))))
def test_of_globs_as_close_the_longer_goes_first_in_whatever_order_they_stand(order):
    assert order[place(PriceList(listed(*order)).matching("a-b-x")) - 1] == "a-*-x"


LIST = PriceList(listed("gpt-4o", "gpt-5", "gpt-4o-*", "claude*", "gpt-4o-2024-08-06"))


@pytest.mark.parametrize(
    ("own", "sent", "served", "found"),
    [
        ((), "gpt-4o", "gpt-4o-2024-08-06", 5),  # what was served stands in the list
        ((), "gpt-4o", "gpt-4o-2099-01-01", 1),  # what was sent does: a glob comes after
        ((), "my-deployment", "gpt-4o-2099-01-01", 3),
        ((), "my-deployment", "gpt-5", 2),
        ((), "claude-x", None, 4),
        ((), None, "gpt-5", 2),
        ((), "my-deployment", None, None),
        ((), None, None, None),
        (("gpt-4o",), "gpt-4o", "gpt-5", 1),  # the upstream's own goes by what it was asked for
        (("gpt-5", "gpt-4o"), "gpt-4o", "gpt-5", 2),
        (("x", "gpt-5"), "gpt-4o", "gpt-5", 2),
        (("x", "y", "*"), "gpt-4o", "gpt-5", 3),  # its globs too go before the list
        (("x", "y", "*"), None, None, 3),
        (("x", "gpt-4*"), "my-deployment", "gpt-4o", 2),
        (("x",), "my-deployment", "gpt-5", 2),  # what it does not name is the list's
    ],
)
def test_whose_price_it_is(own, sent, served, found):
    book = PriceBook(LIST, {"gpu": PriceList(listed(*own))})
    assert place(book.find("gpu", sent, served)) == found
    assert place(book.find("gpu", sent, served)) == found  # remembered


def test_an_upstreams_prices_are_its_alone():
    book = PriceBook(LIST, {"gpu": PriceList({"*": Price(free=True)})})
    assert book.find("gpu", "gpt-4o", "gpt-4o") == FREE
    assert place(book.find("openai", "gpt-4o", "gpt-4o")) == 1


def test_what_is_remembered_of_names_is_bounded():
    book = PriceBook(PriceList(listed("*")), {})
    before = tracemalloc_of(lambda: None)
    grown = tracemalloc_of(lambda: [book.find("up", f"{number}{'x' * 10_000}", "y" * 10_000) for number in range(5000)])
    assert place(book.find("up", "x" * 10**6, None)) == 1
    assert grown - before < 4 * 2**20


def tracemalloc_of(work: Callable[[], Any]) -> int:
    """Bytes that are left after it."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_prices_file_tells_its_faults_with_line_and_fix(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text(
        'models:\n  gpt-4o: {input: 2.5, output: "10"}\n  gpt-5: {input: "1.25"}\n  "*": {free: true}\n  gpt-5: {free: true}\n'
    )
    with pytest.raises(ConfigError) as refused:
        PriceList.load(file)
    assert str(refused.value).replace(f"{file}:", "").split("\n") == [
        '2 models.gpt-4o.input: 2.5 is not in quotes, and YAML would round it; put it in quotes, as in "0.15"',
        "3 models.gpt-5: missing key 'output'; add it (output: 0 where there is none), or `free: true`",
        "5 models.gpt-5: this key is already on line 3; keep one of the two",
    ]


def test_a_prices_file_loads(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text('models:\n  gpt-4o: {input: "2.5", output: 10}\n  "o*": {free: true}\n')
    prices = PriceList.load(file)
    assert prices.named("gpt-4o") == per_million("2.5", "2.5", "2.5", 10, 10)
    assert prices.matching("o3") == FREE
