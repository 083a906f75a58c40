"""Answers that are looked at before they go down: what serves, what does not, and that nobody sees that they were held."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from typing_extensions import override

from proxy import testing
from proxy.attempt import Attempt, Hold, Target
from proxy.errors import Interrupted
from proxy.fault import Fault, Kind
from proxy.plugin import Plugin, PluginConfig
from proxy.preview import looked_at
from proxy.response import Response
from proxy.upstream.connection import Connection
from proxy.upstream.incoming import HOLD_BYTES, Incoming
from proxy.upstream.mask import Mask
from tests import wire
from tests.upstream.double import Sink, opened, serving, start
from tests.upstream.test_incoming import CHUNKED, FLOOD, PIECE, WITH_LENGTH, Flood

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HOLD, WHOLE = Hold(2**16), Hold(2**16, whole=True)


def event(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(value) for value in values)


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


ROLE = chunk(role="assistant", content="")
HELLO = chunk(content="Hello ☃")
STOP = chunk("stop")
DONE = b"data: [DONE]\n\n"
FULL = event({"error": {"message": "The queue is full", "code": 503}})
TGI_FULL = event({"error": {"message": "Model is overloaded", "http_status_code": 422}})
TOO_LONG = event({"error": "Input validation error: `inputs` must have less than 9 tokens", "error_type": "validation"})
LIMITED = {"error": {"code": "rate_limit_exceeded", "message": "Please try again in 2.5s."}}
CREATED = event({"type": "response.created", "response": {"status": "in_progress", "error": None}})
RAW_ERROR = b'{"error":{"message":"gone","code":503}}'

SERVES, BROKEN, OVERLOADED = None, Fault(Kind.BROKEN), Fault(Kind.OVERLOADED)
CUT, END = "cut", "end"

STREAMS = {
    "an answer": (ROLE + HELLO + HELLO + STOP + DONE, END, SERVES, SERVES),
    "in CRLF": ((ROLE + HELLO + STOP + DONE).replace(b"\n", b"\r\n"), END, SERVES, SERVES),
    "without the last blank line": ((ROLE + HELLO + STOP)[:-2], END, SERVES, SERVES),
    "without [DONE]": (HELLO + STOP, END, SERVES, SERVES),
    "cut where nothing is missing": (HELLO + STOP, CUT, SERVES, SERVES),
    "an empty answer": (ROLE + STOP + DONE, END, SERVES, SERVES),
    "one that a filter stopped": (ROLE + chunk("content_filter") + DONE, END, SERVES, SERVES),
    "reasoning": (ROLE + chunk(reasoning_content="hm") + STOP, END, SERVES, SERVES),
    "tools": (ROLE + chunk(tool_calls=[{"index": 0}]) + chunk("tool_calls"), END, SERVES, SERVES),
    "TGI": (event({"token": {"text": "Hi"}}, {"token": {"text": "!"}, "generated_text": "Hi!"}), END, SERVES, SERVES),
    "comments first": (b": wait\n\n: wait\n\n" + HELLO + STOP + DONE, END, SERVES, SERVES),
    "a malformed event": (ROLE + b"data: {oops\n\n" + HELLO + STOP + DONE, END, SERVES, SERVES),
    "an error": (FULL + DONE, END, OVERLOADED, OVERLOADED),
    "an error, unfinished": (FULL.rstrip(), END, OVERLOADED, OVERLOADED),
    "an error, then a cut": (FULL.rstrip(), CUT, OVERLOADED, OVERLOADED),
    "an error behind the role": (ROLE + FULL, END, OVERLOADED, OVERLOADED),
    "an error that is no event": (ROLE + RAW_ERROR, END, OVERLOADED, OVERLOADED),
    "an error that is no event, then a cut": (ROLE + RAW_ERROR, CUT, OVERLOADED, OVERLOADED),
    "an error behind a token": (ROLE + HELLO + FULL + DONE, END, SERVES, OVERLOADED),
    "a named error": (b"event: error\ndata: oops\n\n", END, Fault(Kind.SERVER_ERROR), Fault(Kind.SERVER_ERROR)),
    "TGI's queue is full": (TGI_FULL + DONE, END, Fault(Kind.RATE_LIMITED), Fault(Kind.RATE_LIMITED)),
    "TGI's prompt is too long": (TOO_LONG, END, Fault(Kind.CONTEXT_LENGTH), Fault(Kind.CONTEXT_LENGTH)),
    "a limit behind the preamble": (
        CREATED + event({"type": "response.failed", "response": LIMITED}),
        END,
        Fault(Kind.RATE_LIMITED, 2.5),
        Fault(Kind.RATE_LIMITED, 2.5),
    ),
    "nothing": (b"", END, BROKEN, BROKEN),
    "nothing, cut": (b"", CUT, BROKEN, BROKEN),
    "nothing but comments": (b": wait\n\n", END, BROKEN, BROKEN),
    "nothing but [DONE]": (b": wait\n\ndata:\n\n" + DONE, END, BROKEN, BROKEN),
    "a role, cut": (ROLE, CUT, BROKEN, BROKEN),
    "a role": (ROLE, END, BROKEN, BROKEN),
    "a token, cut": (ROLE + HELLO, CUT, SERVES, BROKEN),
    "a token": (ROLE + HELLO, END, SERVES, BROKEN),
    "one choice of two": (HELLO + chunk(index=1, content="x") + STOP, END, SERVES, BROKEN),
    "half a first token": (ROLE + HELLO[:-9], CUT, BROKEN, BROKEN),
}


class Held:
    """An answer that is fed by hand, held, and then taken."""

    def __init__(self, content_type: bytes = b"text/event-stream; charset=utf-8", *, generates: bool = True) -> None:
        loop = asyncio.get_running_loop()
        connection = Connection("up", lambda _: None, lambda _: None)
        self.incoming = Incoming(loop, connection, lambda *_: None)
        self.incoming.begin(200, b"OK", [(b"content-type", content_type)], {b"content-type": content_type})
        self.attempt = Attempt(1, Target("up"), [], b"{}")
        self._generates = generates

    def look(self, hold: Hold) -> asyncio.Task[None]:
        """Leaves on `attempt` what was wrong."""
        return asyncio.get_running_loop().create_task(self._look(hold))

    async def _look(self, hold: Hold) -> None:
        response = Response.of_incoming(self.incoming, self.incoming.fields)
        self.attempt.fault = await looked_at(response, self.attempt, hold, expects_terminal=self._generates)

    def come(self, *chunks: bytes) -> None:
        """What one read brings."""
        self.incoming.chunks.extend(chunks)
        self.incoming.deliver()

    def end(self, how: str = END) -> None:
        if how == CUT:
            self.incoming.fail(Interrupted("closed"))
        else:
            self.incoming.complete()
            self.incoming.deliver()

    def take(self) -> Sink:
        sink = Sink(self.incoming)
        self.incoming.attach(sink)
        return sink


async def verdict(held: Held, chunks: Iterable[bytes], how: str, hold: Hold, *, at_once: bool) -> Fault | None:
    """`at_once`: all comes while nobody has had a turn to say that enough is known."""
    looking = held.look(hold)
    await asyncio.sleep(0)
    for each in chunks:
        held.come(each)
        if not at_once:
            await asyncio.sleep(0)
    held.end(how)
    async with asyncio.timeout(5):
        await looking
    return held.attempt.fault


async def seen(chunks: Sequence[bytes], how: str, hold: Hold, *, at_once: bool) -> Fault | None:
    """The verdict; what is delivered afterwards is checked against what came."""
    held = Held()
    fault = await verdict(held, chunks, how, hold, at_once=at_once)
    sink = held.take()
    assert (sink.body, sink.ends, sink.error is None) == (b"".join(chunks), 1, how == END)
    return fault


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "bit by bit"])
@pytest.mark.parametrize(("stream", "how", "first", "whole"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_judged_the_same_however_it_is_cut(
    stream: bytes, how: str, first: Fault | None, whole: Fault | None, at_once: bool
) -> None:
    cuts = [[stream], [bytes([byte]) for byte in stream], *([stream[:at], stream[at:]] for at in range(1, len(stream)))]
    for chunks in cuts:
        assert await seen(chunks, how, HOLD, at_once=at_once) == first
        assert await seen(chunks, how, WHOLE, at_once=at_once) == whole


@pytest.mark.parametrize(("stream", "how", "first", "whole"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_that_was_complete_before_anybody_looked(
    stream: bytes, how: str, first: Fault | None, whole: Fault | None
) -> None:
    for hold, fault in ((HOLD, first), (WHOLE, whole)):
        held = Held()
        held.come(stream)
        held.end(how)
        await held.look(hold)
        assert held.attempt.fault == fault
        assert held.take().body == stream


async def test_what_was_delivered_in_vain_is_counted() -> None:
    held = Held()
    await verdict(held, [ROLE, HELLO, HELLO, FULL], END, WHOLE, at_once=True)
    assert held.attempt.delivered_tokens == 2


async def test_other_streams_need_no_terminal() -> None:
    for stream in (b"", event({"audio": "x"})):
        held = Held(generates=False)
        assert await verdict(held, [stream], END, HOLD, at_once=True) is None


FINISHED = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
FAILED = {"choices": [{"index": 0, "error": {"code": 502, "message": "x"}, "finish_reason": "error"}]}

BODIES = {
    "an answer": (orjson.dumps(FINISHED), END, SERVES),
    "an answer that speaks of errors": (orjson.dumps({**FINISHED, "error": None}), END, SERVES),
    "an answer, and a complaint": (orjson.dumps({**FINISHED, "error": {"message": "late"}}), END, SERVES),
    "blanks around it": (b" \n \n" + orjson.dumps(FINISHED) + b"\r\n", END, SERVES),
    "TGI": (b'[{"generated_text":"Hi"}]', END, SERVES),
    "an error": (orjson.dumps({"error": {"message": "x", "code": 503}}), END, OVERLOADED),
    "a flat error": (orjson.dumps({"object": "error", "message": "x", "code": 503}), END, OVERLOADED),
    "Gemini's error": (orjson.dumps([{"error": {"message": "x", "code": 503}}]), END, OVERLOADED),
    "an error, then a cut": (orjson.dumps({"error": {"message": "x", "code": 503}}), CUT, OVERLOADED),
    "a choice that failed": (orjson.dumps(FAILED), END, Fault(Kind.SERVER_ERROR)),
    "an error beside a choice that failed": (
        orjson.dumps({**FAILED, "error": {"code": 429, "message": "x"}}),
        END,
        Fault(Kind.RATE_LIMITED),
    ),
    "a response that failed": (orjson.dumps({"object": "response", **LIMITED}), END, Fault(Kind.RATE_LIMITED, 2.5)),
    "nothing": (b"", END, BROKEN),
    "blanks": (b" \n \n", END, BROKEN),
    "half": (orjson.dumps(FINISHED)[:-9], END, BROKEN),
    "half an error": (b'{"error":{"message":"x"', END, BROKEN),
    "half, cut": (orjson.dumps(FINISHED)[:-9], CUT, BROKEN),
}


@pytest.mark.parametrize(("body", "how", "fault"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("hold", [HOLD, WHOLE], ids=["first", "whole"])
async def test_json_is_judged_when_it_is_whole(body: bytes, how: str, fault: Fault | None, hold: Hold) -> None:
    for at in range(len(body) + 1):
        held = Held(b"application/json")
        assert await verdict(held, [body[:at], body[at:]], how, hold, at_once=False) == fault
        assert held.take().body == body


async def test_what_else_is_in_json_may_be_empty() -> None:
    held = Held(b"application/json", generates=False)
    assert await verdict(held, [b""], END, HOLD, at_once=True) is None


@pytest.mark.parametrize("content_type", [b"audio/mpeg", b"application/x-ndjson", b"text/plain", b""])
async def test_what_cannot_be_judged_is_not_held(content_type: bytes) -> None:
    held = Held(content_type)
    async with asyncio.timeout(5):
        await held.look(HOLD)
    assert held.attempt.fault is None
    held.come(b"abc")
    sink = held.take()
    held.end()
    assert (sink.body, sink.is_whole) == (b"abc", True)


@pytest.mark.parametrize("how", [END, CUT])
async def test_unless_it_shall_be_whole(how: str) -> None:
    held = Held(b"audio/mpeg")
    looking = held.look(WHOLE)
    held.come(b"abc")
    await asyncio.sleep(0.01)
    assert not looking.done()
    held.end(how)
    await looking
    assert held.attempt.fault == (None if how == END else BROKEN)


async def test_what_comes_between_looking_and_taking_stays_in_order() -> None:
    held = Held()
    held.come(ROLE, HELLO)
    await held.look(HOLD)
    held.come(b"data: 1\n\n")
    held.come(b"data: 2\n\n", b"data: 3\n\n")
    sink = held.take()
    held.come(DONE)
    held.end()
    assert sink.chunks == [ROLE + HELLO + b"data: 1\n\ndata: 2\n\ndata: 3\n\n", DONE]


async def test_who_breaks_off_between_looking_and_taking_is_heard_of() -> None:
    held = Held()
    held.come(HELLO)
    await held.look(HOLD)
    held.end(CUT)
    sink = held.take()
    assert (sink.body, sink.ends, held.attempt.fault) == (HELLO, 1, None)
    assert sink.error is not None


async def test_a_credential_in_an_error_is_hidden_afterwards() -> None:
    mask = Mask()
    mask.add("sk-0123456789abcdef")
    told = event({"error": {"message": "bad key sk-0123456789abcdef"}})
    for at in range(1, len(told)):
        held = Held()
        held.incoming.guard = mask.before
        assert await verdict(held, [told[:at], told[at:]], END, HOLD, at_once=False) is not None
        assert held.take().body == told.replace(b"sk-0123456789abcdef", b"***")


# -- limits


@pytest.mark.parametrize("size", [0, 10, 99])
@pytest.mark.parametrize("hold", [HOLD, WHOLE], ids=["first", "whole"])
@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json"])
async def test_after_so_many_bytes_it_goes_down_as_it_is(size: int, hold: Hold, kind: bytes) -> None:
    held = Held(kind)
    looking = held.look(hold._replace(size=size))
    held.come(b":" * size)
    await asyncio.sleep(0.01)
    assert not looking.done()
    held.come(b":")
    await looking
    assert held.attempt.fault is None
    assert held.take().body == b":" * (size + 1)


async def test_a_token_within_the_read_that_is_too_much_is_seen() -> None:
    held = Held()
    held.come(FULL * 9)
    await held.look(Hold(10))
    assert held.attempt.fault == OVERLOADED


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("preamble", [b"", ROLE, b": wait\n\n"])
async def test_a_stream_without_a_token_in_time_is_slow(preamble: bytes, whole: bool) -> None:
    held = Held()
    looking = held.look(Hold(2**16, 0.05, whole))
    held.come(preamble)
    async with asyncio.timeout(5):
        await looking
    assert held.attempt.fault == Fault(Kind.SLOW)
    held.come(HELLO)
    assert held.take().body == preamble + HELLO


@pytest.mark.parametrize(("last", "fault"), [(HELLO, None), (FULL, OVERLOADED), (STOP, None)])
async def test_what_comes_in_the_last_moment_counts(last: bytes, fault: Fault | None) -> None:
    held = Held()
    looking = held.look(Hold(2**16, 0.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # in this turn of the loop the time is up, too
    held.come(last)
    await looking
    assert held.attempt.fault == fault


async def test_a_whole_answer_may_take_its_time_once_it_has_begun() -> None:
    held = Held()
    looking = held.look(Hold(2**16, 0.03, whole=True))
    held.come(HELLO)
    await asyncio.sleep(0.1)
    assert not looking.done()
    held.come(STOP)
    await looking
    assert held.attempt.fault is None


async def test_json_has_no_first_token() -> None:
    held = Held(b"application/json")
    looking = held.look(Hold(2**16, 0.03))
    await asyncio.sleep(0.1)
    assert not looking.done()
    held.come(orjson.dumps(FINISHED))
    held.end()
    await looking
    assert held.attempt.fault is None


# -- over sockets


def response_of(incoming: Incoming) -> Response:
    return Response.of_incoming(incoming, incoming.fields)


async def test_an_upstream_that_falls_silent_is_no_more_waited_for() -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        await peer.request()

    attempt = Attempt(1, Target("up"), [], b"{}")
    async with serving(script) as server, opened(server.url, timeouts={"idle": "50ms"}) as upstream:
        incoming = await start(upstream)
        fault = await looked_at(response_of(incoming), attempt, HOLD, expects_terminal=True)
    assert fault == Fault(Kind.TIMEOUT)


JSON_FLOOD = WITH_LENGTH.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "held before"])
async def test_what_is_held_is_bounded_and_the_upstream_waits(is_late: bool) -> None:
    flood, size = Flood(JSON_FLOOD), 2**20
    attempt = Attempt(1, Target("up"), [], b"{}")
    async with serving(flood) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        if is_late:
            await flood.stalled()
        async with asyncio.timeout(10):
            fault = await looked_at(response_of(incoming), attempt, Hold(size), expects_terminal=True)
        written = await flood.stalled()
        assert fault is None
        assert size < sum(map(len, incoming.chunks)) < size + 3 * HOLD_BYTES + PIECE
        assert written < FLOOD
        sink = Sink(incoming)
        incoming.attach(sink)
        await sink.over()
        assert (sink.size, sink.is_whole) == (FLOOD, True)


async def test_who_is_cancelled_while_looking_drops_the_answer() -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.send(CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n"))
        await peer.request()

    async with serving(script) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        attempt = Attempt(1, Target("up"), [], b"{}")
        coming = looked_at(response_of(incoming), attempt, HOLD, expects_terminal=True)
        looking = asyncio.get_running_loop().create_task(coming)
        await asyncio.sleep(0.01)
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
        await wire.until(lambda: not server.here)


# -- in the house

STREAM = {"model": "m", "messages": [], "stream": True}
ASK = {"model": "m", "messages": []}
journal: list[str] = []


class HoldingConfig(PluginConfig):
    size: int = 2**16
    seconds: float = 60.0
    deadline: float = 60.0
    whole: bool = False
    patient: bool = False
    retries: bool = True


class Holding(Plugin[HoldingConfig]):
    """Holds every answer, and tries the next target whatever failed; `patient` with slow ones."""

    Config = HoldingConfig

    @override
    async def on_attempt(self, exchange: Any, attempt: Any) -> None:
        asked = self._asked if self.config.patient else None
        attempt.hold = Hold(self.config.size, self.config.seconds, self.config.whole, asked)
        attempt.deadline = self.config.deadline

    @override
    def on_attempt_end(self, exchange: Any, attempt: Any) -> None:
        journal.append(f"{attempt.target.upstream} {attempt.outcome} {attempt.fault and attempt.fault.kind}")
        attempt.retry = self.config.retries

    def _asked(self, exchange: Any, attempt: Any) -> bool:
        journal.append(f"asked about {[target.upstream for target in exchange.others]}")
        return False


@pytest.fixture(autouse=True)
def _empty_journal() -> None:
    journal.clear()


@contextlib.asynccontextmanager
async def house(*scripts: Any, settings: str = "", **holding: Any) -> Any:
    """Weir in front of upstreams `a` and `b`."""
    async with contextlib.AsyncExitStack() as stack:
        names = "ab"[: len(scripts)]
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        blocks = [f'{name}: {{base_url: "{up.url}/v1"{settings}}}' for name, up in zip(names, ups, strict=True)]
        plugin = {"holding": {"use": f"{__name__}:Holding", **holding}}
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{', '.join(blocks)}}}\nplugins: {orjson.dumps([plugin]).decode()}\n"
            f"routes: [{{name: main, targets: {orjson.dumps(list(names)).decode()}}}]\n"
        )
        yield await stack.enter_async_context(testing.configured(text)), *ups


async def idle(weir: Any) -> None:
    await wire.until(lambda: not weir.in_flight and not any(up.in_flight for up in weir.gateway.upstreams.values()))


OTHER = chunk(role="assistant", content="") + chunk(content="Other") + STOP + DONE
STREAM_HEAD = CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def asked(body: Any) -> bytes:
    data = orjson.dumps(body)
    return HEAD % len(data) + data


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("pieces", "ends", "kind"),
    [
        ((ROLE, FULL, DONE), True, "overloaded"),
        ((ROLE + FULL,), True, "overloaded"),
        ((ROLE,), False, "broken"),
        ((), True, "broken"),
        ((DONE,), True, "broken"),
    ],
)
async def test_the_next_target_answers_and_the_app_sees_one_answer(
    pieces: tuple[bytes, ...], ends: bool, kind: str
) -> None:
    async with house(testing.stream(*pieces, ends=ends), testing.stream(OTHER)) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.status, answer.body, answer.is_whole) == (200, OTHER, True)
    assert answer.headers["x-weir-attempts"] == "2"
    assert journal == [f"a upstream_error {kind}", "b ok None"]


async def test_after_a_token_nobody_else_is_asked() -> None:
    async with house(testing.stream(ROLE + HELLO + FULL), testing.stream(OTHER)) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert answer.body == ROLE + HELLO + FULL
    assert b.requests == []


async def test_a_whole_answer_that_breaks_off_is_replaced() -> None:
    cut = testing.stream(ROLE, HELLO, ends=False)
    async with house(cut, testing.stream(OTHER), whole=True) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.body, answer.is_whole) == (OTHER, True)
    assert journal == ["a upstream_error broken", "b ok None"]


async def test_an_error_in_a_200_is_replaced() -> None:
    error = testing.answer(orjson.dumps({"error": {"message": "x", "code": 429}}))
    async with house(error, testing.chat("hi")) as (weir, *_):
        answer = await testing.ask(weir, ASK)
        await idle(weir)
    assert answer.json()["choices"][0]["message"]["content"] == "hi"
    assert journal == ["a client_error rate_limited", "b ok None"]


async def test_where_nobody_else_is_left_the_app_gets_what_came() -> None:
    async with house(testing.stream(ROLE, FULL, DONE)) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.status, answer.body) == (200, ROLE + FULL + DONE)
    assert journal == ["a upstream_error overloaded"]


async def test_our_credential_stays_hidden() -> None:
    key = "sk-0123456789abcdef"
    told = event({"error": {"message": f"bad key {key}"}})
    async with house(testing.stream(ROLE, told[:30], told[30:]), settings=f", api_key: {key}") as (weir, a):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert a.last.headers["authorization"] == f"Bearer {key}"
    assert answer.body == ROLE + told.replace(key.encode(), b"***")


async def test_a_slow_target_is_left() -> None:
    async def slow(received: Any, wire_: testing.Wire) -> None:
        await wire_.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + ROLE)
        await wire_.gone.wait()

    async with house(slow, testing.stream(OTHER), seconds=0.1) as (weir, a, _):
        answer = await testing.ask(weir, STREAM)
        assert answer.body == OTHER
        await asyncio.wait_for(a.wires[0].gone.wait(), 5)
        await idle(weir)
    assert journal == ["a upstream_error slow", "b ok None"]


def hesitant(*, goes_on: bool) -> testing.Script:
    """Says who it is, and what it has to say later, or never."""

    async def script(received: Any, wire_: testing.Wire) -> None:
        await wire_.send(STREAM_HEAD + framed(ROLE))
        await asyncio.sleep(0.4)
        if goes_on:
            await wire_.send(framed(HELLO + STOP + DONE) + b"0\r\n\r\n")

    return script


async def test_a_slow_target_that_nobody_can_take_over_from_goes_on_and_is_judged_at_its_end() -> None:
    async with house(hesitant(goes_on=True), seconds=0.1) as (weir, a), wire.connected(weir.url) as app:
        await app.send(asked(STREAM))
        answer = await app.start()
        assert await answer.until(b"\n\n") == ROLE
        assert (a.wires[0].gone.is_set(), journal, weir.gateway.upstreams["a"].in_flight) == (False, [], 1)
        assert (await answer.whole()).body == ROLE + HELLO + STOP + DONE
        await idle(weir)
    assert journal == ["a ok None"]


async def test_nor_from_one_whose_holder_wants_to_go_on() -> None:
    async with house(hesitant(goes_on=True), testing.stream(OTHER), seconds=0.1, patient=True) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.body, b.requests, journal) == (ROLE + HELLO + STOP + DONE, [], ["asked about ['b']", "a ok None"])


@pytest.mark.parametrize(
    ("limits", "code", "kind"),
    [
        ({"deadline": 0.1}, "deadline_exceeded", "late"),
        ({"deadline": 0.1, "seconds": 0.1}, "deadline_exceeded", "late"),
        ({"seconds": 0.1, "retries": False}, "upstream_timeout", "slow"),
    ],
)
async def test_what_was_left_in_vain_is_a_504(limits: dict[str, Any], code: str, kind: str) -> None:
    async with house(hesitant(goes_on=False), testing.stream(OTHER), **{"retries": False, **limits}) as (weir, a, b):
        answer = await testing.ask(weir, STREAM)
        await asyncio.wait_for(a.wires[0].gone.wait(), 5)
        await idle(weir)
    assert (answer.status, answer.json()["error"]["code"], b.requests) == (504, code, [])
    assert answer.json()["error"]["message"] == "upstream 'a' sent no token in time"
    assert journal == [f"a upstream_error {kind}"]


@pytest.mark.parametrize("body", [STREAM, ASK], ids=["stream", "json"])
async def test_an_app_that_leaves_while_its_answer_is_held(body: dict[str, Any]) -> None:
    kind = b"text/event-stream" if body is STREAM else b"application/json"

    async def waits(received: Any, wire_: testing.Wire) -> None:
        await wire_.send(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n" % kind)
        await wire_.gone.wait()

    async with house(waits, testing.stream(OTHER)) as (weir, a, b):
        async with wire.connected(weir.url) as app:
            await app.send(asked(body))
            await wire.until(lambda: a.requests)
            await asyncio.sleep(0.05)
        await asyncio.wait_for(a.wires[0].gone.wait(), 5)
        await idle(weir)
        assert b.requests == []
    assert journal == ["a client_abort client_gone"]


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
async def test_a_compressed_failure_is_replaced(coding: str, pack: Callable[[bytes], bytes]) -> None:
    error = testing.answer(pack(orjson.dumps({"error": {"message": "x", "code": 503}})), content_encoding=coding)
    for first, body in ((testing.stream(pack(ROLE + FULL), content_encoding=coding), STREAM), (error, ASK)):
        async with house(first, testing.chat("hi")) as (weir, *_):
            assert (await testing.ask(weir, body)).headers["x-weir-attempts"] == "2"
            await idle(weir)
        assert journal[-2:] == ["a upstream_error overloaded", "b ok None"]


async def test_a_compressed_answer_that_serves_passes_as_it_came() -> None:
    packed = gzip.compress(OTHER)
    pieces = [packed[:20], packed[20:40], packed[40:]]
    async with house(testing.stream(*pieces, content_encoding="gzip"), testing.stream(OTHER)) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.body, answer.headers["content-encoding"], b.requests) == (packed, "gzip", [])


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"], ids=["br", "zstd", "no gzip at all"])
async def test_what_cannot_be_unpacked_passes_unseen(coding: str) -> None:
    script = testing.stream(b"\x0b\x02\x80", content_encoding=coding)
    async with house(script, testing.stream(OTHER)) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.body[:3], b.requests) == (b"\x0b\x02\x80", [])


async def test_packed_bytes_count_unpacked() -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    long = packer.compress(b":" * 9000 + b"\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    script = testing.stream(long, packer.compress(FULL) + packer.flush(), pause=0.05, content_encoding="gzip")
    async with house(script, testing.stream(OTHER), size=999) as (weir, _, b):
        answer = await testing.ask(weir, STREAM)
        await idle(weir)
    assert (answer.body[: len(long)], len(long) < 999, b.requests) == (long, True, [])


async def test_a_held_answer_leaves_its_connection_to_the_next() -> None:
    async with house(testing.chat("hi")) as (weir, a):
        for body in (ASK, STREAM, ASK, STREAM):
            assert (await testing.ask(weir, body)).is_whole
            await idle(weir)
        assert a.connections == 1


async def test_a_long_answer_flows_on_after_its_first_token() -> None:
    words = testing.chat_events([f"word{number}" * 50 for number in range(2000)])
    async with house(testing.stream(*words), size=500) as (weir, *_):
        answer = await testing.ask(weir, STREAM)
    assert (answer.body, answer.is_whole) == (b"".join(words), True)
