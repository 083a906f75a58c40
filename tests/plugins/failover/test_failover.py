"""Failover as the app and the upstreams see it: who is asked, how often, when, and which answer goes down."""

import asyncio

import openai
import orjson
import pytest

from proxy import testing
from proxy.plugin import Plugin, PluginConfig, Rejected
from tests import wire
from tests.contract import double
from tests.plugins.failover.house import (
    ASK,
    DOWN,
    SERVES,
    STREAM,
    TOO_LONG,
    Scripted,
    drops,
    house,
    idle,
    limited,
    refusal,
    sdk,
    silent,
    slowly,
    way,
)
from tests.upstream.double import deaf

BREAKER = {"circuit_breaker": {"fail_max": 1, "max_wait": "0s"}}

# -- the same target, or the next


async def test_an_error_is_met_by_one_more_try():
    async with house(Scripted(DOWN, SERVES), SERVES) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert way(answer) == (200, "a", "2")
    assert (len(a.requests), b.requests) == (2, [])


async def test_a_target_that_stays_down_gives_way_to_the_next():
    async with house(DOWN, SERVES) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert way(answer) == (200, "b", "3")
    assert (len(a.requests), len(b.requests)) == (2, 1)
    assert answer.json()["choices"][0]["message"]["content"] == "hello world"


@pytest.mark.parametrize("status", [500, 502, 503, 520, 529])
async def test_a_server_that_cannot_serve_gives_way(status):
    async with house(refusal(status), SERVES) as (weir, *_):
        answer = await testing.ask(weir, ASK)
    assert way(answer)[:2] == (200, "b")


async def test_every_target_has_its_turn_before_one_has_two():
    async with house(DOWN, DOWN, SERVES) as (weir, *ups):
        assert way(await testing.ask(weir, ASK)) == (200, "c", "3")
    assert [len(up.requests) for up in ups] == [1, 1, 1]


async def test_an_upstream_that_is_not_there_gives_way():
    async with testing.upstream(DOWN) as gone:
        pass
    elsewhere = {"a": gone.url}
    async with house(DOWN, SERVES, elsewhere=elsewhere) as (weir, *_):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")


async def test_the_last_answer_is_passed_on_as_it_came():
    last = refusal(503, "no_capacity", "all busy", retry_after="300", x_own="1")
    async with house(DOWN, last) as (weir, *_):
        answer = await testing.ask(weir, ASK)
    assert way(answer) == (503, "b", "3")
    assert (answer.headers["retry-after"], answer.headers["x-own"]) == ("300", "1")
    assert answer.json()["error"] == {"message": "all busy", "type": "error", "param": None, "code": "no_capacity"}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_single_target_is_asked_a_few_times_with_random_pauses(status):
    script = Scripted(refusal(status))
    async with house(script) as (weir, _):
        answers = [await testing.ask(weir, ASK) for _ in range(4)]
    assert [way(answer) for answer in answers] == [(status, "a", "3")] * 4
    tries = [script.at[place : place + 3] for place in range(0, 12, 3)]
    assert all(last - first < 3 for first, _, last in tries)
    pauses = [second - first for first, second, _ in tries]
    assert max(pauses) - min(pauses) > 0.001


class Picky(Plugin[PluginConfig]):
    """Lets upstream `a` serve, and nobody else."""

    def select_targets(self, exchange, targets):
        return [target for target in targets if target.upstream == "a"]


@pytest.mark.parametrize("place", ["before", "behind"])
async def test_whom_another_plugin_does_not_let_serve_is_no_other_target(place):
    picky = {place: [{"picky": {"use": f"{__name__}:Picky"}}]}
    async with house(Scripted(DOWN, refusal(503), SERVES), SERVES, **picky) as (weir, a, b):
        assert way(await testing.ask(weir, ASK)) == (200, "a", "3")
    assert (len(a.requests), b.requests) == (3, [])


async def test_two_concurrent_requests_do_not_disturb_each_other():
    async with house(slowly(DOWN, 0.05), SERVES) as (weir, a, b):
        answers = await asyncio.gather(*(testing.ask(weir, {**ASK, "user": str(n)}) for n in range(4)))
    assert [way(answer) for answer in answers] == [(200, "b", "3")] * 4
    assert sorted(received.json()["user"] for received in b.requests) == ["0", "1", "2", "3"]
    assert len(a.requests) == 8


# -- what the upstream said of when to come back


async def test_a_short_retry_after_is_waited_for():
    script = Scripted(limited("2"), SERVES)
    async with house(script, SERVES) as (weir, _, b):
        answer = await testing.ask(weir, ASK)
    assert way(answer) == (200, "a", "2")
    assert 2 <= script.gaps()[0] < 6
    assert not b.requests


async def test_each_answers_own_retry_after_counts():
    script = Scripted(limited("1"), refusal(429, "rate_limit_exceeded", retry_after_ms="300"), SERVES)
    async with house(script) as (weir, _):
        assert way(await testing.ask(weir, ASK)) == (200, "a", "3")
    first, second = script.gaps()
    assert first >= 1
    assert 0.3 <= second < first


async def test_a_retry_after_that_is_too_long_is_left_to_the_next_target():
    async with house(limited("60"), SERVES) as (weir, a, _):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")
    assert len(a.requests) == 1


async def test_a_wait_beyond_the_deadline_is_passed_on_at_once():
    script = Scripted(limited("60"))
    async with house(script, failover={"deadline": "5s"}) as (weir, _):
        async with asyncio.timeout(3):
            answer = await testing.ask(weir, ASK)
    assert way(answer) == (429, "a", "1")
    assert answer.headers["retry-after"] == "60"


# -- what it said of asking it at all


@pytest.mark.parametrize(("others", "expected"), [([SERVES], (200, "b", "2")), ([], (500, "a", "1"))])
async def test_who_says_that_it_should_not_be_asked_again_is_not(others, expected):
    never = refusal(500, "server_error", x_should_retry="false")
    async with house(never, *others) as (weir, a, *_):
        answer = await testing.ask(weir, ASK)
    assert (way(answer), len(a.requests)) == (expected, 1)


async def test_who_says_that_it_should_be_asked_again_is():
    once_more = Scripted(refusal(409, "conflict", x_should_retry="true"), SERVES)
    async with house(once_more, SERVES) as (weir, _, b):
        assert way(await testing.ask(weir, ASK)) == (200, "a", "2")
    assert not b.requests


# -- silence, and time


async def test_a_silent_target_is_left_after_one_limit():
    async with house(silent, SERVES, failover={"first_byte": "500ms"}) as (weir, a, _):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")
        await wire.until(a.wires[0].gone.is_set)
    assert len(a.requests) == 1


async def test_a_silent_single_target_is_not_asked_again():
    async with house(silent, failover={"first_byte": "100ms"}) as (weir, a):
        answer = await testing.ask(weir, ASK)
    assert way(answer) == (504, "a", "1")
    assert len(a.requests) == 1


async def test_a_stream_that_is_awaited_has_to_begin_soon():
    async with house(silent, SERVES, failover={"first_token": "100ms"}) as (weir, a, _):
        assert way(await testing.ask(weir, STREAM)) == (200, "b", "2")
    assert len(a.requests) == 1


async def test_an_answer_in_one_piece_may_take_longer_than_a_first_token():
    async with house(slowly(SERVES, 0.4), SERVES, failover={"first_token": "100ms"}) as (weir, *_):
        assert way(await testing.ask(weir, ASK)) == (200, "a", "1")


async def test_a_stream_that_nobody_else_could_serve_may_take_its_time():
    async with house(slowly(SERVES, 0.4), failover={"first_token": "100ms"}) as (weir, *_):
        assert way(await testing.ask(weir, STREAM)) == (200, "a", "1")


async def test_the_deadline_ends_the_last_try_and_lets_none_follow():
    async with house(slowly(DOWN, 0.3), silent, SERVES, failover={"deadline": "1s"}) as (weir, a, b, c):
        async with asyncio.timeout(5):
            answer = await testing.ask(weir, ASK)
    assert way(answer) == (504, "b", "2")
    assert (len(a.requests), len(b.requests), len(c.requests)) == (1, 1, 0)


async def test_that_harms_no_upstream_whose_own_limit_was_longer():
    async with house(silent, failover={"deadline": "200ms"}, behind=[BREAKER]) as (weir, a):
        answers = [await testing.ask(weir, ASK) for _ in range(2)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["deadline_exceeded"] * 2
    assert len(a.requests) == 2


async def test_it_does_where_that_was_no_longer():
    limits = {"timeouts": {"first_byte": "200ms"}}
    async with house(silent, failover={"deadline": "200ms"}, behind=[BREAKER], upstream=limits) as (weir, a):
        answers = [await testing.ask(weir, ASK) for _ in range(2)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["upstream_timeout", "upstream_unavailable"]
    assert len(a.requests) == 1


async def test_the_deadline_ends_a_wait_for_a_connection():
    with deaf() as port:
        elsewhere = {"a": f"http://127.0.0.1:{port}"}
        async with house(SERVES, failover={"deadline": "200ms"}, elsewhere=elsewhere) as (weir, _):
            async with asyncio.timeout(3):
                answer = await testing.ask(weir, ASK)
    assert (way(answer), answer.json()["error"]["code"]) == ((504, "a", "1"), "deadline_exceeded")


async def test_a_static_answer_is_there_at_the_deadline():
    async with house(silent, failover={"deadline": "200ms"}, static="come back later") as (weir, _):
        assert (await testing.ask(weir, ASK)).json()["choices"][0]["message"]["content"] == "come back later"


# -- what no other try can help


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_value"), (422, "nope")])
async def test_what_the_app_did_wrong_is_told_it_at_once(status, code):
    async with house(refusal(status, code), SERVES) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
    assert way(answer) == (status, "a", "1")
    assert (len(a.requests), b.requests) == (1, [])


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
async def test_a_content_filter_is_not_gone_around(code):
    async with house(refusal(400, code, "blocked"), SERVES) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
    assert (way(answer), answer.json()["error"]["code"]) == ((400, "a", "1"), code)
    assert (len(a.requests), b.requests) == (1, [])


async def test_one_try_is_all_where_the_config_says_so():
    async with house(DOWN, SERVES, failover={"max_attempts": 1}) as (weir, a, b):
        assert way(await testing.ask(weir, ASK)) == (500, "a", "1")
    assert (len(a.requests), b.requests) == (1, [])


async def test_whose_own_key_is_refused_is_told_so():
    refused = refusal(401, "invalid_api_key", "Incorrect API key provided")
    async with house(refused, SERVES, upstream={"auth": "passthrough"}) as (weir, _, b):
        assert way(await testing.ask(weir, ASK)) == (401, "a", "1")
    assert not b.requests


async def test_a_refusal_of_our_key_is_not_the_apps_business():
    refused = refusal(401, "invalid_api_key", "Incorrect API key provided")
    async with house(refused, SERVES, upstream={"api_key": "sk-1234567890"}) as (weir, *_):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")


# -- prompts that are too long


async def test_a_prompt_that_is_too_long_goes_to_a_larger_window():
    windows = [{"context_window": 8192}, {"context_window": 4096}, {"context_window": 128_000}]
    async with house(TOO_LONG, SERVES, SERVES, targets=windows) as (weir, a, b, c):
        assert way(await testing.ask(weir, STREAM)) == (200, "c", "2")
    assert (len(a.requests), len(b.requests), len(c.requests)) == (1, 0, 1)


@pytest.mark.parametrize("window", [{"context_window": 8192}, {"context_window": 4096}, {}])
async def test_no_equal_smaller_or_unknown_window_gets_it(window):
    async with house(TOO_LONG, SERVES, targets=[{"context_window": 8192}, window]) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
    assert (way(answer), answer.json()["error"]["code"]) == ((400, "a", "1"), "context_length_exceeded")
    assert (len(a.requests), b.requests) == (1, [])


async def test_long_prompts_find_their_model_however_many_there_are():
    windows = [{"context_window": 8192}, {"context_window": 128_000}]
    async with house(TOO_LONG, SERVES, targets=windows) as (weir, *_):
        answers = [await testing.ask(weir, ASK) for _ in range(30)]
    assert {way(answer) for answer in answers} == {(200, "b", "2")}


# -- what may not be done twice


async def test_a_post_that_was_taken_and_dropped_is_not_sent_again():
    async with house(drops, SERVES) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
    assert (way(answer), answer.json()["error"]["code"]) == ((502, "a", "1"), "upstream_closed")
    assert (len(a.requests), b.requests) == (1, [])


async def test_it_is_where_the_upstream_says_that_it_does_no_harm():
    async with house(drops, SERVES, upstream={"replay_safe": True}) as (weir, a, b):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "2")
    assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_a_get_that_was_dropped_is_asked_again():
    async with house(drops, testing.answer(b'{"object": "list", "data": []}')) as (weir, a, b):
        answer = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (answer.status, answer.head.get("x-weir-upstream")) == (200, "b")
    assert (len(a.requests), len(b.requests)) == (1, 1)


FAILED = b'{"object":"fine_tuning.job","id":"ftjob-1","status":"failed","error":{"code":"server_error","message":"x"}}'


async def test_what_was_kept_of_a_failure_is_an_answer():
    async with house(testing.answer(FAILED), SERVES) as (weir, a, b):
        answer = await wire.fetch(weir.url, b"GET /v1/fine_tuning/jobs/ftjob-1 HTTP/1.1\r\nhost: a\r\n\r\n")
        assert answer.body == FAILED
        assert await double.at_rest(weir) == {"ok": 1}
    assert (len(a.requests), b.requests) == (1, [])


async def test_a_failure_that_is_told_of_the_request_itself_is_none():
    async with house(testing.answer(FAILED), SERVES) as (weir, *_):
        assert way(await testing.ask(weir, ASK)) == (200, "b", "3")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/responses/resp_1/cancel"])
async def test_what_an_upstream_keeps_is_asked_of_that_upstream_alone(path):
    async with house(Scripted(DOWN, DOWN, SERVES), SERVES) as (weir, a, b):
        assert way(await testing.ask(weir, {}, path=path)) == (200, "a", "3")
    assert (len(a.requests), b.requests) == (3, [])


# -- a static answer, which needs no upstream


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        (DOWN, {}),
        (DOWN, {"max_attempts": 1}),
        (drops, {}),
        (silent, {"deadline": "100ms"}),
        (limited("60"), {}),
    ],
)
async def test_a_static_answer_is_there_whatever_happens(script, settings):
    async with house(script, failover=settings, static="We are sorry.") as (weir, a):
        answer = await testing.ask(weir, ASK)
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "We are sorry."
    assert 1 <= len(a.requests) <= 2


async def test_a_static_answer_is_there_when_the_budget_is_spent():
    async with house(DOWN, static="We are sorry.") as (weir, a):
        answers = [await testing.ask(weir, ASK) for _ in range(40)]
    assert {answer.status for answer in answers} == {200}
    assert len(a.requests) <= 40 * 1.1 + 10


async def test_no_static_answer_hides_what_the_app_did_wrong():
    async with house(refusal(400), static="We are sorry.") as (weir, _):
        assert way(await testing.ask(weir, ASK)) == (400, "a", "1")


# -- the retry budget


async def test_a_total_outage_is_not_made_worse():
    async with house(DOWN, DOWN) as (weir, a, b):
        for _ in range(10):
            answers = await asyncio.gather(*(testing.ask(weir, ASK) for _ in range(20)))
            assert {answer.status for answer in answers} == {500}
    assert len(a.requests) + len(b.requests) <= 1.2 * 200


async def test_the_budget_is_one_for_all_routes():
    async with house(DOWN, routes=["one", "two"]) as (weir, a):
        for _ in range(20):
            for path in ("/one", "/two"):
                await testing.ask(weir, ASK, path=path)
    assert len(a.requests) <= 40 + 10 + 4 + 2


async def test_a_next_target_that_serves_costs_nothing_of_it():
    async with house(DOWN, SERVES) as (weir, *_):
        answers = [await testing.ask(weir, ASK) for _ in range(40)]
    assert [answer.status for answer in answers] == [200] * 40


async def test_a_next_target_that_is_known_to_serve_takes_all_there_are():
    async with house(DOWN, SERVES) as (weir, *_):
        await testing.ask(weir, ASK)
        answers = await asyncio.gather(*(testing.ask(weir, ASK) for _ in range(60)))
    assert {answer.status for answer in answers} == {200}


async def test_what_a_plugin_refuses_costs_nothing_of_it():
    refuses = {"refuses": {"use": f"{__name__}:Refuses"}}
    async with house(DOWN, behind=[refuses]) as (weir, a):
        for _ in range(20):
            assert (await testing.ask(weir, ASK, headers={"x-no": "1"})).status == 403
        assert way(await testing.ask(weir, ASK)) == (500, "a", "3")
    assert len(a.requests) == 3


class Refuses(Plugin[PluginConfig]):
    async def on_attempt(self, exchange, attempt):
        if "x-no" in exchange.request.headers:
            raise Rejected("no")


# -- other plugins, and the app


async def test_a_websocket_finds_the_next_target():
    async def joins(connection):
        await connection.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")

    async with testing.upstream(DOWN) as gone:
        pass
    head = b"GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    async with (
        double.upstream(joins) as joining,
        house(DOWN, DOWN, elsewhere={"a": gone.url, "b": joining.url}) as (weir, *_),
        wire.connected(weir.url) as app,
    ):
        await app.send(head + b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        answer = await app.head()
    assert (answer.status, answer.get("x-weir-upstream")) == (101, "b")


async def test_the_apps_own_retry_count_passes_unchanged():
    async with house(DOWN, SERVES) as (weir, a, b):
        await testing.ask(weir, ASK, headers={"x-stainless-retry-count": "1", "idempotency-key": "k"})
    sent = [received.headers for received in (*a.requests, *b.requests)]
    assert [(head["x-stainless-retry-count"], head["idempotency-key"]) for head in sent] == [("1", "k")] * 3


@pytest.mark.parametrize("place", ["before", "behind"])
async def test_a_stream_that_may_not_be_asked_for_its_usage_is_asked_plainly(place):
    strict = Scripted(refusal(422, "extra_forbidden", "stream_options: extra inputs are not permitted"), SERVES)
    async with house(strict, SERVES, **{place: [{"metering": {"ledger": "none"}}]}) as (weir, a, b):
        assert way(await testing.ask(weir, STREAM)) == (200, "a", "2")
    assert ["stream_options" in received.json() for received in a.requests] == [True, False]
    assert not b.requests


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("script", [TOO_LONG, refusal(400, "content_filter", "blocked")])
async def test_that_does_not_make_two_tries_of_other_refusals(place, script):
    async with house(script, **{place: [{"metering": {"ledger": "none"}}]}) as (weir, a):
        assert way(await testing.ask(weir, STREAM)) == (400, "a", "1")
    assert len(a.requests) == 1


async def test_the_ledger_has_every_try(tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    async with house(DOWN, SERVES, before=[{"metering": {"ledger": str(ledger)}}]) as (weir, *_):
        await testing.ask(weir, ASK)
        await idle(weir)
    (line,) = map(orjson.loads, ledger.read_bytes().splitlines())
    tries = [(entry["upstream"], entry["status"], entry["outcome"]) for entry in line["attempts"]]
    assert tries == [("a", 500, "upstream_error"), ("a", 500, "upstream_error"), ("b", 200, "ok")]
    assert (line["upstream"], line["tokens"]["output"]) == ("b", 2)


async def test_the_official_sdk_notices_nothing_of_a_failover():
    async with house(DOWN, SERVES) as (weir, *_), sdk(weir) as client:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "hello world"


async def test_the_official_sdk_raises_what_the_last_target_said():
    async with house(DOWN, limited("600")) as (weir, *_), sdk(weir) as client:
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert raised.value.response.headers["retry-after"] == "600"
