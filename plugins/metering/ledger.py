"""One JSON line per exchange: who asked for what, what served it, what it used and what it cost.

Money is text: a JSON number would be read as a binary fraction, and sums would drift. What many lines have in common is
written once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from proxy.plugin import PRINCIPAL

if TYPE_CHECKING:
    from decimal import Decimal

    from plugins.metering.bill import Bill, Spent
    from proxy.plugin import Attempt, Exchange, Request

SHOWN = 256
"""Characters of what an app may write at will."""

TICKS = 100
"""Of a second: what is written in the same has one time."""

REMEMBERED = 1024

_LINE = (
    '{"log":"ledger","time":%s,"id":"%s",%s,"user":%s,%s,"attempts":[%s],"tokens":{"input":%d,"cached_input":%d,'
    '"cache_write":%d,"output":%d,"reasoning":%d},"estimated":%s,"cost_usd":%s,%s,"ttft_ms":%s,"duration_ms":%.2f,%s}\n'
)
_NOBODY = '"principal":null,"labels":{}'
_NOT_CACHED = '"cached":false,"saved_tokens":0,"saved_usd":"0"'


def line(exchange: Exchange, bill: Bill) -> bytes:
    request, response, token = exchange.request, exchange.response, exchange.first_token_at
    written = _LINE % (
        _time(int(exchange.ended * TICKS)),
        exchange.id,
        _who(exchange),
        _user(request),
        _way(exchange.route, exchange.detour, request.endpoint, bill.upstream, bill.model, bill.served),
        _attempts(exchange, bill),
        bill.usage.input_tokens,
        bill.usage.cached_input_tokens,
        bill.usage.cache_write_tokens,
        bill.usage.output_tokens,
        bill.usage.reasoning_tokens,
        "true" if bill.is_estimated else "false",
        _usd(bill.usd),
        _NOT_CACHED if bill.saved is None else _saved(bill.saved),
        "null" if token is None else "%.2f" % ((token - exchange.started) * 1000),
        (exchange.ended - exchange.started) * 1000,
        _end(response.status if response else None, exchange.outcome),
    )
    return written.encode()


@lru_cache(1)
def _time(_tick: int) -> str:
    return orjson.dumps(datetime.now(UTC), option=orjson.OPT_UTC_Z).decode()


def _who(exchange: Exchange) -> str:
    principal = exchange.get(PRINCIPAL, None)
    return _NOBODY if principal is None else _payer(principal.name, *principal.labels.items())


@lru_cache(REMEMBERED)
def _payer(name: str, *labels: tuple[str, str]) -> str:
    return _members({"principal": name, "labels": dict(labels)})


def _user(request: Request) -> str:
    user = request.headers.get("x-weir-user")
    if user is None:
        return "null"
    return orjson.dumps(user[:SHOWN].encode("utf-8", "replace").decode()).decode()


@lru_cache(REMEMBERED)
def _way(route: str, detour: str, endpoint: str, upstream: str | None, model: str | None, served: str | None) -> str:
    return _members(
        {
            "route": route or None,
            "detour": detour or None,
            "endpoint": endpoint,
            "upstream": upstream,
            "model": model,
            "served_model": served,
        }
    )


@lru_cache(REMEMBERED)
def _end(status: int | None, outcome: str | None) -> str:
    return _members({"status": status, "outcome": outcome})


def _saved(spent: Spent) -> str:
    tokens = spent.usage.input_tokens + spent.usage.output_tokens
    return f'"cached":true,"saved_tokens":{tokens},"saved_usd":{_usd(spent.usd)}'


def _usd(usd: Decimal | None) -> str:
    return "null" if usd is None else f'"{usd.normalize():f}"'


def _attempts(exchange: Exchange, bill: Bill) -> str:
    """Each try; those that did not serve with what they had cost when they failed."""
    attempts = exchange.attempts
    if not bill.wasted:
        return _attempt(attempts[0]) if attempts else ""
    told, served_by, wasted = [], exchange.served_by, iter(bill.wasted)
    for attempt in attempts:
        text = _attempt(attempt)
        if attempt is not served_by:
            spent = next(wasted)
            tokens = spent.usage.input_tokens + spent.usage.output_tokens
            text = f'{text[:-1]},"wasted_tokens":{tokens},"wasted_usd":{_usd(spent.usd)}}}'
        told.append(text)
    return ",".join(told)


def _attempt(attempt: Attempt) -> str:
    target, fault = attempt.target, attempt.fault
    text = _try(target.upstream, target.model, attempt.status or None, attempt.outcome, fault and fault.kind)
    return text if attempt.work is None else f'{text[:-1]},"busy_seconds":{attempt.busy_seconds:.6f}}}'


@lru_cache(REMEMBERED)
def _try(upstream: str, model: str | None, status: int | None, outcome: str | None, fault: str | None) -> str:
    entry = {"upstream": upstream, "model": model, "status": status, "outcome": outcome, "fault": fault}
    return f"{{{_members(entry)}}}"


def _members(entry: dict[str, Any]) -> str:
    """Of a JSON object, without its braces."""
    return orjson.dumps(entry).decode()[1:-1]
