"""What an upstream has to do, and its time: shared by all that are under way, others' requests too while they are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.work import MEMORY_SECONDS, Reading, Work, usual_pace


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def work(clock):
    return Work(clock)


def test_alone_a_request_has_all_the_time(clock, work):
    mark = work.begin()
    clock.now += 3.0
    assert work.end(mark) == pytest.approx(3.0)
    assert (work.busy, work.idle) == (pytest.approx(3.0), 0.0)


def test_who_was_there_together_shares_it(clock, work):
    first = work.begin()
    clock.now += 1.0
    second = work.begin()
    clock.now += 2.0
    assert work.end(first) == pytest.approx(1.0 + 1.0)
    clock.now += 1.0
    assert work.end(second) == pytest.approx(1.0 + 1.0)
    clock.now += 5.0
    work.advance()
    assert (work.busy, work.idle) == (pytest.approx(4.0), pytest.approx(5.0))


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.booleans()), max_size=60))
def test_the_parts_of_all_are_what_it_was_busy(steps):
    clock = Clock()
    work = Work(clock)
    marks, had = [], 0.0
    for pause, begins in steps:
        clock.now += pause
        if begins or not marks:
            marks.append(work.begin())
        else:
            had += work.end(marks.pop(0))
    clock.now += 1.0
    for mark in marks:
        had += work.end(mark)
    work.advance()
    assert had == pytest.approx(work.busy)
    assert work.busy + work.idle == pytest.approx(clock.now - 100.0)


def test_others_have_their_part_while_the_reading_is_fresh(clock, work):
    mark = work.begin()
    work.read(Reading(3.0, 1.0), own=1, seconds=6.0)
    assert (work.load(), work.is_fresh()) == (4.0, True)
    clock.now += 4.0
    assert work.end(mark) == pytest.approx(1.0)
    assert work.load() == 3.0
    clock.now += 2.0
    assert (work.load(), work.is_fresh()) == (0.0, False)


def test_what_came_since_the_reading_is_added(clock, work):
    work.read(Reading(5.0, 0.0), own=0, seconds=6.0)
    work.begin()
    work.begin()
    assert work.load() == 7.0


def test_a_server_that_counts_late_has_no_negative_others(work):
    work.begin()
    work.read(Reading(0.0, 0.0), own=1, seconds=6.0)
    assert work.load() == 1.0


def test_the_pace_is_its_time_per_request_however_many_are_there(clock, work):
    for _ in range(200):
        marks = [work.begin() for _ in range(4)]
        clock.now += 0.4
        for mark in marks:
            work.end(mark)
            work.served()
    assert work.pace(9.0) == pytest.approx(0.1, rel=0.3)
    assert work.per_second() == pytest.approx(10.0, rel=0.05)


def test_a_server_that_swallows_requests_gets_slower_by_it(clock, work):
    assert work.pace(0.5) == 0.5
    work.begin()
    clock.now += 30.0
    work.advance()
    assert work.pace(0.5) > 10.0


def test_what_is_long_ago_is_forgotten(clock, work):
    mark = work.begin()
    clock.now += 10.0
    work.end(mark)
    work.served()
    clock.now += 10 * MEMORY_SECONDS
    work.advance()
    assert work.pace(0.5) == pytest.approx(0.5, rel=0.01)


def test_the_usual_pace_is_that_of_all_together(clock):
    fast, slow = Work(clock), Work(clock)
    assert usual_pace([fast, slow]) == 1.0
    for work, seconds in ((fast, 1.0), (slow, 3.0)):
        mark = work.begin()
        clock.now += seconds
        work.end(mark)
        work.served()
    assert usual_pace([fast, slow]) == pytest.approx(2.0, rel=0.05)


def test_one_more_waits_where_the_slots_are_known_to_be_taken(clock, work):
    work.read(Reading(8.0, 0.0), own=0, seconds=6.0)
    assert work.wait(0.5) == 0.0
    work.read(Reading(8.0, 3.0), own=0, seconds=6.0)
    assert work.slots == 8.0
    assert work.wait(0.5) == pytest.approx((8 + 3 + 1 - 8) * 0.5)
    work.read(Reading(10.0, 0.0), own=0, seconds=6.0)
    assert work.slots == 10.0


def test_who_waits_for_room_hears_of_it(work):
    heard = []
    work.on_room.append(lambda: heard.append(work.in_flight))
    mark = work.begin()
    assert heard == []
    work.end(mark)
    work.read(Reading(0.0, 0.0), own=0, seconds=1.0)
    assert heard == [0, 0]
