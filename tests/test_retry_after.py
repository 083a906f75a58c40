"""How long upstreams ask us to wait, in each way that one of them says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.retry_after import DAY, told_in_fields, told_in_words

DATE = ("Date", "Thu, 03 Apr 2025 14:12:23 GMT")
MOMENT = int(datetime(2025, 4, 3, 14, 12, 23, tzinfo=UTC).timestamp())


def told(*fields: tuple[str, str], is_limited: bool = True) -> float | None:
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    return told_in_fields(encoded, is_limited=is_limited)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        (" 60 ", 60),
        ("1.5", 1.5),
        ("20s", 20),
        ("-5", 0),
        ("nan", 0),
        ("inf", DAY),
        ("86401", DAY),
        ("9" * 60, DAY),
        ("9" * 5000, DAY),
        ("Thu, 03 Apr 2025 14:12:33 GMT", 10),
        ("Thursday, 03-Apr-25 14:12:33 GMT", 10),
        ("Thu Apr  3 14:12:33 2025", 10),
        ("2025-04-03T14:12:33Z", 10),
        ("Thu, 03 Apr 2025 14:12:23 GMT", 0),
        ("Wed, 02 Apr 2025 14:12:23 GMT", 0),
        ("Sat, 05 Apr 2025 14:12:23 GMT", DAY),
        ("", None),
        ("soon", None),
        ("1 2", None),
        ("12 parsecs", None),
        ("Thu, 99 Apr 2025 14:12:23 GMT", None),
        ("\xb2", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert told(DATE, ("Retry-After", value)) == seconds
    assert told(("RETRY-AFTER", value), DATE, is_limited=False) == seconds


def test_a_date_counts_from_now_where_the_answer_has_none() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = told(("retry-after", at))
    assert seconds is not None
    assert 90 < seconds <= 100
    assert told(("retry-after", at), ("date", "never")) is not None


def test_a_servers_clock_may_be_wrong() -> None:
    assert told(("date", "Thu, 01 Jan 2037 00:00:00 GMT"), ("retry-after", "Thu, 01 Jan 2037 00:00:07 GMT")) == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("655", 0.655), ("0", 0), ("-1", 0), ("1e12", DAY), ("", None), ("1s", None), ("nan", 0)],
)
def test_retry_after_ms(value: str, seconds: float | None) -> None:
    assert told(("retry-after-ms", value)) == seconds


def test_the_largest_of_both_counts_and_what_cannot_be_read_does_not() -> None:
    assert told(("retry-after", "1"), ("retry-after-ms", "655")) == 1
    assert told(("retry-after", "1"), ("retry-after-ms", "1655")) == 1.655
    assert told(("retry-after", "soon"), ("retry-after-ms", "655")) == 0.655
    assert told(("retry-after", "7"), ("retry-after", "9"), ("retry-after", "8")) == 9


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12ms", 0.012),
        ("1s", 1),
        ("8.64s", 8.64),
        ("6m0s", 360),
        ("1h2m", 3720),
        ("2m59.56s", 179.56),
        ("1h0m0.5s", 3600.5),
        ("1d", DAY),
        ("2d4h", DAY),
        ("500us", 0.0005),
        ("500µs", 0.0005),
        ("500ns", 5e-7),
        ("30", 30),
        ("33011.382867", 33011.382867),
        (str(MOMENT + 90), 90),
        (str((MOMENT + 90) * 1000), 90),
        (str(MOMENT - 90), None),
        ("2025-04-03T14:13:53Z", 90),
        ("2025-04-03T16:13:53+02:00", 90),
        ("0s", None),
        ("-1", None),
        ("", None),
        ("m", None),
        ("1x", None),
        ("1m 2", None),
        ("1h" * 5000, DAY),
    ],
)
@pytest.mark.parametrize("name", ["x-ratelimit-reset-tokens", "X-RateLimit-Reset-Requests", "x-ratelimit-reset"])
def test_resets(name: str, value: str, seconds: float | None) -> None:
    assert told(DATE, (name, value)) == (None if seconds is None else pytest.approx(seconds))
    assert told(DATE, (name, value), is_limited=False) is None


RESETS = (("x-ratelimit-reset-requests", "2m0s"), ("x-ratelimit-reset-tokens", "6s"))


@pytest.mark.parametrize(
    ("remaining", "seconds"),
    [
        ({}, 120),
        ({"requests": "0", "tokens": "17000"}, 120),
        ({"requests": "14370", "tokens": "0"}, 6),
        ({"requests": "0", "tokens": "0"}, 120),
        ({"requests": "14370", "tokens": "17"}, 120),
        ({"requests": "14370", "tokens": "-1"}, 6),
        ({"requests": "14370"}, 6),
        ({"requests": "many"}, 120),
    ],
)
def test_only_used_up_limits_are_waited_for_where_that_is_known(remaining: dict[str, str], seconds: float) -> None:
    assert told(*RESETS, *((f"x-ratelimit-remaining-{limit}", left) for limit, left in remaining.items())) == seconds


def test_what_is_meant_for_this_request_goes_before_the_limits() -> None:
    assert told(*RESETS, ("retry-after", "1")) == 1
    assert told(*RESETS, ("retry-after", "soon")) == 120


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached for x. Please try again in 655ms. Visit y", 0.655),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 9m38.016s. Need more?", 578.016),
        ("please retry in 34.074824224s.", 34.074824224),
        ("Please retry your request in 3s", 3),
        ("Please retry after 26 seconds. Go here", 26),
        ("Try again in 1 second", 1),
        ("try again in 2 Minutes", 120),
        ("try again in 2 hours", 7200),
        ("try again in 500 milliseconds", 0.5),
        ("try again in 3 days", DAY),
        ("retry after 5", 5),
        ("try again in 1.2.3s", None),
        ("Please try again later.", None),
        ("try again in a minute", None),
        ("try again in 5 parsecs", 5),
        ("", None),
    ],
)
def test_words(words: str, seconds: float | None) -> None:
    assert told_in_words(words) == (None if seconds is None else pytest.approx(seconds))


NAMES = st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-a", "x-ratelimit-remaining-a", "date"])
VALUES = st.binary(max_size=90) | st.text("0123456789.:+-TZhmsd, GMTApr", max_size=40).map(str.encode)


@given(st.lists(st.tuples(NAMES.map(str.encode) | st.binary(max_size=9), VALUES), max_size=5))
def test_no_field_raises(fields: list[tuple[bytes, bytes]]) -> None:
    seconds = told_in_fields(fields, is_limited=True)
    assert seconds is None or 0 <= seconds <= DAY


@given(st.text("retry again in after 0123456789.hms seconds", max_size=60).map("try again in 1".__add__))
def test_no_words_raise(words: str) -> None:
    seconds = told_in_words(words)
    assert seconds is None or 0 <= seconds <= DAY
