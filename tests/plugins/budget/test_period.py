"""Days, weeks and months begin and end by the clocks of their zone, also where these are changed."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.budget.period import period_at

UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


EDGES = {
    "a day": ("day", UTC, "2026-11-28T23:59:59.999999Z", "2026-11-28", "2026-11-29T00:00:00Z"),
    "its first moment": ("day", UTC, "2026-11-29T00:00:00Z", "2026-11-29", "2026-11-30T00:00:00Z"),
    "midnight of Berlin": ("day", BERLIN, "2026-11-28T23:00:00Z", "2026-11-29", "2026-11-29T23:00:00Z"),
    "a day of 23 hours": ("day", BERLIN, "2026-03-29T12:00:00Z", "2026-03-29", "2026-03-29T22:00:00Z"),
    "a day of 25 hours": ("day", BERLIN, "2026-10-25T00:30:00Z", "2026-10-25", "2026-10-25T23:00:00Z"),
    "a day without a midnight": ("day", ZoneInfo("Africa/Cairo"), "2026-04-23T20:00:00Z", "2026-04-23", "2026-04-23T22:00:00Z"),
    "a day after one": ("day", ZoneInfo("Africa/Cairo"), "2026-04-23T22:00:00Z", "2026-04-24", "2026-04-24T21:00:00Z"),
    "an hour twice before midnight": ("day", ZoneInfo("America/Sao_Paulo"), "2019-02-17T02:30:00Z", "2019-02-16", "2019-02-17T03:00:00Z"),
    "an odd zone": ("day", ZoneInfo("Asia/Kathmandu"), "2026-11-28T18:14:59Z", "2026-11-28", "2026-11-28T18:15:00Z"),
    "a Sunday": ("week", UTC, "2026-11-29T23:00:00Z", "2026-W48", "2026-11-30T00:00:00Z"),
    "a Monday": ("week", UTC, "2026-11-30T00:00:00Z", "2026-W49", "2026-12-07T00:00:00Z"),
    "the last week of a year": ("week", UTC, "2027-01-03T12:00:00Z", "2026-W53", "2027-01-04T00:00:00Z"),
    "a month": ("month", UTC, "2026-11-30T23:59:59Z", "2026-11", "2026-12-01T00:00:00Z"),
    "December": ("month", UTC, "2026-12-31T23:59:59Z", "2026-12", "2027-01-01T00:00:00Z"),
    "February": ("month", UTC, "2028-02-29T12:00:00Z", "2028-02", "2028-03-01T00:00:00Z"),
    "a month of Berlin": ("month", BERLIN, "2026-10-31T23:30:00Z", "2026-11", "2026-11-30T23:00:00Z"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "zone", "moment", "name", "ends"), EDGES.values(), ids=EDGES)
def test_a_period_has_its_name_and_its_end(kind, zone, moment, name, ends):
    found = period_at(kind, at(moment), zone)
    assert (found.name, found.ends) == (name, at(ends))
    assert found.begins <= at(moment) < found.ends


@given(
    st.datetimes(dt.datetime(2018, 1, 1), dt.datetime(2035, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
    st.sampled_from(["day", "week", "month"]),
    st.sampled_from(
        [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Africa/Cairo",
            "America/Sao_Paulo",
            "Pacific/Apia",
            "Australia/Lord_Howe",
        ]
    ),
)
def test_periods_follow_each_other_without_a_gap(moment, kind, zone):
    here = period_at(kind, moment, ZoneInfo(zone))
    assert here.begins <= moment < here.ends
    following = period_at(kind, here.ends, ZoneInfo(zone))
    assert (following.begins, following.name > here.name) == (here.ends, True)
    assert period_at(kind, here.ends - dt.timedelta(microseconds=1), ZoneInfo(zone)) == here
