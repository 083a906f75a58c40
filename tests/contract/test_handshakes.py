"""The handshake of a WebSocket: an ordinary exchange, up to a 101 that was asked for."""

import orjson
import pytest

from tests import wire
from tests.contract.double import Case, Wire, answers, asks, at_rest, compare, outcomes, upstream, weir
from tests.frames import accepted, accepts, handshake, joined, rest, text


def crumbs(*pieces: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in b"".join(pieces)]


async def test_the_request_goes_up_as_it_came_but_for_its_hop():
    fields = (
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: realtime, openai-beta.realtime-v1",
        "sec-websocket-protocol: more",
        "Origin: https://app.example",
        "OpenAI-Beta: realtime=v1",
        "Authorization: Bearer sk-app",
        "Cookie: a=b",
        "X-Odd_Name: Grüße",
    )
    kept = [tuple(field.encode().split(b": ", 1)) for field in (*fields[:5], fields[7])]
    async with upstream(accepts) as double, weir(double.url, settings="api_key: sk-upstream") as proxy:
        async with joined(proxy.url, double, handshake(*fields, target="/v1/realtime?model=a%2Fb&x=1")) as ends:
            ends.server.close()
        [request] = double.requests
    assert request.head.start == b"GET /v1/realtime?model=a%2Fb&x=1 HTTP/1.1"
    assert request.head.fields[0] == (b"Host", double.authority)
    assert [name for name, _ in request.head.fields[1:3]] == [b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"]
    hop = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Authorization", b"Bearer sk-upstream")]
    assert request.head.fields[3:] == [*kept, *hop]


async def test_the_answer_comes_down_as_it_is_but_for_its_hop():
    async def script(connection: Wire) -> None:
        await connection.send(accepted(b"Sec-WebSocket-Protocol: realtime", b"X-Odd: 1", b"Set-Cookie: a=b"))
        connection.close()

    async with upstream(script) as double, weir(double.url) as proxy, joined(proxy.url, double) as ends:
        head = ends.head
    assert head.start == b"HTTP/1.1 101 Switching Protocols"
    assert head.get("sec-websocket-protocol") == "realtime"
    own = [b"x-weir-request-id", b"x-request-id", b"x-weir-route", b"x-weir-upstream", b"x-weir-attempts"]
    names = [name for name, _ in head.fields]
    assert names == [b"Sec-WebSocket-Accept", b"Sec-WebSocket-Protocol", b"X-Odd", *own, b"Connection", b"Upgrade"]
    assert head.fields[-2:] == [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


OFFERS = {
    "realtime, openai-insecure-api-key.sk-app, openai-beta.realtime-v1": b"realtime, openai-beta.realtime-v1",
    "openai-insecure-api-key.sk-app,realtime": b"realtime",
    "realtime,xai-client-secret.sk-app": b"realtime",
    "realtime ,openai-beta.realtime-v1": b"realtime ,openai-beta.realtime-v1",
    "OpenAI-Insecure-Api-Key.sk-app": None,
}


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_key_among_the_subprotocols_stays_here(offer):
    async with upstream(accepts) as double, weir(double.url, settings="api_key: sk-upstream") as proxy:
        async with joined(proxy.url, double, handshake(f"Sec-WebSocket-Protocol: {offer}")) as ends:
            ends.server.close()
        [request] = double.requests
    assert request.head.all("sec-websocket-protocol") == ([] if OFFERS[offer] is None else [OFFERS[offer]])
    assert request.head.get("authorization") == "Bearer sk-upstream"
    assert "sk-app" not in repr(request)


async def test_a_key_among_the_subprotocols_passes_where_credentials_do():
    offer = "realtime, openai-insecure-api-key.sk-app"
    async with upstream(accepts) as double, weir(double.url, settings="auth: passthrough") as proxy:
        fields = (f"Sec-WebSocket-Protocol: {offer}", "Authorization: Bearer sk-app")
        async with joined(proxy.url, double, handshake(*fields)) as ends:
            ends.server.close()
        [request] = double.requests
    assert request.head.get("sec-websocket-protocol") == offer
    assert request.head.all("authorization") == [b"Bearer sk-app"]


REFUSALS = {
    "401": answers(
        "401 Unauthorized", "Content-Type: application/json", body=b'{"error": {"code": "invalid_api_key"}}'
    ),
    "404": answers("404 Not Found", "Content-Type: application/json", body=b'{"error": {}}'),
    "426": answers("426 Upgrade Required", "Content-Type: application/json", "Upgrade: websocket", body=b"{}"),
    "500": answers("500 Internal Server Error", "Content-Type: application/json", body=b'{"error": {}}'),
    "200": answers("200 OK", "Content-Type: text/plain", body=b"no sockets here"),
    "302": answers("302 Found", "Location: /elsewhere", body=b""),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_any_other_answer_is_an_answer(name):
    answer = await compare(Case(name, handshake(), REFUSALS[name]))
    assert answer.status == int(name)


async def test_a_page_that_refuses_is_told_in_a_sentence():
    script = answers("502 Bad Gateway", "Content-Type: text/html", body=b"<html>nginx</html>")
    async with upstream(script) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, handshake())
        assert answer.status == 502
        assert "error" in orjson.loads(answer.body)
        assert await at_rest(proxy) == {"upstream_error": 1}


async def test_a_connection_serves_on_after_a_handshake_that_was_refused():
    async with upstream(REFUSALS["404"]) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(handshake())
        assert (await client.answer()).status == 404
        double.script = answers("200 OK", body=b"{}")
        await client.send(asks("GET /v1/models"))
        assert (await client.answer()).body == b"{}"
        double.script = accepts
        await client.send(handshake())
        assert (await client.head()).status == 101
        double.wires[-1].close()


async def test_a_handshake_may_come_byte_by_byte():
    async def script(connection: Wire) -> None:
        await connection.send(*crumbs(accepted(), text("hello")))
        connection.close()

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(*crumbs(handshake()))
        assert (await client.head()).status == 101
        assert await rest(client.reader) == (text("hello"), "FIN")


async def test_requests_pipelined_before_a_handshake_are_answered_first():
    async def script(connection: Wire) -> None:
        is_socket = connection.request.head.get("upgrade") == "websocket"
        await (accepts if is_socket else answers("200 OK", body=b"{}"))(connection)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(asks("GET /v1/models") * 3 + handshake() + text("at once"))
        assert [(await client.answer()).body for _ in range(3)] == [b"{}"] * 3
        assert (await client.head()).status == 101
        server = double.wires[-1]
        assert await server.reader.readexactly(9) == text("at once")
        server.close()
    assert [request.head.get("upgrade") for request in double.requests] == [None] * 3 + ["websocket"]


NO_SOCKETS = {
    "POST": handshake().replace(b"GET", b"POST", 1),
    "a body": handshake("Content-Length: 2") + b"{}",
    "another protocol": handshake().replace(b"websocket\r\n", b"h2c\r\n", 1),
    "no Connection": handshake().replace(b"Connection: Upgrade\r\n", b""),
    "HTTP/1.0": handshake().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
}


@pytest.mark.parametrize("name", NO_SOCKETS)
async def test_what_asks_for_no_websocket_gets_none(name):
    """`Upgrade` is for this hop, and a 101 that nobody asked for is no answer."""
    async with upstream(answers("200 OK", body=b"{}")) as double, weir(double.url) as proxy:
        assert (await wire.fetch(proxy.url, NO_SOCKETS[name])).body == b"{}"
        assert double.requests[0].head.all("upgrade") == double.requests[0].head.all("connection") == []
        double.script = accepts
        answer = await wire.fetch(proxy.url, NO_SOCKETS[name])
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (502, "upstream_bad_answer")
        assert await outcomes(proxy) == {"ok": 1, "upstream_error": 1}
