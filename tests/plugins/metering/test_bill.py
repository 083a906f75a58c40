"""What an exchange used: reported, or estimated, and priced by the model that served."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest

from plugins.metering.bill import bill
from plugins.metering.prices import PriceBook, PriceList
from proxy import testing
from proxy.errors import ConnectFailed
from proxy.plugin import Attempt, Exchange, Outcome, Price, Target, Usage

BOOK = PriceBook(
    PriceList({"gpt-4o-2024-08-06": Price(input=Decimal(2), output=Decimal(4)), "old": Price(free=True)}),
    {"gpu": PriceList({"*": Price(input=Decimal(1), output=Decimal(1))})},
)


def ended(body: Any, *, path: str = testing.CHAT, upstream: str = "up", model: str | None = None) -> Exchange:
    """An exchange with one attempt that was answered with 200."""
    exchange = testing.exchange(target=path, body=orjson.dumps(body))
    attempt = Attempt(1, Target(upstream, model), [], b"")
    attempt.status, attempt.outcome = 200, Outcome.OK
    exchange.attempts.append(attempt)
    return exchange


PROMPTS = {
    "chat": (testing.CHAT, {"messages": [{"role": "user", "content": "x" * 40}]}, 10),
    "parts": (testing.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 40}]}]}, 10),
    "a picture": (testing.CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, {"type": "text", "text": "x" * 8}]}]}, 2),
    "many messages": (testing.CHAT, {"messages": [{"role": "system", "content": "x" * 4}, {"role": "tool", "tool_call_id": "call_1", "content": "x" * 4}]}, 2),
    "nothing said": (testing.CHAT, {"messages": [{"role": "user", "content": None}]}, 0),
    "a prompt": ("/v1/completions", {"prompt": "x" * 41}, 11),
    "prompts": ("/v1/completions", {"prompt": ["x" * 20, "x" * 20]}, 10),
    "tokens": ("/v1/completions", {"prompt": [1, 2, 3]}, 3),
    "responses": ("/v1/responses", {"instructions": "x" * 4, "input": [{"role": "user", "content": [{"type": "input_text", "text": "x" * 4}]}]}, 2),
    "embeddings": ("/v1/embeddings", {"input": ["x" * 4, "x" * 8]}, 3),
    "TGI": ("/generate", {"inputs": "x" * 4, "parameters": {"stop": ["x" * 400]}}, 1),
    "not JSON's object": (testing.CHAT, ["x" * 40], 0),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "tokens"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_nobody_counted_is_taken_for_four_characters_a_token(path, body, tokens):
    made = bill(ended(body, path=path), Outcome.CLIENT_ABORT, BOOK)
    assert (made.usage.input_tokens, made.is_estimated) == (tokens, True)


def test_an_answer_without_a_usage_is_estimated_from_its_length():
    exchange = ended({"messages": [{"content": "x" * 40}]})
    exchange.response_bytes = 400
    assert bill(exchange, Outcome.OK, BOOK).usage == Usage(10, 100)


def test_vectors_are_no_output():
    exchange = ended({"input": "x" * 40}, path="/v1/embeddings")
    exchange.response_bytes = 40_000
    assert bill(exchange, Outcome.OK, BOOK).usage == Usage(10, 0)


def test_an_upstream_that_could_not_be_reached_did_no_work():
    exchange = ended({"messages": [{"content": "x" * 40}]})
    exchange.attempts[0].status, exchange.attempts[0].error = 0, ConnectFailed("down")
    made = bill(exchange, Outcome.UPSTREAM_ERROR, BOOK)
    assert (made.usage, made.usd, made.is_estimated) == (Usage(), Decimal(0), False)


def test_a_static_answer_costs_nothing_and_what_failed_before_it_is_wasted():
    exchange = ended({"messages": [{"content": "x" * 40}]}, upstream="gpu")
    exchange.is_static, exchange.usage, exchange.response_bytes = True, Usage(), 400
    exchange.attempts[0].delivered_tokens = 5
    made = bill(exchange, Outcome.OK, BOOK)
    assert (made.upstream, made.usage, made.usd, made.is_estimated) == (None, Usage(), Decimal(0), False)
    assert [(spent.usage, spent.usd) for spent in made.wasted] == [(Usage(10, 5), Decimal("0.000015"))]


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
    assert bill(exchange, Outcome.OK, BOOK).usd == (None if usd is None else Decimal(usd))


def test_the_model_is_the_targets_where_it_has_one():
    assert bill(ended({"model": "asked"}, model="sent"), Outcome.OK, BOOK).model == "sent"
    assert bill(ended({"model": "asked"}), Outcome.OK, BOOK).model == "asked"
    assert bill(ended({}, path="/v1/realtime?model=gpt-realtime&x=1"), Outcome.OK, BOOK).model == "gpt-realtime"


def test_what_is_paid_by_the_minute_has_no_price_here():
    assert bill(ended({"model": "whisper-1"}, path="/v1/audio/transcriptions"), Outcome.OK, BOOK).usd is None


def test_a_list_of_models_costs_nothing():
    assert bill(ended({}, path="/v1/models"), Outcome.OK, BOOK).usd == 0
