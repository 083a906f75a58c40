"""Which breakers are one, and what the metric shows of several."""

import gc
import weakref

import prometheus_client
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


def test_the_same_upstream_under_the_same_rules_has_one_breaker():
    house = services()
    breaker = board_of(house).breaker("gpu", "circuit_breaker", RULES)
    assert board_of(house).breaker("gpu", "circuit_breaker", Rules(*RULES)) is breaker
    assert board_of(house).breaker("gpu", "circuit_breaker", OTHER) is not breaker
    assert board_of(house).breaker("gpu", "another_entry", RULES) is not breaker
    assert board_of(house).breaker("cpu", "circuit_breaker", RULES) is not breaker
    assert board_of(services()).breaker("gpu", "circuit_breaker", RULES) is not breaker


def test_the_metric_is_there_from_the_start_and_shows_the_worst():
    house = services()
    strict = board_of(house).breaker("gpu", "circuit_breaker", RULES)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 0.0'
    fail(strict)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 2.0'
    board_of(house).breaker("gpu", "circuit_breaker", OTHER)
    assert level(house) == b'weir_breaker_state{upstream="gpu"} 2.0'
    assert board_of(house).described()["upstreams"]["gpu"]["breaker"]["state"] == "open"


def test_a_board_goes_with_its_house():
    house = services()
    gone = weakref.ref(board_of(house))
    del house
    gc.collect()
    assert gone() is None
