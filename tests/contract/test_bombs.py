"""Field case 110: answers that unfold to a gigabyte cost a bounded part of that, and requests are not unfolded at all."""

import contextlib
import functools
import tracemalloc
import zlib

import orjson
import pytest

from proxy import testing
from tests import recording, wire
from tests.contract.double import CHAT, answers, asks, at_rest, says, upstream

MIB = 2**20
GIB = 2**30
PIECE = 16 * MIB
"""Bytes that each full block of a bomb unfolds to; it is 1000 times smaller."""
BOUND = 160 * MIB
"""What is unfolded at a time (a hundred times a read of 256 KiB) with the copies that are made of it on its way down."""

HEADS = {"gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\xff", -15), "deflate": (b"\x78\xda", -15)}
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": null}]}\n\n'
STREAM, JSON = "text/event-stream", "application/json"
POST = asks(f"POST {CHAT}", "Accept-Encoding: gzip, deflate", body=b'{"model": "m", "stream": true}')


@functools.cache
def blocks(encoding, begin, filler):
    """The beginning of a bomb, and a block that may follow it any number of times."""
    head, bits = HEADS[encoding]
    packer = zlib.compressobj(9, wbits=bits)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(filler * (PIECE // len(filler))) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + first, block


def bomb(encoding, size, begin=b"", filler=b"\0"):
    first, block = blocks(encoding, begin, filler)
    return first + block * (size // PIECE)


@contextlib.contextmanager
def bounded(limit):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.0f} MiB"


@contextlib.asynccontextmanager
async def house(script, *chain):
    async with upstream(script) as double:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{double.url}/v1", api_key: sk-upstream-key}}}}\n'
            f"plugins: {orjson.dumps(list(chain)).decode()}\nroutes: [{{name: default, targets: [up]}}]\n"
        )
        async with testing.configured(text) as proxy:
            yield double, proxy


async def received(proxy, sent=POST):
    """Status, and how many bytes came of the body; they are let go at once."""
    async with wire.connected(proxy.url) as client:
        await client.send(sent)
        answer = await client.start("POST")
        size = 0
        while piece := await answer.body.piece():
            size += len(piece)
        return answer.message, size


def whole(encoding, kind, body):
    return answers("200 OK", f"Content-Type: {kind}", f"Content-Encoding: {encoding}", body=body)


def dripping(encoding, kind, size, begin, filler):
    """Block by block, each in a chunk and a write of its own."""
    first, block = blocks(encoding, begin, filler)
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    pieces = [first, *[block] * (size // PIECE)]
    return says(head.encode(), *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n")


@pytest.mark.parametrize("encoding", HEADS)
@pytest.mark.parametrize(("stage", "kind"), [("tap", JSON), ("tap", STREAM), ("event_tap", STREAM)])
async def test_what_only_watches_passes_a_bomb_on_as_it_came(stage, kind, encoding):
    body = bomb(encoding, GIB, b"data: " if kind == STREAM else b"[")
    async with house(whole(encoding, kind, body), recording.entry("watcher", stage=stage)) as (_, proxy):
        with bounded(BOUND):
            answer, size = await received(proxy)
            await at_rest(proxy)
        assert (answer.status, size) == (200, len(body))


@pytest.mark.parametrize("kind", [JSON, STREAM])
async def test_reading_the_usage_of_a_bomb_is_bounded(kind):
    body = bomb("gzip", GIB, EVENT if kind == STREAM else b'{"usage": ')
    async with house(whole("gzip", kind, body), {"metering": {"ledger": "none", "include_usage": False}}) as (_, proxy):
        with bounded(BOUND):
            _, size = await received(proxy)
            await at_rest(proxy)
        assert size == len(body)


@pytest.mark.parametrize("stage", ["tap", "event_tap"])
async def test_a_bomb_in_drops_is_bounded_too(stage):
    script = dripping("gzip", STREAM, GIB // 4, EVENT, EVENT * 100)
    async with house(script, recording.entry("watcher", stage=stage)) as (_, proxy):
        with bounded(BOUND):
            await received(proxy)
            await at_rest(proxy)


@pytest.mark.parametrize("encoding", HEADS)
async def test_a_filter_gives_a_bomb_up(encoding):
    body = bomb(encoding, GIB, EVENT)
    async with house(whole(encoding, STREAM, body), recording.entry("filter", stage="event_filter")) as (_, proxy):
        with bounded(BOUND):
            answer, size = await received(proxy)
            assert (await at_rest(proxy)) == {"stream_interrupted": 1}
        assert answer.status == 200
        assert size < BOUND


async def test_a_filter_passes_a_bomb_in_drops_no_faster_than_the_app_reads():
    script = dripping("gzip", STREAM, GIB // 4, EVENT, b"x")
    async with house(script, recording.entry("filter", stage="event_filter")) as (_, proxy):
        with bounded(BOUND):
            await received(proxy)
            await at_rest(proxy)


@pytest.mark.parametrize("encoding", [*HEADS, "br", "zstd", "gzip, br"])
async def test_what_needs_the_whole_body_refuses_a_bomb(encoding):
    body = bomb(encoding, GIB, b"[") if encoding in HEADS else bomb("gzip", GIB)
    async with house(whole(encoding, JSON, body), recording.entry("filter", stage="body_filter")) as (_, proxy):
        with bounded(BOUND):
            answer, size = await received(proxy)
            await at_rest(proxy)
        assert answer.status == 502
        assert size < 1000


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br"])
@pytest.mark.parametrize("stage", ["tap", "event_tap"])
async def test_an_encoding_that_nobody_reads_passes_as_bytes(stage, encoding):
    body = bomb("gzip", PIECE)
    async with house(whole(encoding, STREAM, body), recording.entry("watcher", stage=stage)) as (_, proxy):
        assert (await received(proxy))[1] == len(body)


@pytest.mark.parametrize("encoding", [*HEADS, "br", "zstd"])
@pytest.mark.parametrize(("begin", "filler"), [(b'{"error": "', b"x"), (b"[0", b",0"), (b"", b"["), (b"<p>", b"<p>x")])
async def test_an_error_that_is_a_bomb_is_told_in_a_few_words(encoding, begin, filler):
    body = bomb(encoding if encoding in HEADS else "gzip", GIB, begin, filler)
    script = answers("500 Oops", f"Content-Type: {JSON}", f"Content-Encoding: {encoding}", body=body)
    async with house(script) as (_, proxy):
        with bounded(BOUND):
            answer, size = await received(proxy)
            await at_rest(proxy)
    assert (answer.status, answer.head.get("content-encoding")) == (500, None)
    assert size < 1000


async def test_an_error_unfolds_to_no_more_than_it_may_hold_plain():
    """Parsed JSON takes many times the room of its bytes."""
    packer = zlib.compressobj(9, wbits=31)
    body = packer.compress(b"[0" + b",0" * (10 * MIB) + b"]") + packer.flush()
    script = answers("500 Oops", f"Content-Type: {JSON}", "Content-Encoding: gzip", body=body)
    async with house(script) as (_, proxy):
        with bounded(BOUND):
            answer, size = await received(proxy)
    assert (answer.status, size < 1000) == (500, True)


@pytest.mark.parametrize("encoding", [*HEADS, "br", "zstd"])
@pytest.mark.parametrize("path", [CHAT, "/v1/files"])
async def test_a_compressed_request_goes_up_as_the_bytes_that_it_is(path, encoding):
    body = bomb(encoding if encoding in HEADS else "gzip", GIB)
    script = answers("200 OK", f"Content-Type: {JSON}", body=b"{}")
    async with house(script) as (double, proxy):
        sent = asks(f"POST {path}", f"Content-Type: {JSON}", f"Content-Encoding: {encoding}", body=body)
        with bounded(32 * MIB):
            assert (await received(proxy, sent))[0].status == 200
        [request] = double.requests
        assert request.body == body
        assert request.head.get("content-encoding") == encoding


async def test_a_compressed_request_that_must_be_read_is_refused_unread():
    script = answers("200 OK", f"Content-Type: {JSON}", body=b"{}")
    async with house(script, "guard") as (double, proxy):
        sent = asks(f"POST {CHAT}", f"Content-Type: {JSON}", "Content-Encoding: gzip", body=bomb("gzip", GIB))
        with bounded(32 * MIB):
            answer, _ = await received(proxy, sent)
        assert (answer.status, double.requests) == (400, [])
