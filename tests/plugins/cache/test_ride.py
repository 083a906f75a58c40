"""Who asks the same at the same time shares one upstream call, which lasts until the last of them has left (case 71)."""

import asyncio
import contextlib
import socket

import orjson
import pytest

from proxy import testing
from proxy.plugin import Plugin, PluginConfig, Rejected
from tests import wire
from tests.plugins.cache.house import ASK, EVENTS, HEAD, SAID, STREAM, Gate, chunk, gated, house, usage_event

WHOLE = b"".join(EVENTS)
JSON = b'{"id": "1", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(JSON)


def request(body=STREAM, *fields):
    data = orjson.dumps(body)
    head = [f"POST {testing.CHAT} HTTP/1.1", "host: a", "authorization: Bearer ada", *fields]
    return "\r\n".join([*head, f"content-length: {len(data)}", "", ""]).encode() + data


@contextlib.asynccontextmanager
async def app(home, body=STREAM, *fields):
    """One that has asked."""
    before = home.weir.in_flight
    async with wire.connected(home.weir.url) as client:
        await client.send(request(body, *fields))
        await wire.until(lambda: home.weir.in_flight > before)
        yield client


async def body(client):
    message = await client.answer("POST")
    return message.body, message.is_whole


async def test_a_hundred_at_once_are_one_call_and_all_get_the_same_bytes():
    gate = gated(*EVENTS)
    async with house(gate) as home:
        asking = [asyncio.ensure_future(home.ask(STREAM)) for _ in range(100)]
        await wire.until(lambda: home.weir.in_flight == 100)
        gate.open_all()
        answers = await asyncio.gather(*asking)
        assert home.calls == 1
    assert {answer.body for answer in answers} == {WHOLE}
    assert sorted(answer.headers["x-weir-cache"] for answer in answers) == ["hit"] * 99 + ["miss"]
    assert len({answer.headers["x-weir-request-id"] for answer in answers}) == 100
    assert all(answer.is_whole for answer in answers)


async def test_json_is_shared_too():
    gate = Gate(JSON_HEAD, JSON[:40], JSON[40:])
    async with house(gate) as home:
        asking = [asyncio.ensure_future(home.ask()) for _ in range(10)]
        await wire.until(lambda: home.weir.in_flight == 10)
        gate.open_all()
        answers = await asyncio.gather(*asking)
        assert home.calls == 1
    assert {answer.body for answer in answers} == {JSON}
    assert {answer.headers["content-length"] for answer in answers} == {str(len(JSON))}


@pytest.mark.parametrize("waiting", [0, 9])
async def test_json_that_comes_in_one_piece_is_shared_and_kept(waiting):
    gate = Gate(JSON_HEAD + JSON)
    async with house(gate) as home:
        asking = [asyncio.ensure_future(home.ask()) for _ in range(1 + waiting)]
        await wire.until(lambda: home.weir.in_flight == 1 + waiting)
        gate.open_all()
        answers = [*await asyncio.gather(*asking), await home.ask(), await home.ask(STREAM)]
        assert home.calls == 1
        await wire.until(lambda: not home.weir.in_flight)
        assert home.weir.state()["plugins"]["cache"] == {"rides": 0}
    assert {answer.body for answer in answers[:-1]} == {JSON}
    assert sorted(answer.headers["x-weir-cache"] for answer in answers) == ["hit"] * (waiting + 2) + ["miss"]


async def test_a_stream_that_is_there_at_once_is_kept_too():
    whole = HEAD + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"
    gate = Gate(whole)
    async with house(gate) as home:
        gate.open_all()
        answers = [await home.ask(body) for body in (STREAM, STREAM, ASK)]
        assert home.calls == 1
    assert [answer.body for answer in answers[:2]] == [WHOLE, WHOLE]
    assert answers[2].json()["choices"][0]["message"]["content"] == "A weir stands in a stream"


async def test_who_comes_late_gets_it_from_its_start_and_at_once():
    gate = gated(*EVENTS)
    async with house(gate) as home, app(home) as first:
        gate.open(4)
        begun = await first.start("POST")
        await begun.until(EVENTS[2])
        async with app(home) as late:
            answer = await late.start("POST")
            assert await answer.until(EVENTS[2]) == b"".join(EVENTS[:3])
            assert answer.message.head.get("x-weir-cache") == "hit"
            gate.open_all()
            assert (await answer.whole()).body == WHOLE
        assert (await begun.whole()).body == WHOLE
        assert home.calls == 1
        assert (await home.ask(STREAM)).body == WHOLE
        assert home.calls == 1


async def test_a_stream_and_json_are_two_calls():
    async with house(Gate()) as home, app(home, STREAM), app(home, ASK), app(home, STREAM), app(home, ASK):
        await wire.until(lambda: home.calls == 2)


async def test_others_callers_never_ride_along():
    async with house(Gate()) as home, app(home), app(home, STREAM, "x-api-key: another"):
        await wire.until(lambda: home.calls == 2)


@pytest.mark.parametrize("field", ["cache-control: no-cache", "cache-control: max-age=0", "cache-control: no-store"])
async def test_who_wants_no_answer_of_another_gets_its_own(field):
    async with house(Gate()) as home, app(home), app(home, STREAM, field), app(home, STREAM, field):
        await wire.until(lambda: home.calls == 3)


async def test_each_for_itself_where_the_config_says_so():
    async with house(Gate(), single_flight=False) as home, app(home), app(home):
        await wire.until(lambda: home.calls == 2)


# -- leaving

SEEN = {"before the header": 0, "behind the header": 1, "in the middle": 4}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
async def test_the_first_ones_leaving_harms_nobody(seen, reset):
    gate = gated(*EVENTS[:-1], usage_event(), EVENTS[-1])
    async with house(gate, before=("metering",)) as home, app(home) as first, app(home) as other:
        await wire.until(lambda: home.calls == 1)
        gate.open(seen)
        await wire.until(lambda: gate.sent == seen)
        if seen > 1:
            await (await first.start("POST")).until(EVENTS[seen - 2])
        first.leave(reset=reset)
        await wire.until(lambda: home.weir.server.left)
        gate.open_all()
        assert await body(other) == (WHOLE, True)
        await wire.until(lambda: not home.weir.in_flight)
        assert home.calls == 1
        assert (await home.ask(STREAM)).headers["x-weir-cache"] == "hit"
    led, *shared = home.lines("ledger")
    lines = sorted([led, *shared], key=lambda line: line["outcome"])
    assert [(line["outcome"], line["cached"], line["estimated"]) for line in lines] == [
        ("client_abort", False, False),
        ("ok", True, False),
        ("ok", True, False),
    ]
    assert (lines[0]["tokens"]["input"], lines[0]["tokens"]["output"]) == (5, 6)
    assert [line["saved_tokens"] for line in lines] == [0, 11, 11]


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
async def test_when_all_have_left_the_upstream_is_told_at_once(seen):
    gate = gated(*EVENTS)
    async with house(gate) as home:
        async with app(home) as first, app(home) as second, app(home) as third:
            await wire.until(lambda: home.calls == 1)
            gate.open(seen)
            await wire.until(lambda: gate.sent == seen)
            for client in (first, second):
                client.leave()
            await wire.until(lambda: home.weir.in_flight == 2)  # the first goes on, for the third
            assert not gate.wires[0].gone.is_set()
            third.leave()
            await asyncio.wait_for(gate.wires[0].gone.wait(), 1)
        await wire.until(lambda: not home.weir.in_flight)
        await asyncio.sleep(0.02)
        assert home.calls == 1
        assert home.weir.state()["plugins"]["cache"] == {"rides": 0}
        assert home.weir.gateway.upstreams["up"].in_flight == 0
    assert [line["outcome"] for line in home.lines("access")] == ["client_abort"] * 3


async def test_a_follower_that_leaves_takes_nobody_along():
    gate = gated(*EVENTS)
    async with house(gate) as home, app(home) as first:
        async with app(home) as other:
            other.leave()
            await wire.until(lambda: home.weir.in_flight == 1)
        gate.open_all()
        assert await body(first) == (WHOLE, True)


async def test_in_any_order_of_leaving_those_who_stay_get_it_whole():
    """Every second of twenty leaves, the first one among them."""
    gate = gated(*EVENTS)
    async with house(gate) as home, contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(app(home)) for _ in range(20)]
        for number, each in enumerate(apps[::2]):
            gate.open(number % 2)
            each.leave(reset=bool(number % 3))
        gate.open_all()
        assert {await body(each) for each in apps[1::2]} == {(WHOLE, True)}
        assert home.calls == 1


# -- failing

DOWN = testing.answer(b'{"error": {"message": "down", "type": "server_error"}}', status=503, retry_after="1")


def later(script):
    """As told, once the gate is open."""

    class Later(Gate):
        async def __call__(self, received, up):
            await super().__call__(received, up)
            await script(received, up)

    return Later(b"")


async def hangs_up(received, up):
    up.close()


@pytest.mark.parametrize(("script", "status"), [(DOWN, 503), (hangs_up, 502), (testing.answer(b"{}", status=400), 400)])
async def test_a_failure_is_the_same_for_all_and_no_stampede(script, status):
    gate = later(script)
    async with house(gate) as home:
        asking = [asyncio.ensure_future(home.ask(STREAM)) for _ in range(10)]
        await wire.until(lambda: home.weir.in_flight == 10)
        gate.open_all()
        answers = await asyncio.gather(*asking)
        assert home.calls == 1
        home.upstream.script = SAID
        assert (await home.ask(STREAM)).headers["x-weir-cache"] == "miss"
        assert home.calls == 2
    assert {(answer.status, answer.headers["x-weir-cache"]) for answer in answers} == {(status, "miss")}
    assert len({answer.body for answer in answers}) == 1


async def test_a_stream_that_breaks_breaks_for_all_and_says_so():
    gate = Gate(HEAD_AND_ONE, b"")
    async with house(gate) as home:
        gate.open(1)
        async with app(home) as first, app(home) as other:
            for client in (first, other):
                await (await client.start("POST")).until(EVENTS[0])
            gate.wires[0].close()
            rest = [await client.reader.read() for client in (first, other)]
        await wire.until(lambda: not home.weir.in_flight)
    assert all(b'"upstream_stream_interrupted"' in each for each in rest)
    assert [line["outcome"] for line in home.lines("access")] == ["stream_interrupted"] * 2


HEAD_AND_ONE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(
    EVENTS[0]
)


async def test_where_an_answer_cannot_be_shared_each_gets_its_own():
    gate = later(testing.answer(b"\x1f\x8b", content_encoding="gzip"))
    async with house(gate) as home:
        asking = [asyncio.ensure_future(home.ask(STREAM)) for _ in range(3)]
        await wire.until(lambda: home.weir.in_flight == 3)
        gate.open(3)
        answers = await asyncio.gather(*asking)
        assert home.calls == 3
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"\x1f\x8b")}


class Refusing(Plugin[PluginConfig]):
    """Stands behind the cache, and does not like the answer."""

    async def on_response(self, exchange, response):
        if response.status == 200:
            raise Rejected("not this one")


async def test_a_refusal_behind_the_cache_is_told_to_all():
    gate = gated(*EVENTS)
    async with house(gate, behind=({"refusing": {"use": f"{__name__}:Refusing"}},)) as home:
        asking = [asyncio.ensure_future(home.ask(STREAM)) for _ in range(3)]
        await wire.until(lambda: home.weir.in_flight == 3)
        gate.open_all()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {403}
        assert home.calls == 1


class Once(Plugin[PluginConfig]):
    """Stands before the cache, and fails with the first answer that it sees."""

    seen = 0

    async def on_response(self, exchange, response):
        Once.seen += 1
        if Once.seen == 1:
            raise Rejected("not this one")


async def test_where_the_first_is_refused_its_answer_the_next_asks_for_the_others():
    gate = gated(*EVENTS)
    Once.seen = 0
    async with house(gate, before=({"once": {"use": f"{__name__}:Once"}},)) as home, app(home) as first:
        await wire.until(lambda: home.calls == 1)
        async with app(home) as second, app(home) as third:
            gate.open(100)
            assert (await first.answer("POST")).status == 403
            assert await body(second) == await body(third) == (WHOLE, True)
            assert home.calls == 2


# -- bounds


async def test_above_the_bound_nobody_joins_any_more():
    long = [testing.chat_event({"content": "x" * 1500}) for _ in range(4)]
    gate = gated(*long, *EVENTS)
    async with house(gate, max_entry="4KiB") as home, app(home) as first:
        gate.open(3)
        begun = await first.start("POST")
        await begun.until(long[1])
        async with app(home) as joined:
            await wire.until(lambda: home.weir.in_flight == 2)
            assert home.calls == 1
            gate.open(2)
            await begun.until(long[3])
            async with app(home) as late:
                await wire.until(lambda: home.calls == 2)
                home.upstream.script.open(100)
                for client, answer in ((first, begun), (joined, await joined.start("POST"))):
                    assert (await answer.whole()).body == b"".join([*long, *EVENTS]), client
                assert (await body(late))[0] == b"".join([*long, *EVENTS])
        assert (await home.ask(STREAM)).headers["x-weir-cache"] == "miss"


async def test_a_follower_that_does_not_read_does_not_hold_up_the_others():
    piece = testing.chat_event({"content": "x" * 60_000})
    gate = gated(*[piece] * 200, *EVENTS)
    async with house(gate, max_entry="1MiB") as home, app(home) as first:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, port = home.weir.url.removeprefix("http://").split(":")
            deaf.connect((host, int(port)))
            deaf.sendall(request())  # and never reads
            await wire.until(lambda: home.weir.in_flight == 2)
            gate.open_all()
            assert await body(first) == (piece * 200 + WHOLE, True)
            await wire.until(lambda: not home.weir.in_flight)
    outcomes = sorted(line["outcome"] for line in home.lines("access"))
    assert outcomes == ["client_abort", "ok"]


async def test_a_hit_of_another_form_is_made_of_what_was_shared():
    gate = gated(*EVENTS[:-1], usage_event(), EVENTS[-1])
    async with house(gate, before=("metering",)) as home, app(home) as first:
        gate.open_all()
        await body(first)
        answer = await home.ask(ASK)
        assert (answer.headers["x-weir-cache"], home.calls) == ("hit", 1)
        assert answer.json()["choices"][0]["message"]["content"] == "A weir stands in a stream"


async def test_a_stop_ends_a_ride_for_all_with_an_error():
    gate = gated(*EVENTS)
    async with house(gate) as home, app(home) as first, app(home) as other:
        gate.open(2)
        for client in (first, other):
            await (await client.start("POST")).until(EVENTS[0])
        await home.weir.drain(0.01)
        rest = [await client.reader.read() for client in (first, other)]
    assert all(b'"shutting_down"' in each for each in rest)
