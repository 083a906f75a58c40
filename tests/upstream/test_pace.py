"""How long an upstream takes to begin: peaks count, luck does not, and the past fades."""

import math

import pytest

from proxy.upstream.pace import Pace


def test_slow_answers_count_at_once_and_fast_ones_little_by_little():
    pace = Pace()
    pace.note(0.1, 0.0)
    pace.note(2.0, 1.0)
    assert pace.cost(0, 1.0) == 2.0
    pace.note(0.1, 2.0)
    assert 1.5 < pace.cost(0, 2.0) < 2.0
    for second in range(3, 60):
        pace.note(0.1, float(second))
    assert pace.cost(0, 59.0) == pytest.approx(0.1, rel=0.1)


def test_what_is_long_ago_fades():
    pace = Pace()
    pace.note(2.0, 0.0)
    assert pace.cost(0, 10.0) == pytest.approx(2.0 / math.e)
    assert pace.cost(0, 31.0) == 0.0


def test_of_whom_nothing_is_known_gets_one_request_at_a_time():
    assert Pace().cost(0, 0.0) == 0.0
    assert Pace().cost(1, 0.0) == 10.0


def test_failing_fast_is_not_being_fast():
    pace = Pace()
    pace.note_failure(0.001, 0.0)
    assert pace.cost(0, 0.0) == 10.0
