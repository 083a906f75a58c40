"""A silent stream is kept alive, and no client notices."""

from __future__ import annotations

import asyncio
import gzip
import io
import time

import openai
import orjson
import pytest

from proxy import testing
from proxy.plugin import ConfigError
from tests import wire

WORDS = testing.chat_events(["to", "be"])
PLAIN = b"".join(WORDS)
PING = b": ping\n"
STREAM = {"model": "m", "stream": True}


def silent_before(event: int, seconds: float, *events: bytes) -> testing.Script:
    async def script(received: testing.Received, wire: testing.Wire) -> None:
        await testing.stream(*events[:event], ends=False)(received, Held(wire))
        await asyncio.sleep(seconds)
        await wire.send(*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*events[event:], b"")))

    return script


class Held:
    """A wire that nobody closes."""

    def __init__(self, wire: testing.Wire) -> None:
        self.send = wire.send

    def close(self) -> None:
        pass


def late(script: testing.Script, seconds: float = 0.4) -> testing.Script:
    """Says nothing at all for a while."""

    async def waits(received: testing.Received, wire: testing.Wire) -> None:
        await asyncio.sleep(seconds)
        await script(received, wire)

    return waits


def keepalive(**settings: object) -> list[object]:
    return [{"sse_keepalive": {"interval": "100ms", **settings}}]


@pytest.mark.parametrize("event", [0, 1, 2])
async def test_a_silence_between_events_is_filled(event):
    async with (
        testing.upstream(silent_before(event, 0.5, *WORDS)) as upstream,
        testing.weir(upstream, keepalive()) as weir,
    ):
        answer = await testing.ask(weir, STREAM)
    before, after = b"".join(WORDS[:event]), b"".join(WORDS[event:])
    pings = answer.body.removeprefix(before).removesuffix(after)
    assert (answer.is_whole, set(pings.split(PING))) == (True, {b""})
    assert 2 <= pings.count(PING) <= 6


async def test_a_stream_that_is_not_silent_stays_byte_identical():
    async with (
        testing.upstream(testing.stream(*WORDS * 10, pause=0.02)) as upstream,
        testing.weir(upstream, keepalive(interval="1s")) as weir,
    ):
        assert (await testing.ask(weir, STREAM)).body == PLAIN * 10


async def test_nothing_is_put_into_an_event_that_came_in_part():
    head, tail = WORDS[0][:20], WORDS[0][20:] + b"".join(WORDS[1:])
    async with (
        testing.upstream(silent_before(1, 0.6, head, tail)) as upstream,
        testing.weir(upstream, keepalive()) as weir,
    ):
        assert (await testing.ask(weir, STREAM)).body == PLAIN


@pytest.mark.parametrize("size", [1, 5])
async def test_events_in_tiny_pieces_with_pings_between_them_read_the_same(size):
    """Each piece takes longer than the interval: pings come, but only between events."""
    whole = b"data: ab\n\ndata: [DONE]\n\n"
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    async with (
        testing.upstream(testing.stream(*pieces, pause=0.15)) as upstream,
        testing.weir(upstream, keepalive()) as weir,
    ):
        body = (await testing.ask(weir, STREAM, path="/v1/x")).body
    assert body.replace(PING, b"") == whole
    assert all(part.endswith(b"\n\n") for part in body.split(PING)[:-1] if part)


async def test_the_official_client_reads_through_it_also_after_an_event_with_an_id():
    events = [b"id: 7\n" + event for event in WORDS]
    async with (
        testing.upstream(silent_before(1, 0.5, *events)) as upstream,
        testing.weir(upstream, keepalive()) as weir,
    ):
        client = openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="x", max_retries=0)
        async with client:
            stream = await client.chat.completions.create(model="m", messages=[], stream=True)
            words = [chunk.choices[0].delta.content async for chunk in stream]
    assert words == ["to", " be", None]


async def test_json_has_no_pings():
    async with testing.upstream(late(testing.chat("hi"))) as upstream, testing.weir(upstream, keepalive()) as weir:
        assert (await testing.ask(weir, {"model": "m"})).json()["choices"]


async def test_a_compressed_stream_has_no_pings():
    packed = gzip.compress(PLAIN)
    script = silent_before(1, 0.4, packed[:30], packed[30:])

    async def gzipped(received, wire):
        sending = wire.send

        async def send(*pieces, pause=0.0):
            await sending(*(piece.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n", 1) if piece.startswith(b"HTTP") else piece for piece in pieces), pause=pause)  # fmt: skip

        wire.send = send
        await script(received, wire)

    async with testing.upstream(gzipped) as upstream, testing.weir(upstream, keepalive()) as weir:
        assert (await testing.ask(weir, STREAM)).body == packed


# -- before the upstream has answered


async def test_by_default_nothing_comes_before_the_upstreams_header():
    async with testing.upstream(late(testing.stream(*WORDS))) as upstream, testing.weir(upstream, keepalive()) as weir:
        began = time.monotonic()
        answer = await testing.ask(weir, STREAM)
    assert (answer.body, time.monotonic() - began > 0.3) == (PLAIN, True)


async def test_before_headers_the_stream_begins_while_the_upstream_thinks():
    async with (
        testing.upstream(late(testing.stream(*WORDS))) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
    ):
        answer = await testing.ask(weir, STREAM)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["x-weir-request-id"]
    assert answer.body.startswith(PING * 2)
    assert (answer.body.replace(PING, b""), answer.is_whole) == (PLAIN, True)


async def test_an_upstream_that_is_quick_keeps_its_own_header():
    script = testing.stream(*WORDS, x_request_id="theirs")
    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
    ):
        answer = await testing.ask(weir, STREAM)
    assert (answer.headers["x-request-id"], answer.body) == ("theirs", PLAIN)


LATE = {
    "an error": (testing.answer(b'{"error": {"message": "too hot", "type": "t", "code": "c"}}', status=503), "too hot", "c"),
    "a flat error": (testing.answer(b'{"object": "error", "message": "bad", "type": "t", "code": 400}', status=400), "bad", 400),
    "a page": (testing.answer(b"<h1>Bad Gateway</h1>", status=502, content_type="text/html"), "upstream 'up' answered 502 and said: Bad Gateway", "upstream_502"),
    "no stream": (testing.answer(b'{"choices": []}'), "the upstream answered without a stream", "upstream_bad_answer"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "message", "code"), LATE.values(), ids=LATE)
async def test_what_comes_late_and_is_no_stream_is_told_as_an_event_and_a_cut(script, message, code):
    async with (
        testing.upstream(late(script, 0.3)) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
    ):
        answer = await testing.ask(weir, STREAM)
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    event = answer.body.replace(PING, b"")
    assert (answer.status, answer.is_whole, event.count(b"data: ")) == (200, False, 1)
    error = orjson.loads(event.removeprefix(b"data: "))["error"]
    assert (error["message"], error["code"]) == (message, code)
    assert 'outcome="ok",route' not in page


async def test_an_upstream_that_hangs_up_late_is_told_likewise_and_the_client_raises():
    async def hangs_up(received, wire):
        wire.close()

    async with (
        testing.upstream(late(hangs_up, 0.3)) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
        openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="closed the connection before it answered"):
            async for _ in stream:
                pass


async def test_an_app_that_leaves_while_it_waits_cancels_the_upstream():
    async with (
        testing.upstream(late(testing.stream(*WORDS), 30)) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
    ):
        async with wire.connected(weir.url) as client:
            body = orjson.dumps(STREAM)
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            await client.send(head % len(body) + body)
            answer = await client.start("POST")
            await answer.until(PING)
        (connection,) = upstream.wires
        await wire.until(connection.gone.is_set)
        await wire.until(lambda: not weir.in_flight)


async def test_a_request_for_json_is_not_answered_early():
    async with (
        testing.upstream(late(testing.answer(b'{"error": {"message": "no"}}', status=503), 0.3)) as upstream,
        testing.weir(upstream, keepalive(before_headers=True)) as weir,
    ):
        assert (await testing.ask(weir, {"model": "m"})).status == 503


async def test_an_interval_that_would_flood_is_refused():
    text = 'upstreams: {up: {base_url: "http://x/v1"}}\nplugins: [{sse_keepalive: {interval: 1ms}}]\nroutes: [{name: r, targets: [up]}]\n'
    with pytest.raises(ConfigError, match=r"sse_keepalive.interval: .* too short; write at least 100ms"):
        async with testing.configured(text, io.BytesIO()):
            pass
