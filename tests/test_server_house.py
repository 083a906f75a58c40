"""The edge around a house that fails, hangs, is left, or drains."""

import asyncio
import contextlib

import orjson
import pytest

from proxy.response import Response
from proxy.server import Server
from tests import wire


@contextlib.asynccontextmanager
async def edge(serve):
    server = Server(serve, max_request_bytes=1000)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        await server.shutdown(0.1)


GET = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize("error", [RuntimeError("sk-secret"), TimeoutError("sk-secret")], ids=["any", "a timeout"])
async def test_what_nobody_caught_is_a_500_in_openais_shape(error, caplog):
    async def serve(exchange, downstream):
        raise error

    async with edge(serve) as (server, url):
        answer = await wire.fetch(url, GET)
        assert server.in_flight == 0
    assert answer.status in (500, 504)
    assert orjson.loads(answer.body)["error"]["type"] == "server_error"
    assert answer.head.get("x-weir-request-id") == answer.head.get("x-request-id")
    assert answer.head.get("connection") == "close"
    assert [answer.head.get("server"), answer.head.get("date")] == [None, None]
    assert b"sk-secret" not in answer.body
    assert "request failed at the edge" in caplog.text


async def test_an_answer_that_has_begun_gets_no_second_one():
    async def serve(exchange, downstream):
        downstream.start(200, b"OK", [], b"", is_framed=False)
        downstream.write(b"half")
        raise RuntimeError("after the head")

    async with edge(serve) as (_, url), wire.connected(url) as client:
        await client.send(GET)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.is_whole) == (200, b"half", False)
        assert await client.ends()


async def test_requests_in_flight_are_counted_and_waited_for():
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def serve(exchange, downstream):
        begun.set()
        await go_on.wait()
        downstream.start(200, b"OK", [(b"content-length", b"0")], b"", is_framed=True)
        downstream.flush()

    async with edge(serve) as (server, url), wire.connected(url) as client:
        assert await server.is_idle_in(5)
        await client.send(GET)
        await begun.wait()
        assert server.in_flight == 1
        waiting = asyncio.ensure_future(server.is_idle_in(30))
        assert not await server.is_idle_in(0.01)
        assert not waiting.done()
        go_on.set()
        assert await asyncio.wait_for(waiting, 5)
        assert (await client.answer()).status == 200


async def test_a_handler_is_cancelled_when_its_app_leaves():
    begun, gone = asyncio.Event(), asyncio.Event()

    async def serve(exchange, downstream):
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            gone.set()
            raise

    async with edge(serve) as (server, url), wire.connected(url) as client:
        await client.send(GET)
        await begun.wait()
        client.leave()
        await asyncio.wait_for(gone.wait(), 5)
        await wire.until(lambda: not server.in_flight)


async def test_a_connection_serves_one_request_after_another():
    async def serve(exchange, downstream):
        response = Response.of_json(200, {"path": exchange.request.target})
        head = [*response.fields(), (b"content-length", b"%d" % len(response.body))]
        downstream.start(200, b"OK", head, b"", is_framed=True)
        downstream.write(response.body)

    async with edge(serve) as (server, url), wire.connected(url) as client:
        await client.send(GET.replace(b"models", b"1") + GET.replace(b"models", b"2"))
        paths = [orjson.loads((await client.answer()).body)["path"] for _ in range(2)]
        server.is_draining = True
        await client.send(GET)
        answer = await client.answer()
        assert answer.head.get("connection") == "close"
        assert await client.ends()
    assert paths == ["/v1/1", "/v1/2"]
