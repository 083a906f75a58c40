"""What one exchange cost: what it used, and what its attempts wasted, priced by the model that served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from plugins.metering.prices import FREE, cost
from proxy.plugin import PAID, SAVED, Consumed, Usage, asked_model, consumed

if TYPE_CHECKING:
    from decimal import Decimal

    from plugins.metering.prices import PriceBook
    from proxy.plugin import Attempt, Exchange

LONGEST = 256
"""Characters of a model's name: apps and upstreams may write what they will."""

_NOTHING = Usage()


class Spent(NamedTuple):
    """`usd` None: no price."""

    usage: Usage
    usd: Decimal | None


@dataclass(slots=True)
class Bill:
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
    saved: Spent | None = None


def bill(exchange: Exchange, book: PriceBook) -> Bill:
    used, attempt = consumed(exchange), exchange.served_by
    wasted = _wasted(exchange, used, book) if used.wasted else ()
    if attempt is None:
        model, nothing, saved = _asked(exchange, None), cost(FREE, used.usage), _saved(exchange, book)
        return Bill(None, model, None, used.usage, used.is_estimated, nothing, wasted, saved)
    upstream, model, served = attempt.target.upstream, _asked(exchange, attempt), exchange.model
    if served is not None:
        served = served[:LONGEST]
    rates = book.find(upstream, model, served) if _is_paid(exchange, used) else FREE
    usd = cost(rates, used.usage)
    if usd is not None and attempt.busy_seconds:
        usd += _time(attempt, book)
    return Bill(upstream, model, served, used.usage, used.is_estimated, usd, wasted)


def _asked(exchange: Exchange, attempt: Attempt | None) -> str | None:
    model = (attempt and attempt.target.model) or asked_model(exchange.request)
    return model and model[:LONGEST]


def _saved(exchange: Exchange, book: PriceBook) -> Spent | None:
    """What an answer that was there already would have cost."""
    saved = exchange.get(SAVED, None)
    if saved is None:
        return None
    return Spent(saved.usage, cost(book.expected(saved.upstream, saved.model, saved.served), saved.usage))


def _is_paid(exchange: Exchange, used: Consumed) -> bool:
    return used.did_work and (exchange.request.endpoint in PAID or exchange.usage is not None)


def _wasted(exchange: Exchange, used: Consumed, book: PriceBook) -> tuple[Spent, ...]:
    served_by = exchange.served_by
    failed = [attempt for attempt in exchange.attempts if attempt is not served_by]
    return tuple([_spent(exchange, *both, book) for both in zip(failed, used.wasted, strict=True)])


def _spent(exchange: Exchange, attempt: Attempt, usage: Usage, book: PriceBook) -> Spent:
    upstream = attempt.target.upstream
    rates = FREE if usage == _NOTHING else book.find(upstream, _asked(exchange, attempt), None)
    usd = cost(rates, usage)
    return Spent(usage, usd if usd is None else usd + _time(attempt, book))


def _time(attempt: Attempt, book: PriceBook) -> Decimal:
    """Of an upstream that is paid by the hour; one that could not be reached has spent none of it."""
    return book.time(attempt.target.upstream, attempt.busy_seconds if attempt.status else 0.0)
