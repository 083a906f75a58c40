"""Which breakers are one, and what the metric shows of several."""

import contextlib
import gc
import weakref

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry

from plugins.circuit_breaker.board import board_of
from plugins.circuit_breaker.breaker import Rules
from proxy.services import Services

RULES = Rules(1, 30.0, 1, None, 30.0, 10)
OTHER = RULES._replace(fail_max=2)


def services():
    return Services(CollectorRegistry())


def level(of):
    (line,) = (line for line in prometheus_client.generate_latest(of.metrics).splitlines() if line[:1] != b"#")
    return line


def fail(breaker):
    breaker.fail(breaker.acquire(), "broken")


@pytest.fixture
def used():
    with contextlib.ExitStack() as stack:

        def used(house, upstream="gpu", plugin="circuit_breaker", rules=RULES, address="http://gpu"):
            return stack.enter_context(board_of(house).breakers({upstream: address}, plugin, rules))[upstream]

        yield used


def test_the_same_upstream_under_the_same_rules_has_one_breaker(used):
    house = services()
    breaker = used(house)
    assert used(house, rules=Rules(*RULES)) is breaker
    assert used(house, rules=OTHER) is not breaker
    assert used(house, plugin="another_entry") is not breaker
    assert used(house, "cpu") is not breaker
    assert used(house, address="http://another") is not breaker
    assert used(services()) is not breaker


def test_the_metric_is_there_from_the_start_and_shows_the_worst(used):
    house = services()
    strict = used(house)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 0.0'
    fail(strict)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 2.0'
    used(house, rules=OTHER)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 2.0'
    assert board_of(house).described()["upstreams"]["gpu"]["breaker"]["state"] == "open"


def test_a_breaker_lives_as_long_as_a_config_uses_it():
    house = services()
    board, url = board_of(house), {"gpu": "http://gpu"}
    with board.breakers(url, "circuit_breaker", RULES) as old, contextlib.ExitStack() as new:
        fail(old["gpu"])
        assert new.enter_context(board.breakers(url, "circuit_breaker", RULES)) == old
        kept = new.pop_all()
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 2.0'
    kept.close()
    assert board.described() == {"upstreams": {}}
    assert b"gpu" not in prometheus_client.generate_latest(house.metrics)


def test_a_board_goes_with_its_house():
    house = services()
    gone = weakref.ref(board_of(house))
    del house
    gc.collect()
    assert gone() is None
