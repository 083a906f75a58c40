"""One upstream's breaker, by a clock that is set by hand."""

import logging
import math

import pytest

from plugins.circuit_breaker.breaker import CLOSED, HALF_OPEN, LOOK_AGAIN, MOST_COOLING, OPEN, Breaker, Rules


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class House:
    def __init__(self, **rules):
        usual = {"fail_max": 3, "reset_timeout": 30.0, "trial": 1, "failure_rate": None, "window": 10.0, "min_calls": 4}
        self.clock = Clock()
        self.levels = []
        self.breaker = Breaker("gpu", Rules(**{**usual, **rules}), self.clock, self.note)

    def note(self):
        self.levels.append(self.breaker.level)

    def fail(self, times=1):
        for _ in range(times):
            lease = self.breaker.acquire()
            assert lease is not None
            self.breaker.fail(lease, "broken")

    def succeed(self):
        lease = self.breaker.acquire()
        assert lease is not None
        self.breaker.succeed(lease)

    def opened(self):
        self.fail(3)
        assert self.breaker.level == OPEN
        return self

    def due(self):
        self.opened()
        self.clock.now += 30
        return self

    @property
    def is_free(self):
        return self.breaker.free_at <= self.clock.now


def test_failures_in_a_row_open_it():
    house = House()
    house.fail(2)
    assert (house.breaker.level, house.is_free) == (CLOSED, True)
    house.fail()
    assert (house.breaker.level, house.is_free, house.breaker.acquire()) == (OPEN, False, None)
    assert house.breaker.seconds_left(house.clock.now) == 30


def test_a_success_begins_the_row_anew():
    house = House()
    for _ in range(5):
        house.fail(2)
        house.succeed()
    assert house.levels == []


def test_a_neutral_end_leaves_the_row_as_it_is():
    house = House()
    house.fail(2)
    for _ in range(100):
        house.breaker.free(house.breaker.acquire())
    house.fail()
    assert house.breaker.level == OPEN


def test_its_time_is_absolute_and_asking_changes_nothing():
    house = House().opened()
    for _ in range(29):
        house.clock.now += 1
        assert (house.is_free, house.breaker.acquire()) == (False, None)
    house.clock.now += 1
    assert house.is_free
    assert house.breaker.level == OPEN  # until somebody goes


def test_half_open_lets_in_as_many_as_there_are_trials():
    house = House(trial=3).due()
    leases = [house.breaker.acquire() for _ in range(200)]
    assert [lease is not None for lease in leases] == [True] * 3 + [False] * 197
    assert (house.breaker.level, house.is_free) == (HALF_OPEN, False)
    assert house.breaker.seconds_left(house.clock.now) == LOOK_AGAIN


def test_a_trial_that_succeeds_closes_it():
    house = House().due()
    house.succeed()
    assert (house.levels, house.is_free) == ([OPEN, HALF_OPEN, CLOSED], True)
    house.fail(2)
    assert house.breaker.level == CLOSED


def test_a_trial_that_fails_opens_it_for_all_its_time():
    house = House().due()
    house.clock.now += 7
    house.fail()
    assert (house.levels, house.breaker.seconds_left(house.clock.now)) == ([OPEN, HALF_OPEN, OPEN], 30)


def test_a_trial_that_says_nothing_makes_room_for_the_next():
    house = House().due()
    for _ in range(100):
        house.breaker.free(house.breaker.acquire())
        assert (house.breaker.level, house.is_free) == (HALF_OPEN, True)
    house.succeed()
    assert house.breaker.level == CLOSED


def test_a_trial_that_never_ends_makes_room_in_the_end():
    house = House(trial=2).due()
    lost, other = house.breaker.acquire(), house.breaker.acquire()
    house.clock.now += 29
    assert house.breaker.acquire() is None
    house.clock.now += 1
    assert house.is_free
    assert [house.breaker.acquire() is not None for _ in range(3)] == [True, True, False]
    house.breaker.free(lost)  # after all: its room was given away already
    assert house.breaker.acquire() is None
    house.breaker.succeed(other)
    assert house.breaker.level == CLOSED


def test_results_of_another_epoch_change_nothing():
    house = House()
    early = [house.breaker.acquire() for _ in range(50)]
    house.opened()
    house.clock.now += 20
    for lease in early[:25]:
        house.breaker.fail(lease, "late")
    for lease in early[25:]:
        house.breaker.succeed(lease)
    assert (house.levels, house.breaker.seconds_left(house.clock.now)) == ([OPEN], 10)
    house.clock.now += 10
    trial = house.breaker.acquire()
    house.breaker.fail(early[0], "late")
    house.breaker.succeed(early[0])
    house.breaker.cool(early[0], 60)
    assert house.breaker.level == HALF_OPEN
    house.breaker.succeed(trial)
    house.breaker.fail(trial, "twice")
    for lease in early:
        house.breaker.fail(lease, "late")
    assert (house.levels, house.is_free) == ([OPEN, HALF_OPEN, CLOSED], True)


def test_only_one_of_trials_that_fail_together_opens_it():
    house = House(trial=3).due()
    trials = [house.breaker.acquire() for _ in range(3)]
    for lease in trials:
        house.breaker.fail(lease, "broken")
        house.clock.now += 5
    assert (house.levels, house.breaker.seconds_left(house.clock.now)) == ([OPEN, HALF_OPEN, OPEN], 15)


def test_a_failure_rate_opens_it():
    house = House(fail_max=100, failure_rate=0.5)
    for _ in range(2):
        house.succeed()
    house.fail()
    assert house.breaker.level == CLOSED
    house.fail()  # 2 of 4
    assert house.breaker.level == OPEN


def test_a_failure_rate_says_nothing_of_few_calls():
    house = House(fail_max=100, failure_rate=0.5)
    for _ in range(20):
        house.fail(3)
        house.clock.now += 11
    assert house.levels == []


def test_a_failure_rate_starts_anew_when_it_closes():
    house = House(fail_max=100, failure_rate=0.5, reset_timeout=1.0)
    house.fail(4)
    house.clock.now += 1
    house.succeed()
    house.fail(3)
    assert house.breaker.level == CLOSED


def test_it_cools_for_as_long_as_it_was_told():
    house = House()
    house.breaker.cool(house.breaker.acquire(), 8)
    assert (house.is_free, house.breaker.level) == (False, CLOSED)
    assert house.breaker.seconds_left(house.clock.now) == 8
    house.clock.now += 8
    assert (house.is_free, house.levels) == (True, [])


def test_what_others_are_told_meanwhile_does_not_make_it_cool_longer():
    house = House()
    burst = [house.breaker.acquire() for _ in range(50)]
    for lease in burst:
        house.breaker.cool(lease, 8)
        house.clock.now += 0.1
    assert house.breaker.seconds_left(house.clock.now) == pytest.approx(3)


@pytest.mark.parametrize(
    ("told", "cools"), [(0.0, 0), (-5.0, 0), (math.nan, 0), (86400.0, MOST_COOLING), (math.inf, MOST_COOLING)]
)
def test_it_does_not_cool_for_ever(told, cools):
    house = House()
    house.breaker.cool(house.breaker.acquire(), told)
    assert max(house.breaker.seconds_left(house.clock.now), 0) == cools


def test_who_comes_to_a_cooling_upstream_all_the_same_is_let_in():
    house = House()
    house.breaker.cool(house.breaker.acquire(), 8)
    house.succeed()


def test_a_trial_that_is_told_to_wait_makes_room_for_the_next_after_that():
    house = House().due()
    house.breaker.cool(house.breaker.acquire(), 8)
    assert (house.breaker.level, house.breaker.seconds_left(house.clock.now)) == (HALF_OPEN, 8)
    house.clock.now += 8
    house.succeed()
    assert house.breaker.level == CLOSED


def test_each_change_is_a_line_that_says_why(caplog):
    caplog.set_level(logging.INFO, "weir.circuit_breaker")
    house = House().due()
    house.fail()
    house.clock.now += 30
    house.succeed()
    lines = [(record.levelname, record.getMessage(), record.reason) for record in caplog.records]
    assert lines == [
        ("WARNING", "breaker open", "3 in a row failed, the last one: broken"),
        ("INFO", "breaker half-open", "its time is up"),
        ("WARNING", "breaker open", "a trial failed: broken"),
        ("INFO", "breaker half-open", "its time is up"),
        ("INFO", "breaker closed", "a trial succeeded"),
    ]
    assert {record.upstream for record in caplog.records} == {"gpu"}
    assert all(record.until for record in caplog.records if record.levelname == "WARNING")


def test_a_burst_of_refusals_is_one_line(caplog):
    caplog.set_level(logging.INFO, "weir.circuit_breaker")
    house = House()
    for _ in range(50):
        house.breaker.cool(house.breaker.acquire(), 8)
    assert [record.getMessage() for record in caplog.records] == ["upstream cools down"]


def test_what_it_says_of_itself():
    house = House()
    house.fail(2)
    assert house.breaker.described() == {
        "state": "closed",
        "reason": None,
        "until": None,
        "cooling_until": None,
        "failures_in_a_row": 2,
        "trials": 0,
    }
    house.fail()
    open_, house.clock.now = house.breaker.described(), house.clock.now + 30
    house.breaker.acquire()
    on_trial = house.breaker.described()
    assert (open_["state"], open_["until"] is not None) == ("open", True)
    assert (on_trial["state"], on_trial["trials"], on_trial["reason"]) == ("half-open", 1, "its time is up")
