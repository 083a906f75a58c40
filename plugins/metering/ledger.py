"""One JSON line per exchange: who asked for what, what served it, what it used and what it cost.

Money is text: a JSON number would be read as a binary fraction, and sums would drift. What many lines have in common is
written once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from proxy.plugin import PRINCIPAL

if TYPE_CHECKING:
    from decimal import Decimal

    from plugins.metering.bill import Bill, Spent
    from proxy.plugin import Attempt, Exchange, Feedback, Principal, Request

SHOWN = 256
"""Characters of what an app may write at will."""

TICKS = 100
"""Of a second: what is written in the same has one time."""

REMEMBERED = 1024

_LINE = (
    '{"log":"ledger","time":%s,"id":"%s",%s,%s,%s,"attempts":[%s],"tokens":{"input":%d,"cached_input":%d,'
    '"cache_write":%d,"output":%d,"reasoning":%d},"estimated":%s,"cost_usd":%s,%s,"ttft_ms":%s,"duration_ms":%.2f,%s}\n'
)
_NOBODY = '"principal":null,"labels":{}'
_SAID_NOTHING = '"user":null,"prompt_version":null'
_NOT_CACHED = '"cached":false,"saved_tokens":0,"saved_usd":"0"'


class About(NamedTuple):
    """What the line of an exchange and those of its feedback have in common, as members of a JSON object."""

    who: str
    said: str
    way: str
    end: str


def about(exchange: Exchange, bill: Bill) -> About:
    request, response = exchange.request, exchange.response
    way = _way(exchange.route, exchange.detour, request.endpoint, bill.upstream, bill.model, bill.served)
    return About(_who(exchange), _said(request), way, _end(response.status if response else None, exchange.outcome))


NOTHING = About(_NOBODY, _SAID_NOTHING, '"route":null', '"outcome":null')


def line(exchange: Exchange, bill: Bill, known: About) -> bytes:
    token, (given, generated, cached, stored, thought) = exchange.first_token_at, bill.usage
    who, said, way, end = known
    written = _LINE % (
        _time(int(exchange.ended * TICKS)),
        exchange.id,
        who,
        said,
        way,
        _attempts(exchange, bill),
        given,
        cached,
        stored,
        generated,
        thought,
        "true" if bill.is_estimated else "false",
        _usd(bill.usd),
        _NOT_CACHED if bill.saved is None else _saved(bill.saved),
        "null" if token is None else "%.2f" % ((token - exchange.started) * 1000),
        (exchange.ended - exchange.started) * 1000,
        end,
    )
    return written.encode()


def feedback_line(feedback: Feedback, known: About) -> bytes:
    """What it is about stands in it as in the exchange's own line, so that it is summed likewise."""
    told = _members({"log": "feedback", "time": datetime.now(UTC), "id": feedback.request_id, **_told(feedback)})
    return f"{{{told},{known.who},{known.said},{known.way},{known.end}}}\n".encode()


def _told(feedback: Feedback) -> dict[str, Any]:
    return {"score": feedback.score, "label": feedback.label, "comment": feedback.comment}


@lru_cache(1)
def _time(_tick: int) -> str:
    return orjson.dumps(datetime.now(UTC), option=orjson.OPT_UTC_Z).decode()


def _who(exchange: Exchange) -> str:
    principal: Principal | None = exchange.facts.get(PRINCIPAL)
    return _NOBODY if principal is None else _payer(principal.name, *principal.labels.items())


@lru_cache(REMEMBERED)
def _payer(name: str, *labels: tuple[str, str]) -> str:
    return _members({"principal": name, "labels": dict(labels)})


def _said(request: Request) -> str:
    """What the app may say of its request in headers of ours."""
    user, version = request.headers.get("x-weir-user"), request.headers.get("x-weir-prompt-version")
    if user is None and version is None:
        return _SAID_NOTHING
    return _members({"user": _bounded(user), "prompt_version": _bounded(version)})


def _bounded(text: str | None) -> str | None:
    return None if text is None else text[:SHOWN].encode("utf-8", "replace").decode()


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
    return orjson.dumps(entry, option=orjson.OPT_UTC_Z).decode()[1:-1]
