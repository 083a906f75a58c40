"""Days, weeks and months of a calendar, in a time zone: what each is called, and when it begins and ends.

A day begins at midnight by its clocks, so it has 23 or 25 hours where they are changed; where that skips midnight, it
begins with the first moment after.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

PeriodName = Literal["day", "week", "month"]


class Period(NamedTuple):
    """`name` is that of this one among its kind, as in 2026-11-28; the times are in UTC."""

    name: str
    begins: dt.datetime
    ends: dt.datetime


def seconds() -> float:
    """Since 1970."""
    return time.time()  # noqa: TID251 - a calendar's


def now() -> dt.datetime:
    """In UTC."""
    return dt.datetime.fromtimestamp(seconds(), dt.UTC)


def period_at(kind: PeriodName, moment: dt.datetime, zone: ZoneInfo) -> Period:
    day = moment.astimezone(zone).date()
    if kind == "day":
        return _period(day.isoformat(), day, day + dt.timedelta(days=1), zone)
    if kind == "week":
        year, week, weekday = day.isocalendar()
        monday = day - dt.timedelta(days=weekday - 1)
        return _period(f"{year}-W{week:02d}", monday, monday + dt.timedelta(days=7), zone)
    first = day.replace(day=1)
    following = (first + dt.timedelta(days=31)).replace(day=1)
    return _period(f"{first:%Y-%m}", first, following, zone)


def _period(name: str, first: dt.date, following: dt.date, zone: ZoneInfo) -> Period:
    return Period(name, _midnight(first, zone), _midnight(following, zone))


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
