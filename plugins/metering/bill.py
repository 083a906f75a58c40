"""What one exchange used and cost: as the upstream reported, else estimated from what was delivered.

An estimate counts the deltas of the stream (see `exchange.delivered_tokens`) and takes the prompt for four characters a
token. A request that reached no upstream, or that an upstream refused, used nothing.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from plugins.metering.prices import FREE, cost
from proxy.plugin import Outcome, Usage

if TYPE_CHECKING:
    from decimal import Decimal

    from plugins.metering.prices import PriceBook
    from proxy.plugin import Attempt, Exchange, Request

CHARACTERS_PER_TOKEN = 4
GENERATING = frozenset({"chat", "completions", "responses", "generate", "embeddings"})
"""Endpoints whose tokens can be estimated."""

PAID = GENERATING | {"audio", "images", "realtime"}
"""Endpoints that cost something, reported or not."""

_PROMPTS = ("messages", "prompt", "input", "inputs", "instructions", "tools")
_NO_TEXT = frozenset({"role", "type", "id", "tool_call_id", "call_id", "image_url", "input_audio", "file"})
_NONE = Usage()


class Spent(NamedTuple):
    """`usd` None: no price."""

    usage: Usage
    usd: Decimal | None


class Bill(NamedTuple):
    """`model` is what the upstream was asked for, `served` what it says that it answered with; `usd` None: no price.

    `wasted`: what the attempts that did not serve had done, estimated; it is not in `usage` and `usd`.
    """

    upstream: str | None
    model: str | None
    served: str | None
    usage: Usage
    is_estimated: bool
    usd: Decimal | None
    wasted: tuple[Spent, ...] = ()


def bill(exchange: Exchange, outcome: Outcome, book: PriceBook) -> Bill:
    request, attempts, attempt = exchange.request, exchange.attempts, exchange.served_by
    if attempt is None:
        wasted = tuple(_wasted(exchange, tried, book) for tried in attempts)
        return Bill(None, _named(request), None, _NONE, is_estimated=False, usd=cost(FREE, _NONE), wasted=wasted)
    model = attempt.target.model or _named(request)
    did_work = attempt.status < 400 and attempt.error is None
    is_work = request.method == "POST" or request.endpoint == "realtime"  # GET of a response tells its usage again
    usage, is_estimated = _usage(exchange, outcome, did_work=did_work) if is_work else (_NONE, False)
    is_paid = usage is not _NONE or (is_work and did_work and request.endpoint in PAID)
    rates = book.find(attempt.target.upstream, model, exchange.model) if is_paid else FREE
    wasted = tuple(_wasted(exchange, tried, book) for tried in attempts if tried is not attempt)
    return Bill(attempt.target.upstream, model, exchange.model, usage, is_estimated, cost(rates, usage), wasted)


def _wasted(exchange: Exchange, attempt: Attempt, book: PriceBook) -> Spent:
    """An attempt whose answer had begun was paid for, as far as it came; what has gone down is in the bill."""
    went_down = attempt.outcome is Outcome.STREAM_INTERRUPTED
    if attempt.status != 200 or went_down or exchange.request.endpoint not in GENERATING:
        return Spent(_NONE, cost(FREE, _NONE))
    usage = Usage(_prompt_tokens(exchange.request), attempt.delivered_tokens)
    model = attempt.target.model or _named(exchange.request)
    return Spent(usage, cost(book.find(attempt.target.upstream, model, None), usage))


def _usage(exchange: Exchange, outcome: Outcome, *, did_work: bool) -> tuple[Usage, bool]:
    """What was reported, and whether it is an estimate: where the answer broke off, at least what was delivered."""
    reported, delivered = exchange.usage, exchange.delivered_tokens
    is_cut = outcome in {Outcome.CLIENT_ABORT, Outcome.STREAM_INTERRUPTED}
    if reported is not None:
        is_short = is_cut and reported.output_tokens < delivered
        return (dataclasses.replace(reported, output_tokens=delivered), True) if is_short else (reported, False)
    if exchange.request.endpoint not in GENERATING or not did_work:
        return _NONE, False
    made = delivered or (0 if is_cut else _characters_in_answer(exchange) // CHARACTERS_PER_TOKEN)
    return Usage(_prompt_tokens(exchange.request), made), True


def _prompt_tokens(request: Request) -> int:
    return -(-_characters(request.glimpse()) // CHARACTERS_PER_TOKEN)


def _characters_in_answer(exchange: Exchange) -> int:
    return 0 if exchange.request.endpoint == "embeddings" else exchange.response_bytes


def _characters(parsed: Any) -> int:
    """Of the prompt: all its text, wherever the API has it; a number is a token; no pictures."""
    waiting = [parsed.get(name) for name in _PROMPTS] if isinstance(parsed, dict) else []
    found = 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found += 0 if value.startswith("data:") else len(value)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(part for key, part in value.items() if key not in _NO_TEXT)
        elif type(value) is int:
            found += CHARACTERS_PER_TOKEN
    return found


def _named(request: Request) -> str | None:
    """The model that the app asked for."""
    parsed = request.glimpse()
    model = parsed.get("model") if isinstance(parsed, dict) else request.model
    if isinstance(model, str):
        return model
    return dict(urllib.parse.parse_qsl(request.query)).get("model")
