"""What an exchange cost: priced by the model that served, what failed attempts wasted told apart."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from plugins.metering.bill import bill
from plugins.metering.hours import Hours
from plugins.metering.prices import PriceBook, PriceList
from proxy import testing
from proxy.errors import ConnectFailed
from proxy.plugin import Attempt, Exchange, Outcome, Price, Target, Usage

BOOK = PriceBook(
    PriceList({"gpt-4o-2024-08-06": Price(input=Decimal(2), output=Decimal(4)), "old": Price(free=True)}),
    {"gpu": PriceList({"*": Price(input=Decimal(1), output=Decimal(1))})},
)


def ended(
    body: Any,
    *,
    path: str = testing.CHAT,
    upstream: str = "up",
    model: str | None = None,
    outcome: Outcome = Outcome.OK,
) -> Exchange:
    """An exchange with one attempt that was answered with 200."""
    exchange = testing.exchange(target=path, body=orjson.dumps(body))
    attempt = Attempt(1, Target(upstream, model), [], b"")
    attempt.status, attempt.outcome = 200, Outcome.OK
    exchange.attempts.append(attempt)
    exchange.outcome = outcome
    return exchange


def test_an_upstream_that_could_not_be_reached_did_no_work():
    exchange = ended({"messages": [{"content": "x" * 40}]}, outcome=Outcome.UPSTREAM_ERROR)
    exchange.attempts[0].status, exchange.attempts[0].error = 0, ConnectFailed("down")
    made = bill(exchange, BOOK)
    assert (made.usage, made.usd, made.is_estimated) == (Usage(), Decimal(0), False)


def test_a_static_answer_costs_nothing_and_what_failed_before_it_is_wasted():
    exchange = ended({"messages": [{"content": "x" * 40}]}, upstream="gpu")
    exchange.is_static, exchange.usage, exchange.response_bytes = True, Usage(), 400
    exchange.attempts[0].delivered_tokens = 5
    made = bill(exchange, BOOK)
    assert (made.upstream, made.usage, made.usd, made.is_estimated) == (None, Usage(), Decimal(0), False)
    assert [(spent.usage, spent.usd) for spent in made.wasted] == [(Usage(10, 5), Decimal("0.000015"))]


BY_THE_HOUR = PriceBook(
    PriceList({"llama": Price(input=Decimal(100), output=Decimal(100))}),
    {"gpu": PriceList({"taxed": Price(input=Decimal(1), output=Decimal(1))})},
    {"gpu": Hours(Decimal("3.60"))},
)


@pytest.mark.parametrize(
    ("upstream", "model", "usd"),
    [
        ("gpu", "llama", "0.000500"),
        ("gpu", "unheard of", "0.000500"),
        ("gpu", "taxed", "0.000530"),
        ("up", "llama", "0.003"),
        ("up", "unheard of", None),
    ],
)
def test_an_upstream_by_the_hour_costs_its_time_and_what_its_own_prices_add(upstream, model, usd):
    exchange = ended({"model": model}, upstream=upstream)
    exchange.usage, exchange.attempts[0].busy_seconds = Usage(20, 10), 0.5
    assert bill(exchange, BY_THE_HOUR).usd == (None if usd is None else Decimal(usd))


def test_the_time_of_what_failed_is_wasted_and_who_was_not_reached_has_none():
    exchange = ended({"messages": []}, upstream="gpu")
    exchange.usage = Usage(20, 10)
    for status, seconds in ((500, 0.25), (0, 5.0)):
        failed = Attempt(1, Target("gpu"), [], b"")
        failed.status, failed.busy_seconds = status, seconds
        exchange.attempts.insert(0, failed)
    exchange.attempts[-1].busy_seconds = 0.5
    made = bill(exchange, BY_THE_HOUR)
    assert made.usd == Decimal("0.0005")
    assert sorted(spent.usd or 0 for spent in made.wasted) == [0, Decimal("0.00025")]


PRICED = {
    "by what was served": ("up", "auto", "gpt-4o-2024-08-06", "0.000006"),
    "by what was asked for, if the other has no price": ("up", "gpt-4o-2024-08-06", "mystery", "0.000006"),
    "by the upstream's own prices first": ("gpu", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "0.000002"),
    "free": ("up", "old", None, "0"),
    "not at all": ("up", "mystery", None, None),
}


@pytest.mark.parametrize(("upstream", "asked", "served", "usd"), PRICED.values(), ids=PRICED)
def test_it_is_priced(upstream, asked, served, usd):
    exchange = ended({"model": asked}, upstream=upstream)
    exchange.usage, exchange.model = Usage(1, 1), served
    assert bill(exchange, BOOK).usd == (None if usd is None else Decimal(usd))


def test_the_model_is_the_targets_where_it_has_one():
    assert bill(ended({"model": "asked"}, model="sent"), BOOK).model == "sent"
    assert bill(ended({"model": "asked"}), BOOK).model == "asked"
    assert bill(ended({}, path="/v1/realtime?model=gpt-realtime&x=1"), BOOK).model == "gpt-realtime"


def test_what_is_paid_by_the_minute_has_no_price_here():
    assert bill(ended({"model": "whisper-1"}, path="/v1/audio/transcriptions"), BOOK).usd is None


def test_a_list_of_models_costs_nothing():
    assert bill(ended({}, path="/v1/models"), BOOK).usd == 0
