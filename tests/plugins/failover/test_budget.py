"""The retry budget: earned by requests, spent by tries in vain."""

import logging

import pytest
from prometheus_client import CollectorRegistry

from plugins.failover.budget import MOST, RESERVE, Budget, budget_of
from proxy.services import Services


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def budget(clock):
    return Budget(clock)


def spend(budget):
    """How many tokens there were."""
    taken = 0
    while budget.take():
        taken += 1
    return taken


def test_it_begins_with_its_reserve(budget):
    assert spend(budget) == RESERVE


def test_each_request_earns_its_share(budget):
    spend(budget)
    for _ in range(100):
        budget.earn(0.1)
    assert spend(budget) in {9, 10}  # a hundred tenths are not quite ten


def test_half_of_the_reserve_is_kept_for_moves(budget):
    for _ in range(5):
        assert budget.is_ample
        assert budget.take()
    budget.take()
    assert not budget.is_ample


def test_it_says_when_it_is_spent_and_takes_nothing_for_that(budget, clock):
    for _ in range(10):
        assert not budget.is_spent
        assert budget.take()
    assert budget.is_spent
    clock.now += 1
    assert not budget.is_spent
    assert budget.take()


def test_it_does_not_grow_for_ever(budget):
    for _ in range(10_000):
        budget.earn(1)
    assert spend(budget) == MOST


def test_time_fills_the_reserve_and_no_more(budget, clock):
    spend(budget)
    clock.now += 3
    assert spend(budget) == 3
    clock.now += 1e6
    assert spend(budget) == RESERVE


def test_time_takes_nothing_from_what_was_earned(budget, clock):
    for _ in range(20):
        budget.earn(1)
    clock.now += 1e6
    assert spend(budget) == RESERVE + 20


def test_a_total_outage_of_200_requests_a_second_adds_less_than_a_fifth(budget, clock):
    tries = 0
    for _ in range(2000):
        clock.now += 1 / 200
        budget.earn(0.1)
        tries += 1 + sum(budget.take() for _ in range(2))
    assert tries <= 1.12 * 2000


def test_that_it_is_spent_is_told_once(budget, clock, caplog):
    with caplog.at_level(logging.WARNING, "weir.failover"):
        spend(budget)
        spend(budget)
        clock.now += 5
        spend(budget)
    told = "the retry budget is spent: failures are passed on, nothing else is tried"
    assert [record.message for record in caplog.records] == [told, told]


def test_all_instances_share_one():
    services, others = Services(CollectorRegistry()), Services(CollectorRegistry())
    assert budget_of(services) is budget_of(services)
    assert budget_of(services) is not budget_of(others)
