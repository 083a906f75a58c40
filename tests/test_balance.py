"""Who is first, and who follows: shares by chance, load, pace, and hashes that hardly move."""

import asyncio
import collections
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import testing
from proxy.attempt import Attempt, Target
from proxy.balance import (
    compiled,
    fastest,
    least_busy,
    needs_body,
    note_end,
    note_pace,
    prefixed,
    rendezvous,
    shortest,
    sticky,
    weighted,
)
from proxy.exchange import PRINCIPAL, Principal
from proxy.fault import Fault, Kind
from proxy.fit import Capacity
from proxy.response import Response
from proxy.targets import Balance
from proxy.upstream.pace import Pace
from proxy.upstream.work import Reading, Work
from tests import wire

CHAT = testing.chat("hi")


class Load:
    """An upstream with so many requests under way."""

    def __init__(self, in_flight=0, *, is_healthy=True):
        self.in_flight = in_flight
        self.is_watched = not is_healthy
        self.is_healthy = is_healthy
        self.can_load = self.is_loading = self.is_full = False
        self.pace = self.work = self.capacity = None


def targets(**weights):
    return [Target(name, weight=weight) for name, weight in weights.items()]


def loads(**in_flight):
    return {name: Load(number) for name, number in in_flight.items()}


def names(ordered):
    return "".join(target.upstream for target in ordered)


def drawing(seed=1):
    return random.Random(seed).random


def asked(body=None, **headers):
    data = b"" if body is None else orjson.dumps(body)
    return testing.exchange(headers={name.replace("_", "-"): value for name, value in headers.items()}, body=data)


def first_of(order, given, times=10_000, exchange=None):
    return collections.Counter(order(exchange or asked(), given)[0].upstream for _ in range(times))


# -- weighted


def test_each_is_first_as_often_as_its_share():
    counted = first_of(weighted({}, drawing()), targets(a=5, b=3, c=2))
    assert counted["a"] == pytest.approx(5000, rel=0.05)
    assert counted["b"] == pytest.approx(3000, rel=0.05)
    assert counted["c"] == pytest.approx(2000, rel=0.05)


def test_the_others_follow_by_their_share_of_the_rest():
    order = weighted({}, drawing())
    second = collections.Counter(
        ordered[1].upstream
        for ordered in (order(asked(), targets(a=5, b=3, c=2)) for _ in range(20_000))
        if ordered[0].upstream == "a"
    )
    assert second["b"] / second["c"] == pytest.approx(1.5, rel=0.05)


def test_a_weight_of_zero_is_never_first_and_always_there():
    order = weighted({}, drawing())
    assert {names(order(asked(), targets(a=1, b=0, c=0))) for _ in range(1000)} == {"abc"}


def test_a_header_chooses_the_canary_whatever_it_says():
    order = weighted({"x-canary": "c"}, drawing())
    given = targets(a=9, b=1, c=0)
    assert {names(order(asked(X_Canary="no matter"), given)) for _ in range(1000)} == {"cab", "cba"}
    assert {names(order(asked(x_other="1"), given)) for _ in range(1000)} == {"abc", "bac"}


def test_a_canary_that_is_out_stops_nobody():
    order = weighted({"x-canary": "c"}, drawing())
    assert names(order(asked(x_canary="1"), targets(a=1))) == "a"


# -- least busy


def test_the_least_busy_is_first_and_the_others_follow_by_load():
    order = least_busy(loads(a=7, b=2, c=4), drawing())
    assert names(order(asked(), targets(a=1, b=1, c=1))) == "bca"


def test_load_counts_by_weight():
    order = least_busy(loads(a=7, b=3), drawing())
    assert names(order(asked(), targets(a=4, b=1))) == "ab"


def test_of_equals_each_is_first_as_often():
    counted = first_of(least_busy(loads(a=1, b=1), drawing()), targets(a=1, b=1))
    assert counted["a"] == pytest.approx(5000, rel=0.05)


def test_the_least_busy_of_weight_zero_is_last():
    assert names(least_busy(loads(a=0, b=9), drawing())(asked(), targets(a=0, b=1))) == "ba"


# -- pace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def paced(clock, **seconds):
    upstreams = loads(**dict.fromkeys(seconds, 0))
    order = fastest(upstreams, drawing(), clock)
    for name, took in seconds.items():
        upstreams[name].pace.note(took, clock.now)
    return order, upstreams


def test_the_faster_of_two_is_first():
    order, _ = paced(Clock(), a=0.5, b=0.2)
    assert first_of(order, targets(a=1, b=1), 100) == {"b": 100}


def test_what_is_under_way_counts():
    order, upstreams = paced(Clock(), a=0.5, b=0.2)
    upstreams["b"].in_flight = 3
    assert first_of(order, targets(a=1, b=1), 100) == {"a": 100}


def test_of_many_two_are_compared_so_that_the_fastest_does_not_get_all():
    order, _ = paced(Clock(), a=0.1, b=0.2, c=0.3, d=0.4)
    counted = first_of(order, targets(a=1, b=1, c=1, d=1), 6000)
    assert counted["a"] == pytest.approx(3000, rel=0.1)
    assert counted["b"] == pytest.approx(2000, rel=0.1)
    assert counted["c"] == pytest.approx(1000, rel=0.15)
    assert counted["d"] == 0


def test_the_others_follow_by_their_pace():
    order, _ = paced(Clock(), a=0.4, b=0.3, c=0.2, d=0.1)
    given = targets(a=1, b=1, c=1, d=1)
    follow = {names(order(asked(), given)) for _ in range(200)}
    assert follow == {"dcba", "cdba", "bdca"}


def test_a_target_that_was_slow_once_is_asked_again():
    clock = Clock()
    order, upstreams = paced(clock, a=2.0, b=0.2)
    first = []
    for _ in range(40):
        clock.now += 1.0
        first.append(names(order(asked(), targets(a=1, b=1)))[0])
        upstreams[first[-1]].pace.note(0.2, clock.now)
    assert set(first[:20]) == {"b"}
    assert "a" in first


@pytest.mark.parametrize(
    ("kind", "cost"),
    [
        (Kind.UNREACHABLE, 10.0),
        (Kind.SERVER_ERROR, 10.0),
        (Kind.RATE_LIMITED, 10.0),
        (Kind.CLIENT, 0.0),
        (Kind.CLIENT_GONE, 0.0),
        (Kind.CONTEXT_LENGTH, 0.0),
        (Kind.OURS, 0.0),
    ],
)
def test_a_failed_attempt_counts_where_the_upstream_was_at_fault(kind, cost):
    exchange, pace = asked(), Pace()
    attempt = Attempt(1, Target("a"), [], b"")
    attempt.fault = Fault(kind)
    note_pace(exchange, attempt, pace)
    assert pace.cost(0, attempt.started) == pytest.approx(cost, rel=0.01)


def test_an_answer_without_a_stream_counts_from_its_header():
    exchange, pace = asked(), Pace()
    attempt = Attempt(1, Target("a"), [], b"")
    exchange.response = Response(200)
    exchange.response.head_at = attempt.started + 0.25
    note_pace(exchange, attempt, pace)
    assert pace.cost(0, attempt.started) == pytest.approx(0.25, rel=0.01)


def test_a_stream_has_said_it_with_its_first_token():
    exchange, pace = asked(), Pace()
    attempt = Attempt(1, Target("a"), [], b"")
    attempt.pace, attempt.started = pace, attempt.started - 2.0
    exchange.attempts.append(attempt)
    exchange.note_first_token()
    exchange.response = Response(200)
    note_pace(exchange, attempt, pace)
    assert pace.cost(0, exchange.first_token_at) == pytest.approx(2.0, rel=0.01)


# -- queues


def queueing(clock, *, waiting=(), **running):
    """Servers that say how many they work on, and how many wait in them."""
    upstreams = loads(**dict.fromkeys(running, 0))
    for name, load in upstreams.items():
        load.work = Work(clock)
        load.work.read(Reading(running[name], dict(waiting).get(name, 0)), own=0, seconds=6.0)
    return shortest(upstreams, drawing(), clock), upstreams


def test_the_server_with_the_shorter_queue_is_first():
    order, _ = queueing(Clock(), a=8, b=8, waiting={"a": 5, "b": 1})
    assert first_of(order, targets(a=1, b=1), 100) == {"b": 100}


def test_a_queue_is_as_long_as_its_server_is_slow():
    clock = Clock()
    order, upstreams = queueing(clock, a=4, b=4, waiting={"a": 2, "b": 6})
    for name, seconds in {"a": 4.0, "b": 0.5}.items():
        for _ in range(20):
            mark = upstreams[name].work.begin()
            clock.now += seconds / 20
            upstreams[name].work.end(mark)
            upstreams[name].work.served()
    assert first_of(order, targets(a=1, b=1), 100) == {"b": 100}


def test_what_was_sent_since_the_reading_counts():
    order, upstreams = queueing(Clock(), a=8, b=8, waiting={"a": 2, "b": 1})
    for _ in range(2):
        upstreams["b"].work.begin()
    assert first_of(order, targets(a=1, b=1), 100) == {"a": 100}


def test_a_reading_that_is_old_counts_for_nothing():
    clock = Clock()
    order, upstreams = queueing(clock, a=8, b=8, waiting={"a": 50, "b": 1})
    clock.now += 7.0
    for name in "ab":
        upstreams[name].pace.note(0.2, clock.now)
    counted = first_of(order, targets(a=1, b=1), 2000)
    assert counted["a"] == pytest.approx(1000, rel=0.1)


def test_without_readings_the_pace_and_its_own_requests_decide():
    upstreams = loads(a=0, b=0)
    order = shortest(upstreams, drawing(), clock := Clock())
    for name, took in {"a": 0.5, "b": 0.2}.items():
        upstreams[name].pace.note(took, clock.now)
    assert first_of(order, targets(a=1, b=1), 100) == {"b": 100}
    for _ in range(3):
        upstreams["b"].work.begin()
    assert first_of(order, targets(a=1, b=1), 100) == {"a": 100}


def test_replicas_that_read_the_same_do_not_all_go_to_one():
    """Of four, one is idle: it gets what two draws give it, and no more."""
    order, _ = queueing(Clock(), a=0, b=8, c=8, d=8, waiting={"b": 1, "c": 1, "d": 1})
    counted = first_of(order, targets(a=1, b=1, c=1, d=1), 6000)
    assert counted["a"] == pytest.approx(3000, rel=0.1)


def test_who_failed_is_left_alone_for_a_while():
    upstreams = loads(a=0, b=0)
    order = shortest(upstreams, drawing(), clock := Clock())
    upstreams["a"].pace.note_failure(0.001, clock.now)
    upstreams["b"].pace.note(2.0, clock.now)
    assert first_of(order, targets(a=1, b=1), 100) == {"b": 100}


def test_only_what_was_served_is_work_done():
    exchange, work = asked(), Work()
    for fault in (Fault(Kind.OVERLOADED), None):
        attempt = Attempt(1, Target("a"), [], b"")
        attempt.fault, attempt.work = fault, work
        note_end(exchange, attempt)
    mark = work.begin()
    work.end(mark)
    assert work.pace(1.0) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("by", ["ordered", "queue", "least_busy"])
def test_who_is_full_or_loading_stands_back_whatever_the_balance(by):
    many, upstreams, balance = route(by, a=True, b=True, c=True)
    upstreams["a"].can_load, upstreams["b"].capacity = True, Capacity(concurrent=1)
    order = compiled(balance, many, upstreams)
    upstreams["a"].is_loading = upstreams["b"].is_full = True
    assert names(order(asked())) == "cba"


def test_who_can_never_take_it_is_left_out():
    many, upstreams, balance = route("ordered", a=True, b=True)
    upstreams["a"].capacity = Capacity(input_tokens=3)
    order = compiled(balance, many, upstreams)
    assert names(order(asked({"messages": [{"content": "one two three four"}]}))) == "b"
    assert names(order(asked({"messages": [{"content": "one two three"}]}))) == "ab"


# -- hashes


KEYS = [f"session-{number}".encode() for number in range(2000)]


def test_every_replica_hashes_alike():
    given = [Target("gpu-1"), Target("gpu-2", "llama"), Target("gpu-3")]
    assert [[t.upstream for t in rendezvous(key, given)] for key in KEYS[:3]] == [
        ["gpu-1", "gpu-3", "gpu-2"],
        ["gpu-2", "gpu-3", "gpu-1"],
        ["gpu-1", "gpu-2", "gpu-3"],
    ]


def test_keys_spread_by_weight():
    counted = collections.Counter(rendezvous(key, targets(a=2, b=1, c=1))[0].upstream for key in KEYS)
    assert counted["a"] == pytest.approx(1000, rel=0.1)
    assert counted["b"] == pytest.approx(500, rel=0.15)


def test_where_a_target_goes_only_its_own_keys_move_and_to_their_second():
    for key in KEYS:
        before = rendezvous(key, targets(a=1, b=1, c=1, d=1))
        after = rendezvous(key, targets(a=1, b=1, d=1))
        assert names(after) == names(before).replace("c", "")


def test_a_target_that_comes_takes_its_share_and_moves_nothing_else():
    moved = 0
    for key in KEYS:
        before, after = (rendezvous(key, given) for given in (targets(a=1, b=1, c=1), targets(a=1, b=1, c=1, d=1)))
        assert names(after).replace("d", "") == names(before)
        moved += after[0].upstream == "d"
    assert moved == pytest.approx(500, rel=0.15)


@given(st.binary(min_size=1), st.permutations("abcdef"))
def test_the_order_of_the_config_does_not_matter(key, letters):
    assert names(rendezvous(key, [Target(letter) for letter in letters])) == names(
        rendezvous(key, [Target(letter) for letter in "abcdef"])
    )


def test_two_models_of_one_upstream_are_two_targets():
    given = [Target("a", "small"), Target("a", "large")]
    assert collections.Counter(rendezvous(key, given)[0].model for key in KEYS).keys() == {"small", "large"}


def test_a_weight_of_zero_is_never_a_keys_favourite():
    assert {rendezvous(key, targets(a=1, b=0))[0].upstream for key in KEYS} == {"a"}


# -- sticky


def key_of(key, exchange):
    """The target that such a balance finds among a hundred: as good as the key itself."""
    balance = Balance.model_validate({"by": "sticky", "key": key})
    many = [Target(f"t{number}") for number in range(100)]
    order = compiled(balance, many, {target.upstream: Load() for target in many})
    return {order(exchange)[0].upstream for _ in range(5)}


def test_requests_with_the_same_header_stay_together():
    assert key_of("header:x-session", asked(X_Session="one")) == key_of("header:x-session", asked(x_session="one"))
    assert key_of("header:x-session", asked(x_session="one")) != key_of("header:x-session", asked(x_session="two"))


def test_those_of_one_principal_do():
    def of(name):
        exchange = asked()
        exchange[PRINCIPAL] = Principal(name)
        return key_of("principal", exchange)

    assert of("team-a") == of("team-a") != of("team-b")


@pytest.mark.parametrize("key", ["header:x-session", "principal", "conversation"])
def test_who_has_no_key_goes_by_chance(key):
    assert len(key_of(key, asked())) > 1


FIRST = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a weir?"}]
LATER = [*FIRST, {"role": "assistant", "content": "A dam."}, {"role": "user", "content": "Where?"}]


def test_a_conversation_stays_over_its_turns():
    chat = [asked({"model": "m", "messages": messages}) for messages in (FIRST, LATER)]
    assert key_of("conversation", chat[0]) == key_of("conversation", chat[1])
    other = asked({"model": "m", "messages": [FIRST[0], {"role": "user", "content": "What is a lock?"}]})
    assert key_of("conversation", chat[0]) != key_of("conversation", other)


def test_so_does_one_of_the_responses_api():
    turns = [
        asked({"instructions": "Be brief.", "input": [FIRST[1]]}),
        asked({"instructions": "Be brief.", "input": LATER[1:]}),
    ]
    assert key_of("conversation", turns[0]) == key_of("conversation", turns[1])


def test_a_favourite_that_is_out_leaves_the_next_in_line():
    order = sticky(lambda _: b"key")
    everyone = targets(a=1, b=1, c=1)
    found = order(asked(), everyone)
    assert order(asked(), [target for target in everyone if target is not found[0]]) == found[1:]


# -- prefix

PROMPT = {"messages": [{"role": "system", "content": "x" * 3000}, {"role": "user", "content": "one"}]}


def prefix_of(body, size=2048):
    return names(prefixed(size, 1.25, loads(a=0, b=0, c=0, d=0, e=0), drawing())(asked(body), targets(**FIVE)))


FIVE = dict.fromkeys("abcde", 1)


def test_prompts_that_begin_alike_go_to_one_target():
    other = {"messages": [PROMPT["messages"][0], {"role": "user", "content": "two"}]}
    assert prefix_of(PROMPT) == prefix_of(other)
    assert prefix_of(PROMPT, 4000) != prefix_of(other, 4000)


def test_a_favourite_above_its_share_of_the_load_is_not_first():
    upstreams = loads(a=0, b=0, c=0, d=0)
    order = prefixed(2048, 1.25, upstreams, drawing())
    given = targets(a=1, b=1, c=1, d=1)
    first, second, *_ = order(asked(PROMPT), given)
    upstreams[first.upstream].in_flight = 1
    assert order(asked(PROMPT), given)[0] is second
    for load in upstreams.values():
        load.in_flight += 8
    assert order(asked(PROMPT), given)[0] is first
    upstreams[first.upstream].in_flight = 20
    found = order(asked(PROMPT), given)
    assert found[0] is second
    assert found[-1] is first


def test_a_burst_of_one_prompt_spreads_to_no_more_than_the_spill():
    upstreams = loads(a=0, b=0, c=0, d=0)
    order = prefixed(2048, 1.25, upstreams, drawing())
    for _ in range(400):
        upstreams[order(asked(PROMPT), targets(a=1, b=1, c=1, d=1))[0].upstream].in_flight += 1
    assert max(load.in_flight for load in upstreams.values()) <= 125
    assert sum(load.in_flight for load in upstreams.values()) == 400


def test_a_larger_target_takes_more_before_it_spills():
    upstreams = loads(a=0, b=0)
    order = prefixed(2048, 1.25, upstreams, drawing())
    for _ in range(400):
        upstreams[order(asked(PROMPT), targets(a=3, b=1))[0].upstream].in_flight += 1
    assert upstreams["a"].in_flight >= 275


def test_without_a_prompt_chance_decides():
    order = prefixed(2048, 1.25, loads(a=0, b=0), drawing())
    assert {names(order(asked(), targets(a=1, b=1))) for _ in range(100)} == {"ab", "ba"}


# -- compiled: health and static answers


def route(by="weighted", **healthy):
    many = targets(**dict.fromkeys(healthy, 1))
    return many, {name: Load(is_healthy=is_healthy) for name, is_healthy in healthy.items()}, Balance(by=by)


def test_as_they_stand_costs_nothing():
    many, upstreams, balance = route("ordered", a=True, b=True)
    assert compiled(balance, many, upstreams) is None


def test_who_is_unhealthy_is_left_out_while_another_is_there():
    many, upstreams, balance = route("ordered", a=False, b=True)
    order = compiled(balance, many, upstreams)
    assert names(order(asked())) == "b"
    upstreams["b"].is_healthy = False
    assert names(order(asked())) == "ab"
    upstreams["a"].is_healthy = True
    assert names(order(asked())) == "a"


def test_a_static_answer_is_last_and_keeps_nobody_out():
    many, upstreams, balance = route("weighted", a=True, b=False)
    order = compiled(balance, [*many, Target("", static="Sorry.")], upstreams)
    assert [target.static for target in order(asked())] == [None, "Sorry."]
    upstreams["a"].is_healthy = False
    assert [target.static for target in order(asked())] == [None, None, "Sorry."]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/embeddings"), ("GET", "/v1/responses"), ("POST", "/v1/responses/r1/cancel")]
)
def test_a_static_answer_is_none_to_anything_else(method, path):
    order = compiled(Balance(by="ordered"), [Target("", static="Sorry.")], {})
    assert order(testing.exchange(method, path)) == []


@pytest.mark.parametrize(
    ("balance", "needs"),
    [
        ({"by": "prefix"}, True),
        ({"by": "sticky"}, True),
        ({"by": "sticky", "key": "principal"}, False),
        ({"by": "weighted"}, False),
        ({"by": "ordered"}, False),
    ],
)
def test_which_need_the_body(balance, needs):
    assert needs_body(Balance.model_validate(balance)) is needs


# -- over the wire


def house(ups, balance, plugins="[]", more=""):
    blocks = ", ".join(f'u{place}: {{base_url: "{up.url}/v1"{more}}}' for place, up in enumerate(ups))
    listed = ", ".join(f"u{place}" for place in range(len(ups)))
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f"upstreams: {{{blocks}}}\nplugins: {plugins}\n"
        f"routes: [{{name: main, targets: [{listed}], balance: {balance}}}]\n"
    )


@pytest.mark.parametrize("balance", ["weighted", "least_busy", "ewma", "sticky", "prefix"])
async def test_every_balance_spreads_requests_and_leaves_nothing_under_way(balance):
    async with (
        testing.upstream(CHAT) as one,
        testing.upstream(CHAT) as two,
        testing.configured(house([one, two], balance)) as weir,
    ):
        for number in range(40):
            body = {"model": "m", "stream": number % 2 == 0, "messages": [{"role": "user", "content": str(number)}]}
            assert (await testing.ask(weir, body)).status == 200
        await wire.until(lambda: not weir.in_flight)
        assert [upstream.in_flight for upstream in weir.gateway.upstreams.values()] == [0, 0]
    assert min(len(one.requests), len(two.requests)) > 0
    assert len(one.requests) + len(two.requests) == 40


async def test_a_conversation_with_a_long_prompt_is_read_before_it_is_sent():
    long = {"role": "system", "content": "x" * 200_000}
    async with (
        testing.upstream(CHAT) as one,
        testing.upstream(CHAT) as two,
        testing.configured(house([one, two], "sticky")) as weir,
    ):
        for number in range(10):
            said = [{"role": "assistant", "content": str(turn)} for turn in range(number)]
            body = {"model": "m", "messages": [long, {"role": "user", "content": "hello"}, *said]}
            assert (await testing.ask(weir, body)).status == 200
    assert sorted([len(one.requests), len(two.requests)]) == [0, 10]


async def test_a_slow_upstream_is_avoided_and_a_failing_one_too():
    async def slow(received, wire_):
        await asyncio.sleep(0.3)
        await CHAT(received, wire_)

    down = testing.answer(b'{"error": {"message": "down"}}', status=503)
    for other in (slow, down):
        async with (
            testing.upstream(CHAT) as fast,
            testing.upstream(other) as bad,
            testing.configured(house([fast, bad], "ewma")) as weir,
        ):
            for _ in range(30):
                await testing.ask(weir, {"model": "m", "messages": []})
        assert len(bad.requests) <= 2
        assert len(fast.requests) >= 28


async def test_who_sticks_by_principal_wants_somebody_who_says_who_calls(caplog):
    async with testing.upstream(CHAT) as up, testing.configured(house([up], "{by: sticky, key: principal}")):
        pass
    assert "route 'main' sticks by principal" in caplog.text
