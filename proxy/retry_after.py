"""How long an upstream asks us to wait, in whatever way it says so: seconds, always between 0 and a day.

`Retry-After` and `retry-after-ms` are meant for this request. `x-ratelimit-reset-*` says when a limit is whole again:
every answer has it, so it counts only where a limit refused us, and then that of the limits that are used up. Where no
field helps, the words of the error often do; inside a 200 they are all there is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.headers import Fields

DAY = 86_400.0

_LONGEST = 64  # bytes of a value that can mean a time
_RESET, _REMAINING = "x-ratelimit-reset", "x-ratelimit-remaining"
_EPOCH, _EPOCH_MS = 1e9, 1e11  # from here on a number is a moment, not a duration

_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ms|us|µs|ns|[dhms])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_UNITS = {"d": DAY, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_TOLD = re.compile(r"(?i)(?:try again|retry)(?: your request)? (?:in|after) (\d[\d.dhms]*)(?: (mil|sec|min|hour|day))?")
_WORDS = {"mil": "ms", "sec": "s", "min": "m", "hour": "h", "day": "d"}


def told_in_fields(fields: Fields, *, is_limited: bool) -> float | None:
    """`is_limited`: a rate limit refused the request."""
    named = [(_text(name).lower(), _text(value)) for name, value in fields]
    now = _moment(dict(named).get("date", "")) or datetime.now(UTC).timestamp()
    asked = [seconds for name, value in named if (seconds := _retry_after(name, value, now)) is not None]
    if asked:
        return max(asked)
    return _until_whole(dict(named), now) if is_limited else None


def told_in_words(message: str) -> float | None:
    """`Please try again in 6m0s.` or `Please retry after 26 seconds.`"""
    found = _TOLD.search(message)
    if found is None:
        return None
    seconds = _seconds(found[1].rstrip(".") + _WORDS.get((found[2] or "").lower(), ""))
    return None if seconds is None else _sane(seconds)


def _text(raw: bytes) -> str:
    return raw[:_LONGEST].decode(errors="replace").strip()


def _retry_after(name: str, value: str, now: float) -> float | None:
    if name == "retry-after-ms":
        seconds = _number(value)
        return None if seconds is None else _sane(seconds / 1000)
    if name != "retry-after":
        return None
    seconds = _seconds(value)
    if seconds is None and (moment := _moment(value)) is not None:
        seconds = moment - now
    return None if seconds is None else _sane(seconds)


def _until_whole(named: dict[str, str], now: float) -> float | None:
    """Zero is no hint: some servers write it where they do not know."""
    resets = {
        name.removeprefix(_RESET): seconds
        for name, value in named.items()
        if name.startswith(_RESET) and (seconds := _reset(value, now)) is not None
    }
    spent = [seconds for limit, seconds in resets.items() if (_number(named.get(_REMAINING + limit, "")) or 0) <= 0]
    return max(spent or resets.values(), default=0.0) or None


def _reset(value: str, now: float) -> float | None:
    seconds = _seconds(value)
    moment = _moment(value) if seconds is None else None
    if seconds is not None and seconds >= _EPOCH:
        moment = seconds / 1000 if seconds >= _EPOCH_MS else seconds
    if moment is not None:
        seconds = moment - now
    return None if seconds is None else _sane(seconds)


def _seconds(text: str) -> float | None:
    """Of a plain number, or of a duration as Go writes it: 12ms, 6m0s, 1h2m."""
    if not _DURATION.fullmatch(text):
        return _number(text)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment(text: str) -> float | None:
    """The epoch's seconds of HTTP's date or of ISO 8601; without a zone it is UTC."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _sane(seconds: float) -> float:
    """No number at all is zero."""
    return min(seconds, DAY) if seconds > 0 else 0.0
