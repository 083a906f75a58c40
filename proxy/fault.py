"""Why an attempt failed: one classifier for all upstreams, since status alone never decides.

Who retries, reroutes or opens a breaker asks for the kind; nobody else reads an upstream's words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from proxy.answer import InBandError, in_band_error
from proxy.complaint import SEARCHED, kind_of, status_in
from proxy.encoding import Unreadable, decoded
from proxy.errors import ClientFault, ConnectFailed, DownstreamStalled, Dropped, Outcome, Unavailable, UpstreamFault
from proxy.kind import Kind
from proxy.retry_after import DAY, told_in_fields, told_in_words

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.response import Response

__all__ = ["Fault", "Kind", "fault_in_band", "fault_of_end", "fault_of_error", "fault_of_response", "outcome_of"]

READ_BYTES = 64 * 1024
"""How much of an error's body is read."""


class Fault(NamedTuple):
    """`retry_after`: seconds that the upstream asked for, 0 to a day; `should_retry`: what it says of asking it again.

    None where it does not say.
    """

    kind: Kind
    retry_after: float | None = None
    should_retry: bool | None = None


def fault_of_error(error: ProxyError) -> Fault:
    """Of an attempt that got no answer, or whose answer broke off."""
    by_code = _CODES.get(error.error_code)
    return Fault(by_code or next((kind for tree, kind in _ERRORS if isinstance(error, tree)), Kind.OURS))


def fault_of_response(response: Response) -> Fault:
    """Of an answer with a status from 400 on, its body at hand."""
    told = _told(response)
    kind = kind_of(response.status, told)
    wait = told_in_fields(response.fields(), is_limited=kind is Kind.RATE_LIMITED)
    if wait is None and kind is Kind.LOADING:
        wait = _estimated(_json(_text(response)))
    should_retry = _SHOULD_RETRY.get(response.field(b"x-should-retry").strip().lower())
    return Fault(kind, wait if wait is not None else _wait_in_words(kind, told), should_retry)


def fault_in_band(told: InBandError) -> Fault:
    """Of an error within a 200."""
    kind = kind_of(status_in(told), told)
    return Fault(kind, _wait_in_words(kind, told))


def outcome_of(fault: Fault) -> Outcome:
    """Of an answer within a 200, the same as of one with a status."""
    is_upstreams = fault.kind.is_upstreams or fault.kind is Kind.LOADING
    return Outcome.UPSTREAM_ERROR if is_upstreams else Outcome.CLIENT_ERROR


def fault_of_end(outcome: Outcome, error: ProxyError | None) -> Fault:
    """Of an answer that had begun to go down."""
    if outcome is Outcome.CLIENT_ABORT:
        return Fault(Kind.CLIENT_GONE)
    if error is not None:
        return fault_of_error(error)
    return Fault(Kind.BROKEN if outcome is Outcome.STREAM_INTERRUPTED else Kind.OURS)


_SHOULD_RETRY = {b"true": True, b"false": False}
_CODES = {"upstream_timeout": Kind.TIMEOUT, "deadline_exceeded": Kind.LATE, "shutting_down": Kind.OURS}
"""Whatever the class: an answer can also fall silent, or be broken off here."""

_ERRORS = (
    (ConnectFailed, Kind.UNREACHABLE),
    (Unavailable, Kind.BUSY),
    (Dropped, Kind.DROPPED),
    (UpstreamFault, Kind.BROKEN),
    (ClientFault, Kind.CLIENT),
    (DownstreamStalled, Kind.CLIENT_GONE),
)


def _estimated(value: Any) -> float | None:
    """Seconds, as Hugging Face says until a model is loaded."""
    told = value.get("estimated_time") if isinstance(value, dict) else None
    return min(max(float(told), 0.0), DAY) if isinstance(told, int | float) else None


def _wait_in_words(kind: Kind, told: InBandError) -> float | None:
    """Only of who refused to serve now: others may quote the request."""
    if kind is not Kind.RATE_LIMITED and kind is not Kind.OVERLOADED:
        return None
    return told_in_words(told.message[:SEARCHED])


def _told(response: Response) -> InBandError:
    """The body's error in any upstream's shape, or its beginning as it is."""
    text = _text(response)
    value = _json(text)
    told = in_band_error(value)
    if told is None and isinstance(value, dict):
        told = in_band_error({"error": value.get("detail") or value})
    return told or InBandError(text.decode(errors="replace"))


def _text(response: Response) -> bytes:
    """The body, or its beginning, without its encoding."""
    try:
        return decoded(response.body[:READ_BYTES], response.field(b"content-encoding"))[:READ_BYTES]
    except Unreadable:
        return b""


def _json(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return None
