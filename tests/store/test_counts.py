"""The three ways of counting, beside lists of all that was taken."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.counts import SLICES, Slots, Total, Window

LIMIT = 10
pauses = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 6)), min_size=1, max_size=80)


def taken(window: Window, steps: list[tuple[float, int]], began: float = 1000.0) -> list[tuple[float, int]]:
    """What passed of these, one after the other, with its time."""
    now, passed = began, []
    for pause, amount in steps:
        now += pause
        if window.used(now) + amount <= LIMIT:
            window.add(now, amount)
            passed.append((now, amount))
    return passed


@given(pauses, st.sampled_from([0.1, 1.0, 60.0]))
def test_never_more_than_the_limit_in_any_span(steps, seconds):
    passed = taken(Window(seconds), [(pause * seconds / 60, amount) for pause, amount in steps])
    for begin, _ in passed:
        assert sum(amount for at, amount in passed if begin <= at < begin + seconds * (1 - 1e-9)) <= LIMIT


@given(pauses)
def test_room_comes_back_a_sixtieth_late_at_most(steps):
    window = Window(60)
    passed = taken(window, steps)
    now = 1030 + sum(pause for pause, _ in steps)
    late = 60 + 60 / SLICES + 1e-6
    assert window.used(now) <= sum(amount for at, amount in passed if at > now - late)
    assert window.used(now) >= sum(amount for at, amount in passed if at > now - 60 + 1e-6)


@given(pauses, st.integers(1, LIMIT))
def test_after_the_told_wait_it_fits_and_not_before(steps, amount):
    window = Window(60)
    now = taken(window, steps)[-1][0]
    wait = window.seconds_until(LIMIT - amount, now)
    if wait > 0:
        assert window.used(now + wait - 1e-6) + amount > LIMIT
    assert window.used(now + wait + 1e-6) + amount <= LIMIT


def test_no_edge_lets_twice_as_much_through():
    window = Window(60)
    passed = taken(window, [(0, 1)] * 50, began=1019.9) + taken(window, [(0, 1)] * 50, began=1020.1)
    assert len(passed) == LIMIT
    assert len(taken(window, [(0, 1)] * 50, began=1079.8)) == 0
    assert len(taken(window, [(0, 1)] * 50, began=1081.0)) == LIMIT


def test_what_was_less_than_claimed_makes_room_at_once():
    window = Window(60)
    window.add(1000, 8)
    window.correct(1000, 1030, -5)
    assert window.used(1030) == 3
    assert window.used(1061) == 0


def test_what_was_more_counts_where_it_was_taken():
    window = Window(60)
    window.add(1000, 2)
    window.add(1010, 2)
    window.correct(1000, 1030, 20)
    assert window.used(1030) == 24
    assert window.used(1061) == 2


def test_what_was_taken_too_long_ago_counts_more_from_now_on_and_less_not_at_all():
    window = Window(60)
    window.add(1000, 4)
    window.correct(1000, 1100, -4)
    assert window.used(1100) == 0
    window.correct(1000, 1100, 3)
    assert window.used(1100) == window.used(1159) == 3
    assert window.used(1162) == 0


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=40))
def test_corrections_add_up(claims):
    window, now, used = Window(60), 1000.0, []
    for pause, amount, really in claims:
        now += pause
        window.used(now)
        window.add(now, amount)
        window.correct(now, now, really - amount)
        used.append((now, really))
    assert window.used(now) <= sum(really for at, really in used if at > now - 61 - 1e-6)
    assert window.used(now) >= sum(really for at, really in used if at > now - 60 + 1e-6)


def test_a_window_has_so_many_slices_and_is_idle_when_the_last_has_gone():
    window = Window(60)
    assert window.idle_at() == -math.inf
    for step in range(1000):
        window.used(1000 + step / 10)
        window.add(1000 + step / 10, 1)
    assert len(window._slices) <= SLICES + 1
    idle_at = window.idle_at()
    assert (window.used(idle_at - 0.01) > 0, window.used(idle_at)) == (True, 0)


def test_slices_stand_one_beside_the_other():
    window, ends = Window(1), []
    for step in range(20_000):
        window.used(1e6 + step / 1000)
        window.add(1e6 + step / 1000, 1)
        ends.append(window._ends)
    assert all(later - earlier == pytest.approx(1 / SLICES) for earlier, later in pairwise(dict.fromkeys(ends)))


def test_a_total_counts_until_its_end_and_then_from_nothing():
    total = Total(100)
    total.add(1000, 7)
    total.add(1099, 2)
    assert (total.used(1099), total.seconds_until(5, 1099), total.seconds_until(9, 1099)) == (9, 1, 0)
    assert (total.used(1100), total.seconds_until(0, 1100), total.idle_at()) == (0, 0, 1100)
    total.add(1100, 4)
    assert (total.used(1199), total.used(1200)) == (4, 0)


def test_a_total_is_corrected_but_never_below_nothing():
    total = Total(100)
    total.add(1000, 7)
    total.correct(1000, 1010, -5)
    assert total.used(1010) == 2
    total.correct(1000, 1010, -5)
    assert total.used(1010) == 0
    total.correct(1000, 1200, -5)
    assert total.idle_at() == 1100
    total.correct(1000, 1200, 5)
    assert total.used(1299) == 5


def test_slots_come_back_when_they_are_given_back():
    slots = Slots()
    slots.add(1000, 1)
    slots.add(1000, 1)
    slots.correct(1000, 1001, -1)
    assert (slots.used(5000), slots.seconds_until(0, 5000), slots.idle_at()) == (2, 0, math.inf)
    for _ in range(3):
        slots.give_back(1)
    assert (slots.used(5000), slots.idle_at()) == (0, -math.inf)
