"""Bodies on their way up: asked for, refused in the middle, larger than memory should hold, too large."""

import asyncio
from operator import attrgetter

import orjson
import pytest

from proxy import request, testing
from tests import wire
from tests.contract.double import CHAT, OK, Case, Script, Wire, answers, asks, chunked, compare, says, upstream, weir

EXPECT = "Expect: 100-continue"
JSON = "Content-Type: application/json"
BODY = b'{"model": "m", "messages": []}' * 20
LARGE = BODY * 1000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
MEGABYTE = b"\xf0\x9f\x98\x80 \x00\xff" * 149_796
SLACK = 24 * 2**20
"""What sockets and proxy may hold between the two ends: Linux takes up to 10 MB for a pair of sockets; 8 MB were seen."""


async def continues(connection: Wire) -> None:
    await connection.send(CONTINUE)
    await OK(connection)


def refuses(status: str, body: bytes) -> Script:
    async def script(connection: Wire) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        await connection.send(head.encode() + body)

    return script


def expecting(size: int, *more: str) -> bytes:
    return asks(f"POST {CHAT}", JSON, EXPECT, *more, f"Content-Length: {size}")


CASES = [
    *(Case(f"{len(body)} bytes, asked for", expecting(len(body)), continues, then=body) for body in (BODY, LARGE)),
    *(
        Case(f"{len(body)} bytes, nobody asks", expecting(len(body)), then=body, is_impatient=True)
        for body in (BODY, LARGE)
    ),
    Case("Expect twice", expecting(len(BODY), EXPECT), continues, then=BODY),
    Case("chunked", asks(f"POST {CHAT}", EXPECT, "Transfer-Encoding: chunked"), continues, then=chunked(BODY, b"x")),
    Case(
        "100 and 103", expecting(5), says(CONTINUE + b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", WHOLE), then=b"12345"
    ),
]

REFUSALS = {
    "417": refuses("417 Expectation Failed", b'{"error": {"message": "no"}}'),
    "401": refuses("401 Unauthorized", b'{"error": {"message": "Incorrect API key provided"}}'),
    "413": refuses("413 Payload Too Large", b'{"error": {"message": "larger than 1 MB"}}'),
    "200": refuses("200 OK", b'{"object": "cached"}'),
}


@pytest.mark.parametrize("case", CASES[:6], ids=attrgetter("name"))
async def test_a_client_that_expects_a_100_gets_the_upstreams(case):
    answer = await compare(case)
    assert [head.status for head in answer.interim] == ([] if case.is_impatient else [100])


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_client_that_expects_a_100_may_get_the_answer_instead(name):
    """None of the body goes on the wire."""
    answer = await compare(Case(name, expecting(len(LARGE)), REFUSALS[name]))
    assert (answer.status, answer.interim) == (int(name), [])


@pytest.mark.parametrize("size", [100_000, 8_000_000])
@pytest.mark.parametrize("name", REFUSALS)
async def test_an_answer_may_come_while_the_body_is_still_sent(name, size):
    """Early 413 and the like: the answer comes at once and unchanged, and the connection is not used for anything else."""
    async with upstream(REFUSALS[name]) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(asks(f"POST {CHAT}", JSON, f"Content-Length: {size}"), b"x" * (size // 4))
        answer = await client.answer()
        assert (answer.status, answer.is_whole) == (int(name), True)
        assert orjson.loads(answer.body)
        assert len(double.wires) == 1
        answers_again = await wire.fetch(proxy.url, asks("GET /v1/models"))
        assert (answers_again.status, len(double.wires)) == (int(name), 2)


async def test_a_client_that_writes_all_before_it_reads_gets_the_early_answer_too():
    async with upstream(REFUSALS["413"]) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(asks(f"POST {CHAT}", JSON, "Content-Length: 3000000"), *[b"x" * 100_000] * 30)
        assert (await client.answer()).status == 413


async def test_64_mb_go_up_without_being_held():
    """The upstream waits before it reads on; the app is held back, and every byte arrives."""
    taken = sent = 0
    most = 0
    may_read = asyncio.Event()

    async def script(connection: Wire) -> None:
        nonlocal taken
        await may_read.wait()
        while piece := await connection.piece():
            taken += len(piece)
            assert MEGABYTE.find(piece[:8]) >= 0
        await connection.send(WHOLE)

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url, hold=2**16) as client:
        await client.send(asks("POST /v1/files", f"Content-Length: {64 * len(MEGABYTE)}"))
        asyncio.get_running_loop().call_later(0.2, may_read.set)
        for _ in range(64):
            await client.send(MEGABYTE)
            sent += len(MEGABYTE)
            most = max(most, sent - taken)
        answer = await client.answer()
    assert (answer.status, taken) == (200, sent)
    assert most < SLACK


async def test_a_stalled_upstream_stalls_the_app():
    """Nothing is read for it meanwhile: what the app can get rid of is what sockets and Weir hold."""

    async def script(connection: Wire) -> None:
        await asyncio.Event().wait()

    async with upstream(script) as double, weir(double.url) as proxy, wire.connected(proxy.url, hold=2**16) as client:
        await client.send(asks("POST /v1/files", f"Content-Length: {60 * len(MEGABYTE)}"))
        sent = 0
        try:
            async with asyncio.timeout(1):
                for _ in range(60):
                    await client.send(MEGABYTE)
                    sent += len(MEGABYTE)
        except TimeoutError:
            pass
        assert sent < SLACK


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
async def test_weirs_own_413_has_openais_shape(is_declared):
    """Field case 97: it names the limit, and a body that says its length beforehand does not reach the upstream."""
    async with (
        upstream(OK) as double,
        weir(double.url, server="max_request_bytes: 1MiB") as proxy,
        wire.connected(proxy.url) as client,
    ):
        framing = "Content-Length: 1048577" if is_declared else "Transfer-Encoding: chunked"
        await client.send(asks(f"POST {CHAT}", JSON, framing))
        if not is_declared:
            await client.send(chunked(*[b"x" * 65536] * 17))
        answer = await client.answer()
        assert answer.status == 413
        error = orjson.loads(answer.body)["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "request_too_large", None)
        assert "1048576 bytes" in error["message"]
        assert answer.head.get("content-type") == "application/json"
        assert (answer.head.get("x-weir-request-id") or "").startswith("req_")
        assert not any(request.is_whole and request.body for request in double.requests)


async def test_a_body_of_exactly_the_limit_passes():
    async with upstream(OK) as double, weir(double.url, server="max_request_bytes: 1MiB") as proxy:
        answer = await wire.fetch(proxy.url, asks(f"POST {CHAT}", body=b"x" * 2**20))
    assert (answer.status, len(double.requests[0].body)) == (200, 2**20)


async def test_a_413_waits_for_no_100():
    async with upstream(OK) as double, weir(double.url, server="max_request_bytes: 1KiB") as proxy:
        answer = await wire.fetch(proxy.url, expecting(2000))
    assert (answer.status, answer.interim, double.requests) == (413, [], [])


async def test_a_body_that_weir_reads_itself_and_that_stops_coming_is_a_408(monkeypatch):
    """It is read before an upstream is chosen whose limits could hold."""
    monkeypatch.setattr(request, "STALL_SECONDS", 0.1)
    async with upstream(OK) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(asks(f"POST {CHAT}", JSON, f"Content-Length: {len(BODY)}"), BODY[:-1])
        answer = await client.answer()
    assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (408, "request_timeout")
    assert double.requests == []


async def test_nor_does_a_plugin_take_it_for_an_empty_one(monkeypatch):
    """It is read for its model, before there is a route, and then again by the plugin."""
    monkeypatch.setattr(request, "STALL_SECONDS", 0.1)
    text = (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\nupstreams: {up: {base_url: "http://127.0.0.1:1"}}\n'
        "plugins: [guard]\nroutes: [{name: default, match: {model: m}, targets: [up]}]\n"
    )
    async with testing.configured(text) as proxy, wire.connected(proxy.url) as client:
        await client.send(asks(f"POST {CHAT}", JSON, f"Content-Length: {len(BODY)}"), BODY[:-1])
        assert (await client.answer()).status == 408


async def test_an_upload_that_breaks_off_is_not_taken_for_a_whole_one():
    """A short body goes up short: the upstream must see the cut."""
    async with upstream(OK) as double, weir(double.url) as proxy:
        async with wire.connected(proxy.url) as client:
            await client.send(asks("POST /v1/files", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n", b"5\r\nhel")
            await asyncio.sleep(0.05)
        async with asyncio.timeout(wire.SECONDS):
            while not double.wires or not double.wires[0].writer.is_closing():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
    [request] = double.requests
    assert (request.body, request.is_whole) == (b"hellohel", False)


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_body_after_an_answer_is_not_taken_for_the_next_request(is_whole):
    """What is left of a refused body is either read away or cut off, never read as HTTP."""
    async with upstream(REFUSALS["413"]) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        smuggled = asks("GET /v1/smuggled") * 5000
        await client.send(asks("POST /v1/files", f"Content-Length: {len(smuggled)}"), smuggled[:1000])
        assert (await client.answer()).status == 413
        try:
            await client.send(smuggled[1000:] if is_whole else smuggled[1000:2000])
            client.writer.write_eof()
            rest = await client.reader.read()
        except ConnectionError:
            rest = b""
        assert rest == b""
        assert [request.head.start.split()[1] for request in double.requests] == [b"/v1/files"]


async def test_answers_are_compared_to_the_end():
    """The table would see a difference: a body that Weir refuses is one."""
    with pytest.raises((AssertionError, ValueError)):
        await compare(Case("refused", asks("GET /v1/../x"), answers("200 OK", body=b"{}")))
