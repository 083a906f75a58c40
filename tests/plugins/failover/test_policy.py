"""What follows a failure: the same target, the next one, or nothing."""

import random

import pytest

from plugins.failover.policy import Failed, Policy, Turn
from proxy.plugin import Fault, Kind

FIRST, MOST = 0.1, 2.0
NEXT = Turn(again=False)


def turn(kind, retry_after=None, *, should_retry=None, chance=0.5, **situation):
    """A first try that failed at once, with time and tries left, and one other target."""
    left = {"tries": 1, "took": 0.0, "left": 100.0, "attempts": 2, "others": 1, "may_repeat": False, "is_ample": True}
    left |= situation
    return Policy(FIRST, MOST, lambda: chance).turn(Failed(Fault(kind, retry_after, should_retry), **left))


def again(pause):
    return Turn(again=True, pause=pytest.approx(pause))


@pytest.mark.parametrize("kind", [Kind.CONTENT_FILTER, Kind.CLIENT, Kind.CLIENT_GONE, Kind.OURS])
@pytest.mark.parametrize("others", [0, 1])
def test_what_no_other_try_can_help_is_the_answer(kind, others):
    assert turn(kind, others=others) is None
    assert turn(kind, retry_after=1, others=others) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.may_move and not kind.is_transient])
def test_who_is_silent_or_cannot_serve_is_never_asked_again(kind):
    assert turn(kind) == NEXT
    assert turn(kind, others=0) is None


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("spent", [{"attempts": 0}, {"left": 0.0}, {"left": -1.0}])
def test_without_tries_or_time_nothing_follows(kind, spent):
    assert turn(kind, **spent, others=1) is None
    assert turn(kind, **spent, others=0) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_transient])
def test_the_only_target_is_asked_again_and_again(kind):
    assert turn(kind, others=0, tries=1) == again(0.05)
    assert turn(kind, others=0, tries=2) == again(0.1)
    assert turn(kind, others=0, tries=5) == again(0.8)
    assert turn(kind, others=0, tries=30) == again(1.0)


def test_the_pause_is_a_random_part_of_what_doubles():
    policy = Policy(FIRST, MOST, random.Random(7).random)
    pauses = [
        policy.turn(Failed(Fault(Kind.SERVER_ERROR), 3, 0.0, 100.0, 9, others=0, may_repeat=False, is_ample=True)).pause
        for _ in range(200)
    ]
    assert 0 <= min(pauses) < 0.05
    assert 0.35 < max(pauses) <= 0.4


def test_an_error_is_met_by_one_more_try_before_the_next_target():
    assert turn(Kind.SERVER_ERROR) == again(0.05)
    assert turn(Kind.SERVER_ERROR, tries=2) == NEXT


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_transient and kind is not Kind.SERVER_ERROR])
def test_what_a_moment_does_not_mend_is_left_to_the_next_target(kind):
    assert turn(kind) == NEXT


def test_each_target_has_its_turn_before_one_has_two():
    assert turn(Kind.SERVER_ERROR, attempts=2, others=2) == NEXT
    assert turn(Kind.SERVER_ERROR, attempts=3, others=2) == again(0.05)


def test_a_second_chance_is_for_times_of_plenty():
    assert turn(Kind.SERVER_ERROR, is_ample=False) == NEXT
    assert turn(Kind.SERVER_ERROR, is_ample=False, others=0) == again(0.05)


def test_an_error_that_took_long_is_not_asked_for_twice():
    assert turn(Kind.SERVER_ERROR, took=MOST) == again(0.05)
    assert turn(Kind.SERVER_ERROR, took=MOST + 0.1) == NEXT
    assert turn(Kind.SERVER_ERROR, took=60.0, others=0) == again(0.05)


@pytest.mark.parametrize("kind", [Kind.RATE_LIMITED, Kind.OVERLOADED, Kind.SERVER_ERROR])
def test_a_short_wait_that_was_told_is_waited_for_once(kind):
    assert turn(kind, retry_after=2.0, chance=0.0) == again(2.0)
    assert turn(kind, retry_after=2.0, chance=1.0) == again(2.0 + FIRST)
    assert turn(kind, retry_after=2.0, tries=2) == NEXT
    assert turn(kind, retry_after=2.1) == NEXT


def test_the_only_target_is_waited_for_as_long_as_the_deadline_lets():
    assert turn(Kind.RATE_LIMITED, retry_after=60.0, others=0) == again(60.05)
    assert turn(Kind.RATE_LIMITED, retry_after=60.0, others=0, left=60.01) is None
    assert turn(Kind.RATE_LIMITED, retry_after=1.0, others=1, left=0.9) == NEXT
    assert turn(Kind.SERVER_ERROR, others=0, tries=5, left=0.5) is None


def test_a_wait_of_nothing_still_spreads_those_who_failed_together():
    assert turn(Kind.RATE_LIMITED, retry_after=0.0, others=0, tries=9) == again(0.05)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.is_transient])
def test_whoever_says_that_it_is_in_vain_is_not_asked_again(kind):
    for wait in (None, 1.0):
        assert turn(kind, wait, should_retry=False) == NEXT
        assert turn(kind, wait, should_retry=False, others=0) is None


@pytest.mark.parametrize("kind", [Kind.SERVER_ERROR, Kind.RATE_LIMITED, Kind.CLIENT, Kind.TIMEOUT, Kind.CONTENT_FILTER])
def test_whoever_says_that_it_may_help_is_asked_once_more(kind):
    assert turn(kind, should_retry=True) == again(0.05)
    assert turn(kind, should_retry=True, tries=2) == (NEXT if kind.may_move else None)
    assert turn(kind, should_retry=True, others=0, tries=2) == again(0.1)
    assert turn(kind, 60.0, should_retry=True) == (NEXT if kind.may_move else None)


def test_what_may_have_been_done_is_sent_again_only_where_that_does_no_harm():
    assert turn(Kind.DROPPED) is None
    assert turn(Kind.DROPPED, others=0) is None
    assert turn(Kind.DROPPED, may_repeat=True) == NEXT
    assert turn(Kind.DROPPED, may_repeat=True, others=0) == again(0.05)
