"""What Redis is asked: the scripts, on a real redis-server, count as the memory of one process does."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.store import commands
from proxy.store.claims import Claim
from proxy.store.commands import SCRIPTS
from proxy.store.memory import Memory
from tests import redis_server
from tests.store.house import SLOT, Clock, left, window

SLOT_MS = 8000
HOUR = 3600


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server, server.talk() as ask:
        yield ask


@pytest.fixture
def redis(server):
    server("FLUSHALL")
    return server


def run(redis, script, command):
    return redis("EVAL", SCRIPTS[script], *command)


def take(redis, identity, *claims):
    answer = run(redis, "take", commands.take(identity, claims, SLOT_MS))
    return None if answer == commands.ASKED_BEFORE else commands.taken(identity, claims, [range(len(claims))], [answer])


def settle(redis, identity, claims, amounts, *, is_sure=True, taken=0.0, known=0.0):
    command = commands.settle(identity, claims, amounts, is_sure=is_sure, taken=taken, known=known)
    return run(redis, "settle", command)


def test_claims_are_taken_together_and_say_what_remains(redis):
    taken = take(redis, "a", window(), window("tokens", 100, 30), SLOT, Claim("total", "bob", "usd", 50, 20, HOUR))
    assert (taken.refused, taken.remaining) == (None, [9, 70, 1, 30])


def test_a_refusal_takes_none_of_them_and_leaves_nothing_behind(redis):
    claims = [window(), window("tokens", 20, 30), SLOT, Claim("total", "bob", "usd", 50, 20, HOUR)]
    taken = take(redis, "a", *claims)
    assert (taken.refused, taken.remaining) == (1, [10, 20, 2, 50])
    assert redis("KEYS", "*") == []


def test_every_key_that_it_leaves_is_forgotten_some_time(redis):
    claims = [window(), SLOT, Claim("total", "bob", "usd", 50, 20, HOUR)]
    take(redis, "a", *claims)
    settle(redis, "a", claims, [3, 1, 3])
    settle(redis, "b", claims, [3, 1, 3], is_sure=False)
    take(redis, "c", *claims)
    run(redis, "renew", commands.renew("bob", "concurrent", SLOT_MS, ["a"]))
    ages = {key: redis("PTTL", key) for key in redis("KEYS", "*")}
    assert len(ages) == 5
    assert all(0 < age <= 21_600_000 for age in ages.values()), ages


def test_of_several_that_do_not_fit_it_is_the_one_that_has_to_wait_longest(redis):
    claims = [window("minute", 1), window("hour", 1, seconds=HOUR), Claim("slot", "bob", "slots", 1)]
    take(redis, "a", *claims)
    refused = take(redis, "b", *claims)
    assert (refused.refused, refused.remaining) == (1, [0, 0, 0])
    assert HOUR - 1 <= refused.wait <= HOUR + 60


def test_after_the_told_wait_it_fits(redis):
    claim = window("fast", 1, seconds=0.12)
    take(redis, "a", claim)
    refused = take(redis, "b", claim)
    assert 0 < refused.wait <= 0.122
    time.sleep(refused.wait)
    assert take(redis, "c", claim).refused is None


def test_never_more_than_the_limit_in_any_span(redis):
    """By Redis's own clock: the script tells when it has decided."""
    claim, passed = window("fast", 3, seconds=0.06), []
    timed = SCRIPTS["take"].replace("\nreturn answer", "\nanswer[#answer + 1] = now\nreturn answer")
    for number in range(1500):
        refused, *_, now = redis("EVAL", timed, *commands.take(str(number), [claim], SLOT_MS))
        if not refused:
            passed.append(now)
    assert len(passed) > 3
    assert all(fourth - first >= 60 for first, fourth in zip(passed, passed[3:], strict=False))


def test_what_was_really_used_is_settled_once(redis):
    claims = [window("tokens", 100, 30), Claim("total", "bob", "usd", 50, 20, HOUR)]
    take(redis, "a", *claims)
    assert [settle(redis, "a", claims, [12, 25]) for _ in range(3)] == [1, 0, 0]
    assert [left(redis, claim) for claim in claims] == [88, 25]


@pytest.mark.parametrize("amounts", [[12, 25], [90, 0], [0, 0], [30, 20]])
@pytest.mark.parametrize("when", ["arrived", "never arrives", "arrives late"])
def test_nobody_knows_whether_the_claims_arrived_and_they_count_once(redis, when, amounts):
    claims = [window("tokens", 100, 30), Claim("total", "bob", "usd", 50, 20, HOUR)]
    if when == "arrived":
        take(redis, "a", *claims)
    for _ in range(2):
        settle(redis, "a", claims, amounts, is_sure=False)
    if when == "arrives late":
        assert take(redis, "a", *claims) is None
    settle(redis, "a", claims, amounts, is_sure=False)
    assert [left(redis, claim) for claim in claims] == [100 - amounts[0], 50 - amounts[1]]


def test_what_was_used_in_a_window_that_has_passed_is_nobodys_any_more(redis):
    claims = [window("tokens", 100, 30), Claim("total", "bob", "usd", 50, 20, HOUR)]
    settle(redis, "a", claims, [40, 5], is_sure=False, taken=300, known=200)
    settle(redis, "b", claims, [40, 5], is_sure=False, taken=300, known=0)
    settle(redis, "c", claims, [7, 5], is_sure=False, taken=30, known=20)
    assert [left(redis, claim) for claim in claims] == [53, 35]
    assert take(redis, "d", claims[0]._replace(amount=60)).wait <= 61


def test_what_was_settled_in_a_window_long_after_it_was_taken_is_not_lost(redis):
    claim = window("fast", 100, 5, seconds=0.06)
    take(redis, "a", claim)
    time.sleep(0.2)
    settle(redis, "a", [claim], [25])
    assert left(redis, claim) == 80


def test_a_slot_lasts_until_it_is_given_back_or_nobody_renews_it(redis):
    assert [run(redis, "take", commands.take(name, [SLOT], 50))[0] for name in "abc"] == [0, 0, 1]
    run(redis, "renew", commands.renew("bob", "concurrent", SLOT_MS, ["a"]))
    time.sleep(0.06)
    assert left(redis, SLOT) == 1  # a was renewed
    redis("ZREM", commands.key("bob", "concurrent"), "a")
    assert run(redis, "renew", commands.renew("bob", "concurrent", SLOT_MS, [])) == 0


def test_the_keys_of_a_subject_have_one_tag_whatever_it_is_called():
    assert commands.key("", "k") == "weir:{=}:k"
    assert commands.key("}{", "k") == "weir:{=}{}:k"
    assert commands.by_subject([window(), window(subject="eve"), SLOT]) == [[0, 2], [1]]


def test_the_parts_of_a_cluster_are_all_taken_or_refused_by_who_waits_longest():
    claims = [window(), window(subject="eve"), SLOT]
    parts = commands.by_subject(claims)
    taken = commands.taken("a", claims, parts, [[0, 0, 9, 1], [0, 0, 5]])
    assert (taken.refused, taken.remaining) == (None, [9, 5, 1])
    refused = commands.taken("a", claims, parts, [[2, 0, 9, 0], [1, 1500, 0]])
    assert (refused.refused, refused.remaining, refused.wait) == (1, [9, 0, 0], 1.5)


amounts = st.integers(0, 12)
steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "settle", "free"]),
        st.lists(st.tuples(st.integers(0, 4), amounts), min_size=1, max_size=3, unique_by=lambda part: part[0]),
        st.lists(amounts, min_size=3, max_size=3),
        st.integers(0, 30),
    ),
    max_size=40,
)
LIMITS = [
    Claim("window", "bob", "requests", 15, 1, 100 * HOUR),
    Claim("window", "bob", "tokens", 20, 1, 200 * HOUR),
    Claim("total", "bob", "usd", 25, 1, 100 * HOUR),
    Claim("slot", "bob", "slots", 3),
    Claim("total", "bob", "eur", 10, 1, 200 * HOUR),
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_memory_and_redis_agree(redis, steps):
    """Nothing of these windows passes while the test runs: then both give the same answers to the same questions."""
    redis("FLUSHALL")
    memory, open_ = Memory(Clock()), []
    for number, (what, parts, used, which) in enumerate(steps):
        if what == "take":
            claims = [
                LIMITS[place] if LIMITS[place].kind == "slot" else LIMITS[place]._replace(amount=amount)
                for place, amount in parts
            ]
            here, there = memory.take_now(str(number), claims), take(redis, str(number), *claims)
            assert (here.refused, here.remaining) == (there.refused, there.remaining)
            if here.refused is None:
                open_.append(here)
        elif open_ and what == "settle":
            taken = open_.pop(which % len(open_))
            memory.settle(taken, used[: len(taken.claims)])
            settle(redis, taken.identity, taken.claims, used[: len(taken.claims)])
        elif open_:
            taken = open_[which % len(open_)]
            memory.free(taken)
            for claim in taken.claims:
                if claim.kind == "slot":
                    redis("ZREM", commands.key(claim.subject, claim.key), taken.identity)
