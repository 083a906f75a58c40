"""What a connection of the app's may carry: one request after the other, several at once, old and modern clients."""

import asyncio

import pytest

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.contract.double import CHAT, Wire, answers, asks, at_rest, chunked, upstream, weir
from tests.contract.sse import DONE, FINISH, STREAM, TOLD, streams

OLD = b"HTTP/1.0"


async def echoes(connection: Wire) -> None:
    """Says which request it answers."""
    await connection.read()
    target = connection.request.head.start.split()[1]
    await answers("200 OK", "Content-Type: text/plain", body=target + b" " + connection.request.body)(connection)


def get(number: int, *fields: str) -> bytes:
    return asks(f"GET /v1/models/{number}", *fields)


def post(number: int, body: bytes = b"hello", *fields: str) -> bytes:
    return asks(f"POST /v1/files/{number}", *fields, body=body)


async def test_pipelined_requests_are_answered_in_their_order():
    sent = [
        get(0),
        post(1),
        get(2),
        asks("DELETE /v1/files/3", "Transfer-Encoding: chunked") + chunked(b"x", b"y"),
        get(4),
    ]
    async with upstream(echoes) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(b"".join(sent))
        said = [(await client.answer()).body for _ in sent]
    assert said == [b"/v1/models/0 ", b"/v1/files/1 hello", b"/v1/models/2 ", b"/v1/files/3 xy", b"/v1/models/4 "]
    assert len(double.wires) == 1


async def test_a_stream_and_what_was_pipelined_behind_it():
    script = streams(*TOLD, FINISH, DONE)
    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(STREAM + STREAM)
        first, second = await client.answer("POST"), await client.answer("POST")
    assert first.body == second.body == b"".join([*TOLD, FINISH, DONE])
    assert first.head.get("x-weir-request-id") != second.head.get("x-weir-request-id")


async def test_one_connection_serves_many_requests_up_and_down():
    """Streams, bodies, errors and answers without a body leave it in order."""
    async with upstream(echoes) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        for number in range(50):
            await client.send(post(number, b"x" * number * 1000))
            answer = await client.answer("POST")
            assert answer.body == b"/v1/files/%d " % number + b"x" * number * 1000
            await client.send(asks(f"HEAD /v1/models/{number}"))
            assert (await client.answer("HEAD")).status == 200
        assert await at_rest(proxy) == {"ok": 100}
    assert len(double.wires) <= 51  # an answer to HEAD with a body after it would be taken for garbage and cut


async def test_a_connection_lives_on_after_refusals_of_the_upstream():
    script = answers("400 Bad Request", body=b'{"error": {}}')
    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        for _ in range(3):
            await client.send(post(1))
            assert (await client.answer("POST")).status == 400
    assert len(double.wires) == 1


async def test_close_is_what_the_client_gets_when_it_asks_for_it():
    async with upstream(echoes) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(get(1, "Connection: close"))
        answer = await client.answer()
        assert answer.head.get("connection") == "close"
        assert await client.ends()
    assert len(double.wires) == 1


async def test_the_upstreams_close_is_not_the_clients():
    script = answers("200 OK", "Connection: close", body=b"{}", closes=False)
    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        for _ in range(3):
            await client.send(get(1))
            answer = await client.answer()
            assert (answer.body, answer.head.all("connection")) == (b"{}", [])
    assert len(double.wires) == 3


@pytest.mark.parametrize("keeps", [False, True])
async def test_an_http_1_0_client_keeps_its_connection_only_where_it_asks(keeps):
    async with upstream(echoes) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(get(1, *(["Connection: keep-alive"] if keeps else [])).replace(b"HTTP/1.1", OLD))
        answer = await client.answer()
        assert answer.body == b"/v1/models/1 "
        assert answer.head.get("connection") == ("keep-alive" if keeps else "close")
        if keeps:
            await client.send(get(2))
            assert (await client.answer()).body == b"/v1/models/2 "
        else:
            assert await client.ends()
    assert double.requests[0].head.start == b"GET /v1/models/1 HTTP/1.1"


async def test_an_http_1_0_client_needs_no_host():
    async with upstream(echoes) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, b"GET /v1/models/1 HTTP/1.0\r\n\r\n")
    assert answer.body == b"/v1/models/1 "
    assert double.requests[0].head.fields[0] == (b"Host", double.authority)


async def test_a_request_may_come_byte_by_byte():
    async with upstream(echoes) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        for byte in post(7, "Grüße".encode()):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer("POST")).body == "/v1/files/7 Grüße".encode()
    assert len(double.requests) == 1


async def test_a_stale_connection_costs_no_request():
    """Field cases 22 and 101: the server closes what rests; the next POST finds a connection that works, and goes once."""
    async with upstream(echoes) as double, weir(double.url) as proxy:
        for number in range(5):
            answer = await wire.fetch(proxy.url, post(number))
            assert answer.body == b"/v1/files/%d hello" % number
            double.wires[-1].close()
            await asyncio.sleep(0.02)
    assert len(double.requests) == len(double.wires) == 5


async def test_a_post_whose_connection_breaks_goes_up_once():
    """Field case 22: it may have been done, so it is not done again."""

    async def breaks(connection: Wire) -> None:
        await connection.read()
        connection.reset()

    async with upstream(breaks) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, post(1))
        assert answer.status == 502
    assert len(double.requests) == 1


async def test_many_streams_at_once_do_not_mix():
    """Sixty streams of words of their own, each on a connection of its own."""

    async def script(connection: Wire) -> None:
        await connection.read()
        number = connection.request.head.get("x-number") or ""
        events = [testing.chat_event({"content": f"{number}-{place} "}) for place in range(20)]
        await connection.send(sse.CHUNKED, *map(sse.chunk, [*events, FINISH, DONE]), sse.LAST)

    async def said(url: str, number: int) -> list[bytes]:
        answer = await wire.fetch(url, asks(f"POST {CHAT}", f"X-Number: {number}", body=b'{"stream": true}'))
        return [part.partition(b'"')[0] for part in answer.body.split(b'"content":"')[1:]]

    async with upstream(script) as double, weir(double.url) as proxy:
        heard = await asyncio.gather(*(said(proxy.url, number) for number in range(60)))
    assert heard == [[b"%d-%d " % (number, place) for place in range(20)] for number in range(60)]
    assert len(double.requests) == 60
