"""The buffer relay: a BodyFilter has the whole body before the first byte goes down."""

import gzip
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from typing_extensions import override

from proxy import testing
from proxy.buffer import decoded_body, filtered_body
from proxy.chain import Chain, Placed
from proxy.errors import BadAnswer, Outcome, PluginFailed, Rejected
from proxy.exchange import Exchange
from proxy.plugin import BodyFilter, Event, EventFilter, EventTap, FailureMode, Plugin, PluginConfig, Stage, Tap
from proxy.response import Response
from tests.recording import chain_of, idle

ODD = b'{ "a":1.0, "a":1e400,\t"b":"\\u00e9\\/", "c":[ ]}\r\n'
WORDS = testing.chat_events(["one", "two"])


class Same(BodyFilter):
    pass


class Shout(BodyFilter):
    @override
    async def apply(self, body: bytes) -> bytes:
        return body.upper()


class Crash(BodyFilter):
    @override
    async def apply(self, body: bytes) -> bytes:
        raise ZeroDivisionError


class Refuse(BodyFilter):
    @override
    async def apply(self, body: bytes) -> bytes:
        raise Rejected("no")


class Seen(Tap):
    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    @override
    def feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)


class SeenEvents(EventTap):
    def __init__(self) -> None:
        self.events: list[bytes | None] = []

    @override
    def feed(self, event: Event) -> None:
        self.events.append(event.data)


class Doubled(EventFilter):
    @override
    def feed(self, event: Event) -> Iterable[Event]:
        return (event, event)

    @override
    def finish(self, outcome: Outcome) -> Iterable[Event]:
        return (Event.of(outcome.encode()),)


def exchange_of(chain: Chain) -> Exchange:
    exchange = testing.exchange()
    exchange.chain = chain
    return exchange


async def through(
    *stages: Stage, body: bytes = b"body", mode: FailureMode | None = None, failures: list[str] | None = None
) -> bytes:
    placed = [Placed(idle(f"p{place}", mode), stage) for place, stage in enumerate(stages)]
    return await filtered_body(body, placed, exchange_of(chain_of(failures=failures)), Outcome.OK)


# -- by hand


async def test_what_nobody_changes_leaves_byte_identical():
    assert await through(Same(), Seen(), body=ODD) == ODD
    events = b"".join(WORDS) + b": a comment\n\n"
    assert await through(Same(), EventFilter(), SeenEvents(), body=events) == events


async def test_the_stages_have_their_turn_in_their_order():
    first, last = Seen(), Seen()
    assert await through(first, Shout(), last) == b"BODY"
    assert (first.chunks, last.chunks) == ([b"body"], [b"BODY"])


async def test_event_stages_work_beside_a_body_filter():
    tap = SeenEvents()
    assert await through(Doubled(), tap, Same(), body=b"data: x\n\n: c\n\n") == (
        b"data: x\n\ndata: x\n\n: c\n\ndata: ok\n\n"
    )
    assert tap.events == [b"x", b"x", b"ok"]


async def test_a_tap_that_raises_is_counted_and_changes_nothing():
    class Broken(Tap):
        @override
        def feed(self, chunk: bytes) -> None:
            raise ZeroDivisionError

    failures: list[str] = []
    assert await through(Broken(), Shout(), failures=failures) == b"BODY"
    assert failures == ["p0"]


async def test_a_filter_that_raises_is_judged_by_its_failure_mode():
    failures: list[str] = []
    assert await through(Crash(), Shout(), mode=FailureMode.OPEN, failures=failures) == b"BODY"
    with pytest.raises(PluginFailed, match="'p0' failed"):
        await through(Crash(), mode=FailureMode.CLOSED, failures=failures)
    assert failures == ["p0", "p0"]


async def test_a_filter_that_raised_is_not_asked_for_what_it_holds():
    class Broken(Doubled):
        @override
        def feed(self, event: Event) -> Iterable[Event]:
            raise ZeroDivisionError

    placed = Placed(idle("p", FailureMode.OPEN), Broken())
    assert await filtered_body(b"data: x\n\n", [placed], exchange_of(chain_of()), Outcome.OK) == b"data: x\n\n"
    assert placed.finish(Outcome.OK) == []


@pytest.mark.parametrize("mode", FailureMode)
async def test_a_filter_that_refuses_is_no_failure(mode: FailureMode):
    failures: list[str] = []
    with pytest.raises(Rejected):
        await through(Refuse(), mode=mode, failures=failures)
    assert failures == []


async def test_a_body_is_decoded_where_its_encoding_is_known():
    packed = Response(200, headers={"content-encoding": "gzip"}, body=gzip.compress(ODD))
    assert await decoded_body(packed) == ODD
    for encoding, body in (("br", b"?"), ("gzip", b"not gzip")):
        with pytest.raises(BadAnswer):
            await decoded_body(Response(200, headers={"content-encoding": encoding}, body=body))


# -- over HTTP


class Shouting(Plugin[PluginConfig]):
    made: type[BodyFilter] = Shout

    @override
    async def on_response(self, exchange, response) -> BodyFilter:
        return self.made()


class Refusing(Shouting):
    made = Refuse


class Passing(Shouting):
    made = Same


def used(cls: type[Shouting], **settings: Any) -> list[dict[str, Any]]:
    return [{"shouting": {"use": f"{__name__}:{cls.__name__}", **settings}}]


async def test_a_changed_body_has_a_length_of_its_own():
    body = orjson.dumps({"text": "ß"}, option=orjson.OPT_INDENT_2)
    async with testing.upstream(testing.answer(body)) as upstream, testing.weir(upstream, used(Shouting)) as weir:
        answer = await testing.ask(weir, {"model": "m"})
    assert answer.body == body.upper()
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_a_stream_passes_whole_through_a_body_filter():
    async with testing.upstream(testing.stream(*WORDS)) as upstream, testing.weir(upstream, used(Passing)) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": True})
    assert (answer.status, answer.is_whole, answer.body) == (200, True, b"".join(WORDS))
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("ends", [True, False])
async def test_a_stream_that_is_not_whole_is_a_502_since_nothing_went_down_yet(ends: bool):
    script = testing.stream(*WORDS[:1], ends=ends)
    async with testing.upstream(script) as upstream, testing.weir(upstream, used(Passing)) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": True})
    assert (answer.status, answer.json()["error"]["code"]) == (502, "upstream_stream_interrupted")


async def test_an_error_in_the_stream_passes_and_ends_in_a_cut():
    error = b'data: {"error":{"message":"out of memory"}}\n\n'
    script = testing.stream(WORDS[0], error)
    async with testing.upstream(script) as upstream, testing.weir(upstream, used(Passing)) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": True})
        assert b'outcome="stream_interrupted"' in weir.metrics.page()
    assert answer.body == WORDS[0] + error


async def test_a_filter_that_refuses_is_the_answer():
    async with testing.upstream(testing.chat("x")) as upstream, testing.weir(upstream, used(Refusing)) as weir:
        answer = await testing.ask(weir, {"model": "m"})
    assert (answer.status, answer.json()["error"]["message"]) == (403, "no")


@pytest.mark.parametrize(("mode", "status"), [("closed", 502), ("open", 200)])
async def test_an_encoding_that_cannot_be_read_is_refused_by_closed_filters_and_passes_open_ones(
    mode: str, status: int
):
    script = testing.answer(b"\x0b\x02\x80", content_encoding="br")
    plugins = used(Shouting, failure_mode=mode)
    async with testing.upstream(script) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m"})
    assert answer.status == status
    if status == 200:
        assert (answer.headers["content-encoding"], answer.body) == ("br", b"\x0b\x02\x80")
    else:
        assert answer.json()["error"]["code"] == "upstream_bad_answer"


async def test_answers_without_a_body_are_left_alone():
    async def script(received: testing.Received, wire: testing.Wire) -> None:
        await wire.send(b"HTTP/1.1 204 No Content\r\nx-y: z\r\n\r\n")

    async with testing.upstream(script) as upstream, testing.weir(upstream, used(Shouting)) as weir:
        answer = await testing.ask(weir, {"model": "m"})
    assert (answer.status, answer.headers["x-y"]) == (204, "z")
    assert "content-length" not in answer.headers


async def test_weir_warns_at_the_start_that_streams_are_held(caplog: pytest.LogCaptureFixture):
    async with testing.upstream(testing.chat("x")) as upstream, testing.weir(upstream, used(Shouting)):
        assert "plugin 'shouting' holds whole bodies" in caplog.text
