"""One request as an upstream gets it: where it goes, what is written once and what twice, and how its body flows."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import TYPE_CHECKING

import orjson
import pytest

from proxy import config, testing
from proxy.attempt import Attempt, Target
from proxy.errors import ClientFault, ConnectFailed, Dropped, PluginFailed
from proxy.upstream.openai import OpenAI
from tests.upstream.double import OK, Pieces, ask, each, opened, refusing, request, serving, silent, until
from tests.wire import Body, connected

if TYPE_CHECKING:
    from tests.upstream.double import Peer

MIB = 2**20


@pytest.mark.parametrize(
    ("base_url", "target", "located"),
    [
        ("https://api.openai.com/v1", "/v1/chat/completions", "/v1/chat/completions"),
        ("https://api.openai.com/v1/", "/v1/models/org%2Fname:tag", "/v1/models/org%2Fname:tag"),
        ("https://api.openai.com/v1", "/v1/models?a=1&b=%20%2B&&c", "/v1/models?a=1&b=%20%2B&&c"),
        ("https://api.openai.com/v1", "/v1/models/", "/v1/models/"),
        ("https://api.openai.com/v1", "/v1", "/v1"),
        ("https://api.openai.com/v1", "/v1?x", "/v1?x"),
        ("https://api.openai.com/v1", "/v10/models", "/v10/models"),
        ("http://host/v1", "/health", "/health"),
        ("http://host/v1", "/", "/"),
        ("http://host/openai/v1", "/v1/models", "/openai/v1/models"),
        ("http://host/openai/v1", "/health", "/openai/health"),
        ("http://host/api/v3", "/v1/models", "/api/v3/models"),
        ("http://host/api/v3", "/health", "/api/v3/health"),
        ("http://host", "/v1/models", "/models"),
        ("http://host", "/v1", "/"),
        ("http://host/a%2Fb", "/v1/models", "/a%2Fb/models"),
    ],
)
def test_locate(base_url: str, target: str, located: str) -> None:
    assert OpenAI("up", config.Upstream(base_url=base_url)).locate(target) == located


# -- what is written


class Taking:
    """Reads each request whole, then answers. `bodies` are what came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while head := await peer.request():
            self.bodies.append(await Body(peer.reader, head).rest())
            await peer.send(OK)


async def test_head_and_body_as_they_came() -> None:
    taking = Taking()
    headers = {"X-a_B.C": "1", "content-TYPE": "text/plain", "X-Raw": "gr\udcfc\u00dfe", "Cookie": "no"}
    async with serving(taking) as server, opened(server.url, api_key="sk-up") as upstream:
        await ask(upstream, request("POST", "/v1/a%2Fb?q=%20", b"body", headers))
    (head,) = server.heads
    assert head.start == b"POST /v1/a%2Fb?q=%20 HTTP/1.1"
    assert head.fields == [
        (b"Host", f"127.0.0.1:{server.port}".encode()),
        (b"X-a_B.C", b"1"),
        (b"content-TYPE", b"text/plain"),
        (b"X-Raw", b"gr\xfc\xc3\x9fe"),
        (b"Content-Length", b"4"),
        (b"Authorization", b"Bearer sk-up"),
    ]
    assert taking.bodies == [b"body"]


async def test_a_body_that_comes_with_a_length_goes_on_with_it() -> None:
    taking = Taking()
    pieces = [bytes([number]) * 40_000 for number in range(50)]
    async with serving(taking) as server, opened(server.url) as upstream:
        asked = request("POST", body=Pieces(*pieces), headers={"Content-Length": str(50 * 40_000)})
        assert (await ask(upstream, asked)).body == b"ok"
        assert (await ask(upstream)).body == b"ok"
        assert server.connections == 1
    assert server.heads[0].get("transfer-encoding") is None
    assert taking.bodies == [b"".join(pieces), b""]


async def test_a_body_that_comes_chunked_goes_on_chunked() -> None:
    taking = Taking()
    pieces = [b"a", b"b" * 70_000, b"c" * 17]
    async with serving(taking) as server, opened(server.url) as upstream:
        for _ in range(2):
            asked = request("POST", body=Pieces(*pieces), headers={"Transfer-Encoding": "chunked"})
            assert (await ask(upstream, asked)).body == b"ok"
        assert server.connections == 1
    assert server.heads[0].all("transfer-encoding") == [b"chunked"]
    assert server.heads[0].get("content-length") is None
    assert taking.bodies == [b"".join(pieces)] * 2


@pytest.mark.parametrize(
    "field", [("X-A", "1\r\nX-B: 2"), ("X-A", "1\n2"), ("X-A", "1\r2"), ("X\r\nB", "1"), ("X\nB", "1")]
)
async def test_a_line_break_in_a_header_is_refused(field: tuple[str, str]) -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        asked = request()
        attempt = Attempt(1, Target("up"), upstream.request_fields(asked), asked.at_hand)
        attempt.headers.add(*field)
        with pytest.raises(PluginFailed, match="line break"):
            await upstream.send(asked, attempt, lambda *_: None)
        assert (server.connections, upstream.pool.open) == (0, 0)


# -- once, or twice


class Dropping:
    """Takes the second request of the first connection, and drops it without a word."""

    async def __call__(self, peer: Peer) -> None:
        is_first = peer._server.connections == 1
        for _ in range(2 if is_first else 100):
            head = await peer.request()
            await Body(peer.reader, head).rest()
            if is_first and len(peer._server.heads) == 2:
                return
            await peer.send(OK)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_only_asks_is_sent_again_once_where_a_kept_connection_drops_it(method: str) -> None:
    async with serving(Dropping()) as server, opened(server.url) as upstream:
        await ask(upstream)
        assert (await ask(upstream, request(method))).is_whole
        assert (server.connections, len(server.heads)) == (2, 3)


@pytest.mark.parametrize(("method", "body"), [("POST", b"{}"), ("POST", b""), ("DELETE", b""), ("GET", b"{}")])
async def test_what_may_do_something_is_sent_once(method: str, body: bytes) -> None:
    """Case 22: the upstream took it, so it may have been done."""
    async with serving(Dropping()) as server, opened(server.url) as upstream:
        await ask(upstream)
        with pytest.raises(Dropped) as raised:
            await ask(upstream, request(method, body=body))
        assert (raised.value.error_code, len(server.heads)) == ("upstream_closed", 2)
        assert (await ask(upstream)).body == b"ok"


async def test_a_get_on_a_new_connection_is_sent_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with serving(script) as server, opened(server.url) as upstream:
        with pytest.raises(Dropped):
            await ask(upstream)
        assert len(server.heads) == 1


async def test_a_get_that_was_answered_in_part_is_sent_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(OK[:-1])

    async with serving(script) as server, opened(server.url) as upstream:
        await ask(upstream)
        assert (await ask(upstream)).error is not None
        assert len(server.heads) == 2


async def test_an_app_sees_a_502_for_a_post_that_was_dropped() -> None:
    async def script(received: testing.Received, wire: testing.Wire) -> None:
        wire.close()

    async with testing.upstream(script) as upstream, testing.weir(upstream) as weir, connected(weir.url) as client:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = await client.answer()
    assert (answer.status, len(upstream.requests)) == (502, 1)
    error = orjson.loads(answer.body)["error"]
    assert (error["code"], error["message"]) == (
        "upstream_closed",
        "upstream 'up' closed the connection before it answered",
    )


# -- uploads


async def test_an_upstream_that_does_not_read_stops_the_upload_until_it_does() -> None:
    total = 32
    reads = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = await peer.request()
        await reads.wait()
        bodies.append(await Body(peer.reader, head).rest())
        await peer.send(OK)

    bodies: list[bytes] = []
    pieces = [hashlib.sha256(b"%d" % number).digest() * (MIB // 32) for number in range(total)]
    upload = Pieces(*pieces)
    async with serving(script) as server, opened(server.url) as upstream:
        asking = asyncio.ensure_future(
            ask(upstream, request("POST", body=upload, headers={"Content-Length": str(total * MIB)}))
        )
        await until(lambda: server.heads)
        await asyncio.sleep(0.3)
        assert 0 < upload.taken < total / 2
        reads.set()
        assert (await asking).body == b"ok"
    assert bodies == [b"".join(pieces)]


EARLY = {
    "413": b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large",
    "401": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nno key",
    "400, chunked": b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n8\r\ntoo long\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("then", ["waits", "closes", "resets"])
@pytest.mark.parametrize("raw", EARLY.values(), ids=EARLY)
async def test_an_early_answer_arrives_while_20_mb_are_being_sent(raw: bytes, then: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reader.readexactly(100_000)
        await peer.send(raw)
        if then == "resets":
            await asyncio.sleep(0.02)
            peer.leave(reset=True)
        elif then == "waits":
            await asyncio.sleep(20)

    upload = Pieces(*[bytes(65536)] * 320)
    async with serving(script) as server, opened(server.url) as upstream:
        for _ in range(5):
            answer = await ask(upstream, request("POST", body=upload, headers={"Content-Length": str(320 * 65536)}))
            assert (answer.incoming.status, answer.is_whole) == (int(raw.split()[1]), True)
            assert answer.body in {b"too large", b"no key", b"too long"}
            upload = Pieces(*[bytes(65536)] * 320)
        assert upstream.pool.idle == 0


async def test_an_early_answer_arrives_also_where_the_next_write_fails_before_it_was_read() -> None:
    class Answered(Pieces):
        async def readany(self) -> bytes:
            piece = await super().readany()
            if self.taken == 3:
                accepted = listening.accept()[0]
                accepted.sendall(EARLY["413"])
                accepted.close()  # with an upload unread: a reset
            return piece

    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with opened(f"http://127.0.0.1:{listening.getsockname()[1]}/v1") as upstream:
            answer = await ask(upstream, request("POST", body=Answered(*[bytes(65536)] * 50)))
            assert (answer.incoming.status, answer.body, answer.is_whole) == (413, b"too large", True)


async def test_an_early_answer_ends_the_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(EARLY["401"])
        await peer.reader.read(-1)

    upload = Pieces(*[b"x"] * 10_000, pause=0.002)
    async with serving(script) as server, opened(server.url) as upstream:
        answer = await ask(upstream, request("POST", body=upload))
        assert (answer.incoming.status, answer.body) == (401, b"no key")
        await until(lambda: not server.here)
        taken = upload.taken
        await asyncio.sleep(0.05)
        assert upload.taken == taken < 10_000


async def test_an_answer_may_run_while_its_request_still_comes() -> None:
    """Both directions at once: each piece is answered before the next is sent."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            await peer.reader.readuntil(b"1\r\nx\r\n")
            await peer.send(b"2\r\ngo\r\n")
        await peer.reader.readuntil(b"0\r\n\r\n")
        await peer.send(b"0\r\n\r\n")
        await peer.request()

    async with serving(script) as server, opened(server.url) as upstream:
        answer = await ask(upstream, request("POST", body=Pieces(*[b"x"] * 5, pause=0.01)))
        assert (answer.body, answer.is_whole) == (b"go" * 5, True)
        assert upstream.pool.idle == 1


async def test_an_upload_that_breaks_off_here_is_no_whole_request_there() -> None:
    class Broken(Pieces):
        async def readany(self) -> bytes:
            if self.taken == 2:
                raise ClientFault("the request body broke off", code="bad_body")
            return await super().readany()

    for headers in ({"Content-Length": "99"}, {"Transfer-Encoding": "chunked"}):
        async with serving(silent) as server, opened(server.url) as upstream:
            with pytest.raises(ClientFault):
                await ask(upstream, request("POST", body=Broken(b"a", b"b", b"c"), headers=headers))
            await until(lambda server=server: server.connections and not server.here)
            assert upstream.pool.open == 0


async def test_an_upstream_that_drops_an_upload() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.leave(reset=True)

    async with serving(script) as server, opened(server.url) as upstream:
        with pytest.raises(Dropped):
            await ask(upstream, request("POST", body=Pieces(*[bytes(MIB)] * 20)))
        assert len(server.heads) == 1


async def test_no_error_names_the_url_or_a_credential() -> None:
    with refusing() as port:
        async with opened(f"http://127.0.0.1:{port}/secret-path/v1", api_key="sk-secret") as upstream:
            with pytest.raises(ConnectFailed) as raised:
                await ask(upstream, request("POST", "/v1/secret-target", b"secret", {"Authorization": "secret"}))
    assert raised.value.message == "upstream 'up' cannot be reached: connection refused"
