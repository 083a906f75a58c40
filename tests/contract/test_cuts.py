"""A stream that is not whole never ends as if it were (field case 2); one that is whole ends well whatever comes after."""

import asyncio
from dataclasses import dataclass, field
from operator import attrgetter

import orjson
import pytest
from openai import APIError, AsyncOpenAI

from tests import wire
from tests.contract import sse
from tests.contract.double import Script, Wire, answers, asks, at_rest, chunked, outcomes, says, upstream, weir
from tests.contract.sse import DONE, FINISH, LAST, STREAM, TOLD, chunk, streams

SENT = b"".join(TOLD)
HALF = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"\xe6\xbc'
MORE = b"Content-Length: 100000\r\n\r\n"
NO_LENGTH = b"Connection: close\r\n\r\n"
GENERATE = asks("POST /generate_stream", body=b'{"inputs": "x"}')
RESPONSES = asks("POST /v1/responses", body=b'{"stream": true}')
IMPATIENT = "timeouts: {idle: 200ms}"


def cut(*pieces: bytes, reset: bool = False) -> Script:
    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(*pieces)
        await asyncio.sleep(0.05 if reset else 0)
        (connection.reset if reset else connection.close)()

    return script


async def falls_silent(connection: Wire) -> None:
    await connection.read()
    await connection.send(sse.CHUNKED + chunk(SENT))
    await connection.left()


@dataclass(frozen=True)
class Cut:
    name: str
    script: Script
    sent: bytes = SENT
    """The stream's bytes up to the cut."""
    asked: bytes = STREAM
    settings: str = ""
    error: dict[str, object] = field(default_factory=lambda: {"code": "upstream_stream_interrupted"})


CUTS = [
    Cut("FIN within chunks", cut(sse.CHUNKED, chunk(SENT))),
    Cut("FIN within a chunk", cut(sse.CHUNKED + b"fff\r\n" + SENT)),
    Cut("RST", cut(sse.CHUNKED, chunk(SENT), reset=True)),
    Cut("RST within a chunk", cut(sse.CHUNKED + b"fff\r\n" + SENT, reset=True)),
    Cut("short of its length", cut(sse.HEAD + MORE + SENT)),
    Cut("short of its length, RST", cut(sse.HEAD + MORE, SENT, reset=True)),
    Cut("EOF without a terminal", cut(sse.HEAD + NO_LENGTH, SENT)),
    Cut("an orderly end without a terminal", streams(SENT)),
    Cut("nothing but a head, then the end", streams(), b""),
    Cut("nothing but a head, then FIN", cut(sse.CHUNKED), b""),
    Cut("nothing but comments", streams(b": processing\n\n"), b": processing\n\n"),
    Cut("half an event, in a character", cut(sse.CHUNKED, chunk(SENT + HALF)), SENT + HALF),
    Cut("half an event, until EOF", cut(sse.HEAD + NO_LENGTH, SENT + HALF), SENT + HALF),
    Cut("one newline short", cut(sse.CHUNKED, chunk(SENT[:-1])), SENT[:-1]),
    Cut("one choice of two has finished", streams(sse.choice(0, "stop"), sse.choice(1, content="a")), None),
    Cut("garbage", cut(sse.CHUNKED, chunk(SENT), b"zz\r\nxx"), error={"code": "upstream_bad_answer"}),
    Cut("silence", falls_silent, settings=IMPATIENT, error={"code": "upstream_timeout"}),
    Cut(
        "TGI",
        streams(b'data:{"index":1,"token":{"text":"a"}}\n\n'),
        b'data:{"index":1,"token":{"text":"a"}}\n\n',
        GENERATE,
    ),
    Cut(
        "responses",
        streams(b'data: {"type":"response.created"}\n\n'),
        b'data: {"type":"response.created"}\n\n',
        RESPONSES,
    ),
]
CUTS = [
    case if case.sent is not None else Cut(case.name, case.script, sse.choice(0, "stop") + sse.choice(1, content="a"))
    for case in CUTS
]


@pytest.mark.parametrize("case", CUTS, ids=attrgetter("name"))
async def test_a_cut_stream_ends_with_one_error_event_and_a_cut(case):
    async with upstream(case.script) as double, weir(double.url, settings=case.settings) as proxy:
        answer = await wire.fetch(proxy.url, case.asked)
        assert answer.status == 200
        assert not answer.is_whole
        assert answer.body.startswith(case.sent)
        closing, rest = b"", answer.body[len(case.sent) :]
        if case.sent and not case.sent.endswith(b"\n\n"):
            closing, rest = rest[:2], rest[2:]
            assert closing == b"\n\n"
        assert rest.startswith(b'data: {"error":')
        assert rest.endswith(b"}\n\n")
        assert rest.count(b"\n") == 2
        error = orjson.loads(rest.removeprefix(b"data: "))["error"]
        assert error.keys() == {"message", "type", "code", "param"}
        assert {**error, **case.error} == error
        assert b"[DONE]" not in answer.body
        assert await at_rest(proxy) == {"stream_interrupted": 1}


@pytest.mark.parametrize("name", ["FIN within chunks", "RST", "short of its length", "EOF without a terminal"])
async def test_the_openai_sdk_raises_for_every_cut(name):
    """Direct, it takes the last of them for a whole answer."""
    case = next(case for case in CUTS if case.name == name)
    said: list[str | None] = []
    async with upstream(case.script) as double, weir(double.url) as proxy:
        with pytest.raises(APIError, match="upstream 'up'"):
            await _listen(proxy.url, said)
        assert await at_rest(proxy) == {"stream_interrupted": 1}
    assert said[1:] == [f"漢字 Grüße ☕ {sse.FAMILY}", " wörld"]


async def _listen(url: str, said: list[str | None]) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-app", max_retries=0) as client:
        chunks = await client.chat.completions.create(model="m", messages=[], stream=True)
        async for each in chunks:
            said.append(each.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts


def then(ending: str) -> Script:
    """A whole answer, and then anything but its orderly end."""

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(sse.CHUNKED, chunk(SENT + FINISH), chunk(DONE))
        await asyncio.sleep(0.05)
        if ending == "silence":
            await connection.left()
        (connection.reset if ending == "RST" else connection.close)()

    return script


@pytest.mark.parametrize("ending", ["RST", "FIN", "silence"])
async def test_a_stream_that_was_whole_ends_well(ending):
    async with upstream(then(ending)) as double, weir(double.url, settings=IMPATIENT) as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
        assert (answer.body, answer.is_whole) == (SENT + FINISH + DONE, True)
        assert await at_rest(proxy) == {"ok": 1}


IN_BAND = {
    "data: {error}, then the end": (b'data: {"error":{"message":"out of memory","code":507}}\n\n', b""),
    "event: error": (b'event: error\ndata: {"message": "overloaded"}\n\n', b""),
    "event: error, and [DONE]": (b'event: error\ndata: {"error": {"message": "overloaded"}}\n\n' + DONE, b""),
    "TGI's": (b'data:{"error":"Request failed","error_type":"generation"}\n\n', b""),
    "finish_reason error": (sse.choice(0, "error"), b""),
    "unterminated, as LitServe's": (b'data: {"error": {"message": "worker died", "code": 500}}', b"\n\n"),
}


@pytest.mark.parametrize("name", IN_BAND)
async def test_an_error_that_the_upstream_tells_itself_passes_as_it_is(name):
    """Told once: Weir adds none of its own, and what ends in order ends so; the metrics know better."""
    sent, closing = IN_BAND[name]
    async with upstream(streams(*TOLD, sent)) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
        assert answer.body == SENT + sent + closing
        assert answer.is_whole is (closing == b"")
        assert await at_rest(proxy) == {"stream_interrupted": 1}


async def test_an_error_is_told_before_a_cut_as_well():
    sent = b'data: {"error":{"message":"out of memory","code":507}}\n\n'
    async with upstream(cut(sse.CHUNKED, chunk(SENT), chunk(sent))) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
        assert not answer.is_whole
        assert answer.body.startswith(SENT + sent)
        assert await at_rest(proxy) == {"stream_interrupted": 1}


@pytest.mark.parametrize("ends", [True, False], ids=["orderly", "cut"])
async def test_a_json_error_at_the_tail_becomes_an_event(ends):
    """Field case 48: no `data:` before it, so no client would see it; the event has the upstream's own code."""
    tail = b'{"error":{"message":"shard lost","type":"server_error","code":503}}'
    script = streams(*TOLD, tail, ends=ends) if ends else cut(sse.CHUNKED, chunk(SENT), chunk(tail))
    async with upstream(script) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
        assert answer.body.startswith(SENT + tail + b"\n\ndata: ")
        error = orjson.loads(answer.body.rpartition(b"data: ")[2])["error"]
        assert (error["message"], error["code"]) == ("shard lost", 503)
        assert not answer.is_whole
        assert await at_rest(proxy) == {"stream_interrupted": 1}


CUT_BODIES = {
    "short of its length": cut(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + MORE + b'{"object'),
    "short of its length, RST": cut(b"HTTP/1.1 200 OK\r\n" + MORE, b'{"object', reset=True),
    "within chunks": cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b'{"object')),
    "within chunks, RST": cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b'{"object'), reset=True),
}


@pytest.mark.parametrize("name", CUT_BODIES)
async def test_what_is_no_stream_stays_cut_and_gets_nothing_added(name):
    async with upstream(CUT_BODIES[name]) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, asks("GET /v1/models"))
        assert (answer.body, answer.is_whole) == (b'{"object', False)
        assert await at_rest(proxy) == {"stream_interrupted": 1}


@pytest.mark.parametrize("name", CUT_BODIES)
async def test_the_next_request_after_a_cut_is_served(name):
    """Nothing of the cut answer is left on a connection that is used again."""
    async with upstream(CUT_BODIES[name]) as double, weir(double.url) as proxy:
        await wire.fetch(proxy.url, asks("GET /v1/models"))
        double.script = answers("200 OK", body=b"{}")
        assert (await wire.fetch(proxy.url, asks("GET /v1/models"))).body == b"{}"
        assert len(double.wires) == 2
        assert await outcomes(proxy) == {"stream_interrupted": 1, "ok": 1}


async def test_a_stream_elsewhere_is_taken_at_the_transports_word():
    """No terminal is known for it: an orderly end is an end, a cut is a cut."""
    asked = asks("GET /v1/none/events")
    async with upstream(says(sse.CHUNKED + chunked(b"data: a\n\n"))) as double, weir(double.url) as proxy:
        assert (await wire.fetch(proxy.url, asked)).is_whole
    async with upstream(cut(sse.HEAD + MORE + b"data: a\n\n")) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, asked)
    assert not answer.is_whole
    assert answer.body.startswith(b"data: a\n\n")


async def test_an_upstream_that_is_cut_is_let_go():
    """Silence after a terminal, an error or half an answer: the connection does not go back into the pool."""
    async with upstream(falls_silent) as double, weir(double.url, settings=IMPATIENT) as proxy:
        await wire.fetch(proxy.url, STREAM)
        async with asyncio.timeout(wire.SECONDS):
            await double.wires[0].has_left.wait()
    assert LAST not in double.requests[0].body
