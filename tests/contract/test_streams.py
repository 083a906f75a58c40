"""Event streams arrive byte for byte and one by one, however they were cut into reads: the table of streams."""

import asyncio
import gzip
from operator import attrgetter

import pytest
from openai import AsyncOpenAI

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.contract.double import Case, Wire, asks, compare, says, upstream, weir
from tests.contract.sse import DONE, FINISH, LAST, STREAM, TOLD, USAGE, WHOLE, choice, chunk, streams

GENERATE = asks("POST /generate_stream", body=b'{"inputs": "x"}')
COMPLETIONS = asks("POST /v1/completions", body=b'{"stream": true}')
RESPONSES = asks("POST /v1/responses", body=b'{"stream": true}')
TOOL = b'{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"q\\":\\"\xe6\xbc\xa2"}}]}}'
THREE = [
    *(choice(index, role="assistant") for index in (0, 1, 2)),
    *(choice(index, content=f"{index}") for index in (2, 0, 1, 1, 0, 2)),
    *(choice(index, "stop") for index in (1, 0, 2)),
]

STREAMS = {
    "events, each in a chunk": [*TOLD, FINISH, USAGE, DONE],
    "all at once": [WHOLE],
    "CRLF": [WHOLE.replace(b"\n", b"\r\n")],
    "CR": [WHOLE.replace(b"\n", b"\r")],
    "a mark of byte order": [b"\xef\xbb\xbf" + WHOLE],
    "several fields": [b"id: 1\nevent: message\nretry: 10\n" + TOLD[0], b": ping\n\n", b"id: 2\n" + FINISH, DONE],
    "data over several lines": [
        b'data: {"choices": [{"index": 0,\ndata: "delta": {"content": "a"}}]}\n\n',
        FINISH,
        DONE,
    ],
    "no space after the colon": [WHOLE.replace(b"data: ", b"data:")],
    "comments between and within": [b": one\n\n", TOLD[0], b": two\n", FINISH, b":\n\n", DONE],
    "heartbeats of nothing": [b"data:\n\n", TOLD[0], b"\n\n", b"data: \n\n", FINISH, DONE],
    "no [DONE]": [*TOLD, FINISH],
    "no blank line after the last": [*TOLD, FINISH, b"data: [DONE]"],
    "more after [DONE]": [*TOLD, FINISH, DONE, b": bye\n\n"],
    "bad JSON in the middle": [TOLD[0], b"data: {bad\n\n", b'data: {"a": \n\n', TOLD[1], FINISH, DONE],
    "a line of 2 MB": [TOLD[0], testing.chat_event({"content": "漢" * 700_000}), FINISH, DONE],
    "three choices, interleaved": [*THREE, DONE],
    "three choices, without [DONE]": THREE,
    "tool arguments, cut in a character": [b'data: {"choices":[' + TOOL + b"]}\n\n", choice(0, "tool_calls"), DONE],
    "usage in every chunk": [choice(0, content="a").replace(b"}]}", b'}],"usage":{"total_tokens":1}}'), FINISH, DONE],
    "finish_reason length": [choice(0, content="a"), choice(0, "length"), DONE],
    "an unknown dialect": [b'event: made_up\ndata: {"x": 1}\n\n', b"data: plain words\n\n", FINISH],
}
ELSEWHERE = {
    "completions": (COMPLETIONS, [b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\n', DONE]),
    "responses": (
        RESPONSES,
        [
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
            b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
        ],
    ),
    "TGI": (
        GENERATE,
        [
            b'data:{"index":1,"token":{"id":1,"text":"a"},"generated_text":null,"details":null}\n\n',
            b'data:{"index":2,"token":{"id":2,"text":"b"},"generated_text":"ab","details":null}\n\n',
        ],
    ),
    "a path that Weir does not know": (asks("GET /v1/none/events"), [b"data: a\n\n", b"data: b\n\n"]),
}
CLOSE = sse.HEAD + b"Connection: close\r\n\r\n"
LENGTH = sse.HEAD + b"Content-Length: %d\r\n\r\n" % len(WHOLE)
HEAD_AND_CHUNK = sse.CHUNKED + chunk(WHOLE) + LAST
GZIPPED = gzip.compress(WHOLE, mtime=0)
ENCODED = {
    "gzip": b"Transfer-Encoding: chunked\r\n\r\n" + chunk(GZIPPED[:70]) + chunk(GZIPPED[70:]) + LAST,
    "gzip, gzip": b"Content-Length: %d\r\n\r\n" % len(gzip.compress(GZIPPED)) + gzip.compress(GZIPPED, mtime=0),
    "br": b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"\x8b\x02\x80hello\x03") + LAST,
}

CASES = [
    *(Case(name, STREAM, streams(*pieces)) for name, pieces in STREAMS.items()),
    *(Case(name, sent, streams(*pieces)) for name, (sent, pieces) in ELSEWHERE.items()),
    Case("until the connection ends", STREAM, says(CLOSE, WHOLE[:50], WHOLE[50:], closes=True)),
    Case("with a length", STREAM, says(LENGTH, WHOLE[:50], WHOLE[50:])),
    Case("the whole answer in one write", STREAM, says(HEAD_AND_CHUNK)),
    Case("chunks of one byte each", STREAM, says(sse.CHUNKED + b"".join(chunk(bytes([b])) for b in WHOLE) + LAST)),
    Case("writes of one byte each", STREAM, says(*[bytes([b]) for b in sse.CHUNKED + chunk(WHOLE) + LAST])),
    Case("events of one byte each", STREAM, streams(*[bytes([b]) for b in WHOLE])),
    Case("with trailers", STREAM, says(sse.CHUNKED, chunk(WHOLE), b"0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n")),
    *(
        Case(f"encoded: {name}", STREAM, says(sse.HEAD + b"Content-Encoding: %b\r\n" % name.encode() + body))
        for name, body in ENCODED.items()
    ),
    Case("a stream of nothing elsewhere", asks("GET /v1/none/events"), streams()),
]


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
async def test_a_stream_arrives_as_it_was_sent(case):
    """Field cases 38-40, 43, 45, 115."""
    answer = await compare(case)
    assert answer.is_whole


async def test_every_split_of_an_event_leaves_the_same_bytes():
    """Field case 38: inside of CJK, emoji, joiners and line ends, with a pause at each split."""
    event = TOLD[1] + b": ping\r\n\r\n"
    splits = range(1, len(event))

    async def script(connection: Wire) -> None:
        split = len(double.requests)
        await connection.read()
        await connection.send(sse.CHUNKED, chunk(event[:split]), chunk(event[split:]), chunk(FINISH + DONE), LAST)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        for split in splits:
            await client.send(STREAM)
            answer = await client.answer("POST")
            assert (answer.body, answer.is_whole) == (event + FINISH + DONE, True), f"cut at {split}"


@pytest.mark.parametrize("encoding", ["chunked", "close"])
async def test_events_come_one_by_one(encoding):
    """Field case 1, without a clock: the upstream sends an event only when the app says that the last one is here."""
    acknowledged = asyncio.Queue[None]()
    events = [testing.chat_event({"content": f"{number}"}) for number in range(20)]
    frame = chunk if encoding == "chunked" else bytes

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(sse.CHUNKED if encoding == "chunked" else CLOSE)
        for event in events:
            await acknowledged.get()
            await connection.send(frame(event))
        await acknowledged.get()
        await connection.send(frame(FINISH), LAST if encoding == "chunked" else b"")
        connection.close()

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(STREAM)
        answer = await client.start()
        for event in events:
            acknowledged.put_nowait(None)
            assert await answer.until(b"\n\n") == event
        acknowledged.put_nowait(None)
        assert (await answer.whole()).is_whole


async def test_parts_of_events_and_comments_do_not_wait_for_the_rest():
    """Field cases 35-37: `: ping` is there before the next event, and half an event before its other half."""
    parts = [TOLD[0], b": ping\n\n", b'data: {"cho', b'ices":[]}\n', b"\n", b":\n", FINISH + DONE]
    goes_on = asyncio.Queue[None]()

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(sse.CHUNKED)
        for part in parts:
            await goes_on.get()
            await connection.send(chunk(part))
        await connection.send(LAST)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(STREAM)
        answer = await client.start()
        for part in parts:
            goes_on.put_nowait(None)
            assert await answer.until(part) == part
        assert (await answer.whole()).is_whole


async def test_one_event_is_one_chunk_and_no_more_writes():
    """Each read of the upstream's leaves as one chunk of its own, so that no client sees half of what was whole."""
    script = streams(*TOLD, FINISH, DONE)
    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(STREAM)
        answer = await client.start()
        pieces = [piece async for piece in _pieces(answer.body)]
    assert b"".join(pieces) == b"".join([*TOLD, FINISH, DONE])
    assert all(piece.endswith(b"\n\n") for piece in pieces)


async def _pieces(body):
    while piece := await body.piece():
        yield piece


async def test_the_sdk_reads_every_stream_that_it_can_read_direct():
    for name in ("CRLF", "no [DONE]", "a line of 2 MB", "three choices, interleaved", "data over several lines"):
        async with upstream(streams(*STREAMS[name])) as double, weir(double.url) as proxy:
            texts = [await _said(url) for url in (double.url, proxy.url)]
        assert texts[0] == texts[1] != "", name


async def _said(url):
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-app", max_retries=0) as client:
        chunks = await client.chat.completions.create(model="m", messages=[], stream=True)
        return "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])


async def test_64_mb_come_down_without_being_held():
    """The app reads slowly at first: what is under way between the ends stays bounded, and every byte arrives."""
    piece = testing.chat_event({"content": "漢" * 21_800})
    sent = got = most = 0

    async def script(connection: Wire) -> None:
        nonlocal sent, most
        await connection.read()
        await connection.send(sse.CHUNKED)
        for _ in range(1024):
            await connection.send(chunk(piece))
            sent += len(piece)
            most = max(most, sent - got)
        await connection.send(chunk(FINISH), LAST)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url, hold=2**16) as client:
        await client.send(STREAM)
        answer = await client.start()
        await asyncio.sleep(0.2)
        while data := await answer.body.piece():
            got += len(data)
        assert answer.body.is_whole
    assert got == 1024 * len(piece) + len(FINISH) > 64 * 2**20
    assert most < 24 * 2**20  # what two pairs of sockets may take, and Weir's share of them


async def test_a_client_of_http_1_0_gets_the_stream_until_the_end():
    async with upstream(streams(*TOLD, FINISH, DONE)) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, STREAM.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (answer.body, answer.head.all("transfer-encoding")) == (b"".join([*TOLD, FINISH, DONE]), [])
