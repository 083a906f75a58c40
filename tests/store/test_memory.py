"""The store of one process."""

import pytest

from proxy import testing
from proxy.errors import RateLimited
from proxy.store.claims import Claim
from proxy.store.memory import SWEEP_AT, Memory, Values
from tests.store.house import SLOT, Clock, window


@pytest.fixture
def clock():
    return Clock()


def test_claims_are_taken_together_and_say_what_remains(clock):
    store = Memory(clock)
    taken = store.take_now("a", [window(), window("tokens", 100, 30), SLOT])
    assert (taken.refused, taken.remaining, taken.at) == (None, [9, 70, 1], 1000)


def test_a_refusal_takes_none_of_them_and_says_what_remains(clock):
    store = Memory(clock)
    assert store.take_now("a", [window(), window("tokens", 50, 30)]).refused is None
    taken = store.take_now("b", [window(), window("tokens", 50, 30)])
    assert (taken.refused, taken.remaining, taken.wait) == (1, [9, 20], pytest.approx(61, abs=1))
    assert store.take_now("c", [window()]).remaining == [8]


def test_of_several_that_do_not_fit_it_is_the_one_that_has_to_wait_longest(clock):
    store = Memory(clock)
    claims = [Claim("window", "bob", "second", 1, 1, 1), Claim("window", "bob", "day", 1, 1, 86400), SLOT]
    assert store.take_now("a", claims).refused is None
    refused = store.take_now("b", claims)
    assert (refused.refused, refused.remaining) == (1, [0, 0, 1])
    clock.now += refused.wait
    assert store.take_now("b", claims).refused is None


def test_what_is_one_subjects_is_not_anothers(clock):
    store = Memory(clock)
    store.take_now("a", [window(amount=10)])
    assert store.take_now("b", [window(subject="eve")]).remaining == [9]
    assert store.take_now("c", [window("tokens")]).remaining == [9]
    assert store.take_now("d", [window()]).refused == 0


def test_what_was_really_used_is_settled(clock):
    store = Memory(clock)
    taken = store.take_now("a", [window(), window("tokens", 100, 30), SLOT])
    store.settle(taken, [1, 12, 1])
    assert store.take_now("b", [window(), window("tokens", 100, 1)]).remaining == [8, 87]


def test_slots_are_given_back_once(clock):
    store = Memory(clock)
    one, two = store.take_now("a", [SLOT]), store.take_now("b", [SLOT])
    assert store.take_now("c", [SLOT]).refused == 0
    store.free(one)
    store.free(one)
    assert store.take_now("c", [SLOT]).remaining == [0]
    assert store.take_now("d", [SLOT]).refused == 0
    store.free(two)


def test_what_another_store_decided_is_counted_along_even_above_the_limit(clock):
    store = Memory(clock)
    claims = [window(limit=1), SLOT]
    noted = [store.note(claims) for _ in range(3)]
    assert store.take_now("b", [window(limit=3)]).refused == 0
    for at in noted:
        store.correct(claims, at, [0, 1])
        store.give_back(claims)
    assert store.take_now("b", [window(limit=3), SLOT]).remaining == [2, 1]


def test_no_claims_are_taken(clock):
    assert Memory(clock).take_now("a", []).refused is None


def test_keys_that_are_idle_are_forgotten(clock):
    store = Memory(clock)
    for number in range(SWEEP_AT):
        store.take_now("a", [window(subject=f"user {number}")])
    clock.now += 100
    store.take_now("a", [window()])
    assert store.state()["counts"] == 1


def test_keys_are_bounded_and_those_go_first_that_would_be_forgotten_first(clock):
    store = Memory(clock, max_counts=100)
    budget, slot = Claim("total", "bob", "usd", 10, 4, 86400), store.take_now("a", [SLOT])
    store.take_now("a", [budget])
    for number in range(200):
        clock.now += 1
        store.take_now("a", [window(subject=f"user {number}")])
        assert store.state()["counts"] <= 101
    assert store.take_now("b", [budget]).remaining == [2]
    assert store.take_now("b", [window(subject="user 199")]).remaining == [8]
    assert store.take_now("b", [window(subject="user 0")]).remaining == [9]
    store.free(slot)
    assert store.take_now("b", [SLOT]).remaining == [1]


def test_what_is_claimed_twice_at_once_has_to_fit_twice(clock):
    store = Memory(clock)
    assert store.take_now("a", [window(amount=6), window(amount=6)]).refused == 1
    assert store.take_now("b", [window(amount=5), window(amount=5)]).remaining == [5, 0]


def test_a_sweep_loses_nothing_of_what_is_being_claimed(clock):
    store = Memory(clock, max_counts=10)
    for number in range(100):
        claims = [window(subject=f"user {number}"), window("tokens", subject=f"user {number}")]
        store.take_now("a", claims)
        assert store.take_now("b", claims).remaining == [8, 8]


async def test_a_value_is_kept_for_its_time(clock):
    store, asking = Memory(clock), testing.exchange()
    store.put("k", b"value", 10)
    assert await store.get("k", asking) == b"value"
    clock.now += 10
    assert await store.get("k", asking) is None
    assert await store.get("other", asking) is None
    assert store.state()["values"] == 0


def test_a_value_is_found_at_once_and_what_is_claimed_is_taken_with_it(clock):
    store, asking = Memory(clock), testing.exchange()
    store.put("k", b"value", 10)
    assert (store.find("k", asking), store.find("other", asking)) == (b"value", None)
    grant = store.claim(asking, [window()], lambda *_: None)
    assert store.find("k", asking) == b"value"
    assert grant.is_taken
    store.claim(asking, [window(amount=10)], lambda *_: RateLimited("no"))
    with pytest.raises(RateLimited):
        store.find("k", asking)


def test_values_that_nobody_has_asked_for_go_first(clock):
    values = Values(clock, 2, 100)
    values.put("a", b"1", 10)
    values.put("b", b"2", 10)
    values.get("a")
    values.put("c", b"3", 10)
    assert [values.get(key) for key in "abc"] == [b"1", None, b"3"]


def test_values_are_bounded_in_bytes(clock):
    values = Values(clock, 100, 10)
    for number in range(20):
        values.put(str(number), b"1234", 10)
    assert (len(values), values.size) == (2, 8)
    values.put("0", b"12345678901", 10)
    assert (len(values), values.size, values.get("0")) == (2, 8, None)
    values.put("19", b"1", 10)
    assert (len(values), values.size) == (2, 5)
