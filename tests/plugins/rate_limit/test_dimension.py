"""A limit: its claim, its words and its header."""

import pytest

from plugins.rate_limit.dimension import Bounds, Owner, dimensions, duration, lines, told
from plugins.rate_limit.settings import Limits
from proxy.plugin import Claim, Usage

OWNER = Owner("rate_limit", "principal", "bob", "local")


def limits(**settings: object):
    return dimensions(Limits(**settings), OWNER)


def test_a_rate_is_a_window():
    (requests,) = limits(requests="600/min")
    assert requests.claim == Claim("window", "bob", "rate_limit:principal:requests:600/60", 600, 1, 60, "local")
    assert requests.said == "600 requests per minute"


def test_a_burst_is_the_same_rate_over_another_span():
    (requests,) = limits(requests="600/min", burst=10)
    assert requests.claim == Claim("window", "bob", "rate_limit:principal:requests:10/1", 10, 1, 1, "local")
    assert requests.said == "600 requests per minute, 10 at once"
    assert dict(told([(requests, 3)])) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-remaining-requests": b"3",
    }


def test_requests_at_the_same_time_are_slots():
    (concurrent,) = limits(concurrent=50)
    assert concurrent.claim == Claim("slot", "bob", "rate_limit:principal:concurrent:50", 50)
    assert concurrent.said == "50 requests at the same time"
    assert dict(told([(concurrent, 49)])) == {
        b"x-ratelimit-limit-concurrent": b"50",
        b"x-ratelimit-remaining-concurrent": b"49",
    }


def test_each_counts_its_own_tokens():
    tokens = limits(requests="1/s", tokens="1000/min", input_tokens="2000/hour", output_tokens="3000/day", concurrent=1)
    bounds = Bounds("bob", tokens)
    assert bounds.used(Usage(30, 4)) == [1, 34, 30, 4, 1]
    assert [claim.amount for claim in bounds.claims(30, 4)] == [1, 34, 30, 4, 1]
    assert [claim.amount for claim in bounds.untold] == [1, 0, 0, 0, 1]
    assert [dimension.said for dimension in tokens][1:4] == [
        "1000 tokens per minute",
        "2000 input tokens per hour",
        "3000 output tokens per day",
    ]


def test_more_than_the_limit_is_never_claimed():
    (claim,) = Bounds("bob", limits(tokens="1000/min")).claims(5000, 1)
    assert claim.amount == 1000


def test_limits_that_differ_are_counted_apart():
    keys = [
        dimension.claim.key
        for owner in (OWNER, OWNER._replace(plugin="strict"), OWNER._replace(kind="model"))
        for settings in ({"requests": ["1/s", "9/min"]}, {"requests": "2/s"}, {"tokens": "1/s"}, {"concurrent": 1})
        for dimension in dimensions(Limits(**settings), owner)
    ]
    assert len(set(keys)) == len(keys) == 15


def test_of_several_limits_of_one_kind_the_one_nearest_to_its_end_is_told():
    second, day = limits(requests=["10/s", "1000/day"])
    assert (b"x-ratelimit-remaining-requests", b"9") in told([(second, 9), (day, 950)])
    assert (b"x-ratelimit-limit-requests", b"1000") in told([(second, 9), (day, 850)])


@pytest.mark.parametrize("settings", [{"requests": "10/s", "concurrent": 5}, {"requests": ["10/s", "1000/day"]}])
def test_what_is_compiled_is_told_like_what_is_not(settings):
    dims = limits(**settings)
    assert Bounds("bob", dims).told([3, 4]) == lines(zip(dims, [3, 4], strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00001, "1ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
        (61.5, "1m1.5s"),
        (3600, "1h0m0s"),
        (86400, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds, text):
    assert duration(seconds) == text
