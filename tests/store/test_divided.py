"""Workers that share nothing together never grant more than the limit, where each can have one at least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.claims import Claim
from proxy.store.divided import UNLIMITED, Divided


def claim(limit, amount=1, kind="window"):
    return Claim(kind, "team", "key", limit, amount, 60.0 if kind != "slot" else 0.0)


@given(st.integers(1, 8), st.integers(8, 40), st.sampled_from(["window", "total", "slot"]))
def test_the_sum_of_what_all_grant_is_at_most_the_limit(parts, limit, kind):
    stores = [Divided(lambda: 7.0, parts) for _ in range(parts)]
    taken = [store.take_now(f"{turn}", [claim(limit, kind=kind)]) for store in stores for turn in range(limit)]
    granted = sum(each.refused is None for each in taken)
    assert limit - parts < granted <= limit


def test_each_has_one_at_least_and_nothing_of_nothing():
    store = Divided(lambda: 7.0, 4)
    assert store.take_now("a", [claim(2)]).refused is None
    assert store.take_now("b", [claim(2)]).refused == 0
    assert Divided(lambda: 7.0, 4).take_now("c", [claim(0)]).refused == 0


@pytest.mark.parametrize(("amount", "refused"), [(30, None), (100, None), (101, 0)])
def test_what_needs_more_than_a_part_takes_all_of_it_unless_it_is_more_than_the_limit(amount, refused):
    store = Divided(lambda: 7.0, 4)
    assert store.take_now("a", [claim(100, amount)]).refused == refused


def test_what_has_no_limit_is_counted_as_it_is():
    store = Divided(lambda: 7.0, 4)
    assert store.take_now("a", [claim(UNLIMITED, 5)]).remaining == [UNLIMITED - 5]


def test_values_are_bounded_by_a_part():
    store = Divided(lambda: 7.0, 4)
    store.bound(8, 400)
    for place in range(4):
        store.put(f"{place}", b"x", 60)
    assert len(store.values) == 2
    store.put("large", b"x" * 101, 60)
    assert store.values.get("large") is None
