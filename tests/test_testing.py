"""What plugin authors test with: a scripted upstream, a real Weir, a client."""

import asyncio

import orjson
import pytest

from proxy import testing
from proxy.plugin import Key
from proxy.source import ConfigError
from tests import wire


async def test_an_upstream_says_what_its_script_says_and_keeps_what_it_was_asked():
    async with testing.upstream(testing.answer(b"[]", status=418, x_tea="green")) as upstream:
        answer = await wire.fetch(upstream.url, b"POST /v1/x HTTP/1.1\r\nX-One: 1\r\ncontent-length: 2\r\n\r\n{}")
    assert (answer.status, answer.body, answer.head.get("x-tea")) == (418, b"[]", "green")
    assert upstream.connections == 1
    assert (upstream.last.method, upstream.last.target) == ("POST", "/v1/x")
    assert upstream.last.fields == [(b"X-One", b"1"), (b"content-length", b"2")]
    assert upstream.last.headers["x-one"] == "1"
    assert upstream.last.json() == {}


async def test_a_stream_has_a_chunk_per_piece_and_may_be_cut():
    for ends in (True, False):
        async with testing.upstream(testing.stream(b"data: 1\n\n", b"data: 2\n\n", ends=ends)) as upstream:
            answer = await wire.fetch(upstream.url, b"GET / HTTP/1.1\r\n\r\n")
        assert (answer.body, answer.is_whole) == (b"data: 1\n\ndata: 2\n\n", ends)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_chat_streams_where_it_is_asked_to(streams: bool):
    body = orjson.dumps({"model": "m", "stream": streams})
    async with testing.upstream(testing.chat("one two")) as upstream, testing.weir(upstream) as weir:
        answer = await testing.ask(weir, body)
    if streams:
        assert answer.body == b"".join(testing.chat_events(["one", "two"]))
    else:
        assert answer.json()["choices"][0]["message"]["content"] == "one two"
        assert answer.json()["usage"]["completion_tokens"] == 2


async def test_a_script_learns_that_the_other_side_has_left():
    left = asyncio.Event()

    async def script(received: testing.Received, there: testing.Wire) -> None:
        await there.send(b"HTTP/1.1 200 OK\r\n\r\n", b"some")
        try:
            await there.gone.wait()
        finally:
            left.set()

    async with testing.upstream(script) as upstream, wire.connected(upstream.url) as client:
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        await client.head()
        client.leave()
        await asyncio.wait_for(left.wait(), 10)


async def test_a_reset_is_no_clean_end():
    async def script(received: testing.Received, there: testing.Wire) -> None:
        await there.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        there.reset()

    async with testing.upstream(script) as upstream, testing.weir(upstream) as weir:
        answer = await testing.ask(weir, {})
    assert (answer.status, answer.is_whole) == (200, False)


async def test_ask_says_whether_the_answer_was_whole():
    async with testing.upstream(testing.stream(b"data: x\n\n", ends=False)) as upstream, testing.weir(upstream) as weir:
        answer = await testing.ask(weir, {"stream": True})
    assert not answer.is_whole
    assert b'data: {"error"' in answer.body


async def test_settings_reach_the_config_and_a_wrong_one_is_told():
    async with testing.upstream(testing.chat("hi")) as upstream:
        async with testing.weir(upstream, settings="api_key: sesame", server="max_request_bytes: 1KiB") as weir:
            assert (await testing.ask(weir, b"x" * 2000)).status == 413
            await testing.ask(weir, {}, path="/v1/x", headers={"x-mine": "1"})
        assert upstream.last.target == "/v1/x"
        assert (upstream.last.headers["authorization"], upstream.last.headers["x-mine"]) == ("Bearer sesame", "1")
        with pytest.raises(ConfigError, match="no plugin is named 'nobody'"):
            async with testing.weir(upstream, ["nobody"]):
                pytest.fail("it started")


async def test_an_exchange_by_hand_has_what_hooks_look_at():
    exchange = testing.exchange(body=b'{"model":"m"}', headers={"X-Tier": "free"})
    key: Key[int] = Key("n")
    exchange[key] = 1
    assert exchange.request.endpoint == "chat"
    assert exchange.request.headers["x-tier"] == "free"
    assert await exchange.request.json() == {"model": "m"}
    assert exchange[key] == 1
