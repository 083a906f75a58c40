"""One JSON line per exchange: who asked for what, what served it, what it used and what it cost.

Money is text: a JSON number would be read as a binary fraction, and sums would drift.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from proxy.plugin import PRINCIPAL

if TYPE_CHECKING:
    from decimal import Decimal

    from plugins.metering.bill import Bill
    from proxy.plugin import Attempt, Exchange, Usage

SHOWN = 256
"""Characters of what an app may write at will."""

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def line(exchange: Exchange, bill: Bill) -> bytes:
    entry = _entry(exchange, bill)
    try:
        return orjson.dumps(entry, option=_OPTIONS)
    except orjson.JSONEncodeError:  # a header that is not UTF-8
        return orjson.dumps({**entry, "user": entry["user"].encode("ascii", "replace").decode()}, option=_OPTIONS)


def _entry(exchange: Exchange, bill: Bill) -> dict[str, Any]:
    principal = exchange.get(PRINCIPAL, None)
    user, token = exchange.request.headers.get("x-weir-user"), exchange.first_token_at
    return {
        "log": "ledger",
        "time": datetime.now(UTC),
        "id": exchange.id,
        "principal": principal and principal.name,
        "labels": dict(principal.labels) if principal else {},
        "user": user and user[:SHOWN],
        "route": exchange.route or None,
        "detour": exchange.detour or None,
        "endpoint": exchange.request.endpoint,
        "upstream": bill.upstream,
        "model": bill.model and bill.model[:SHOWN],
        "served_model": bill.served and bill.served[:SHOWN],
        "attempts": _attempts(exchange, bill),
        "tokens": _tokens(bill.usage),
        "estimated": bill.is_estimated,
        "cost_usd": _usd(bill.usd),
        "cached": bill.saved is not None,
        "saved_tokens": 0 if bill.saved is None else bill.saved.usage.input_tokens + bill.saved.usage.output_tokens,
        "saved_usd": "0" if bill.saved is None else _usd(bill.saved.usd),
        "ttft_ms": None if token is None else round((token - exchange.started) * 1000, 2),
        "duration_ms": round((exchange.ended - exchange.started) * 1000, 2),
        "status": exchange.response.status if exchange.response else None,
        "outcome": exchange.outcome,
    }


def _usd(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd.normalize():f}"


def _attempts(exchange: Exchange, bill: Bill) -> list[dict[str, Any]]:
    """Each try; those that did not serve with what they had cost when they failed."""
    told, served_by = [_attempt(attempt) for attempt in exchange.attempts], exchange.served_by
    failed = (entry for entry, attempt in zip(told, exchange.attempts, strict=True) if attempt is not served_by)
    for entry, spent in zip(failed, bill.wasted, strict=True):
        entry["wasted_tokens"] = spent.usage.input_tokens + spent.usage.output_tokens
        entry["wasted_usd"] = _usd(spent.usd)
    return told


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "upstream": attempt.target.upstream,
        "model": attempt.target.model,
        "status": attempt.status or None,
        "outcome": attempt.outcome,
        "fault": attempt.fault and attempt.fault.kind,
    }


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "input": usage.input_tokens,
        "cached_input": usage.cached_input_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.reasoning_tokens,
    }
