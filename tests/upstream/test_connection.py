"""What an upstream may send, cut anywhere, and what becomes of what it must not send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from proxy.errors import BadAnswer, Dropped, Interrupted, Outcome, ProxyError
from tests.upstream.double import OK, ask, each, opened, request, serving, start, taken

if TYPE_CHECKING:
    from proxy.headers import Fields
    from tests.upstream.double import Peer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


@dataclass(frozen=True)
class Sent:
    raw: bytes
    status: int = 200
    reason: bytes = b"OK"
    body: bytes = b""
    fields: Fields = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    interim: list[tuple[int, bytes, Fields]] = field(default_factory=list)
    closes: bool = False
    method: str = "GET"


TRAILED = Sent(
    CHUNKED.replace(b"\r\n\r\n", b"\r\nTrailer: X-Sum\r\n\r\n")
    + b'5;name=value;q="a;b"\r\nhello\r\n00006\r\n world\r\n0;last\r\nX-Sum: 11\r\nX-sum:  12 \r\n\r\n',
    body=b"hello world",
    fields=[(b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X-Sum")],
    trailers=[(b"X-Sum", b"11"), (b"X-sum", b"12")],
)
WHOLE = {
    "length": Sent(OK, body=b"ok", fields=[(b"Content-Length", b"2")]),
    "nothing": Sent(b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", fields=[(b"content-length", b"0")]),
    "no reason phrase": Sent(
        b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", 404, b"", b"no", [(b"Content-Length", b"2")]
    ),
    "empty reason phrase": Sent(
        b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", 200, b"", b"ok", [(b"Content-Length", b"2")]
    ),
    "odd fields": Sent(
        b"HTTP/1.1 599 Very \xfcnusual\r\nx-A_b.c: 1\r\nX-a_B.C:\t2 \r\nX-Utf8: \xc3\xbc\xff\r\nContent-Length: 1\r\n\r\n!",
        599,
        b"Very \xfcnusual",
        b"!",
        [(b"x-A_b.c", b"1"), (b"X-a_B.C", b"2"), (b"X-Utf8", b"\xc3\xbc\xff"), (b"Content-Length", b"1")],
    ),
    "chunks, extensions, trailers": TRAILED,
    "103 before it": Sent(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>\r\n\r\n" + OK,
        body=b"ok",
        fields=[(b"Content-Length", b"2")],
        interim=[(103, b"Early Hints", [(b"Link", b"</a>; rel=preload"), (b"Link", b"</b>")])],
    ),
    "100 and 102 before chunks": Sent(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102\r\n\r\n" + CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        body=b"ok",
        fields=[(b"Transfer-Encoding", b"chunked")],
        interim=[(100, b"Continue", []), (102, b"", [])],
    ),
    "HEAD": Sent(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", fields=[(b"Content-Length", b"5000")], method="HEAD"
    ),
    "HEAD, chunked": Sent(CHUNKED, fields=[(b"Transfer-Encoding", b"chunked")], method="HEAD"),
    "HEAD, no length": Sent(b"HTTP/1.1 200 OK\r\n\r\n", method="HEAD"),
    "204": Sent(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, b"No Content", fields=[(b"X", b"y")]),
    "304 with a length": Sent(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        304,
        b"Not Modified",
        fields=[(b"Content-Length", b"7")],
    ),
    "to the connection's end": Sent(
        CLOSING + b"half\r\n\r\nand half",
        body=b"half\r\n\r\nand half",
        fields=[(b"Content-Type", b"text/plain")],
        closes=True,
    ),
    "to the end, empty": Sent(CLOSING, fields=[(b"Content-Type", b"text/plain")], closes=True),
    "to the end, another coding": Sent(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nplain",
        body=b"plain",
        fields=[(b"Transfer-Encoding", b"identity")],
        closes=True,
    ),
    "HTTP/1.0": Sent(b"HTTP/1.0 200 OK\r\n\r\nold", body=b"old", closes=True),
}


@pytest.mark.parametrize("sent", WHOLE.values(), ids=WHOLE)
async def test_an_answer_arrives_as_it_was_sent_wherever_it_is_cut(sent: Sent) -> None:
    places = iter(range(1, len(sent.raw) + 1))

    async def script(peer: Peer) -> None:
        for place in places:
            await peer.request()
            await peer.send(sent.raw[:place])
            await asyncio.sleep(0.001)
            await peer.send(sent.raw[place:])
            if sent.closes:
                return

    async with serving(script) as server, opened(server.url) as upstream:
        for _ in sent.raw:
            interim: list[tuple[int, bytes, Fields]] = []
            answer = await ask(upstream, request(sent.method), lambda *seen, to=interim: to.append(seen))
            incoming = answer.incoming
            assert (incoming.status, incoming.reason, incoming.fields) == (sent.status, sent.reason, sent.fields)
            assert (answer.body, answer.trailers, answer.error, answer.ends) == (sent.body, sent.trailers, None, 1)
            assert interim == sent.interim
        assert server.connections == (len(sent.raw) if sent.closes else 1)


async def test_every_byte_may_come_alone() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for place in range(len(TRAILED.raw)):
            await peer.send(TRAILED.raw[place : place + 1])
            await asyncio.sleep(0.001)

    async with serving(script) as server, opened(server.url) as upstream:
        answer = await ask(upstream)
        assert (answer.body, answer.trailers, answer.is_whole) == (TRAILED.body, TRAILED.trailers, True)


async def test_the_chunks_of_one_read_are_handed_on_as_one() -> None:
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in b"many small chunks")
    async with serving(each(CHUNKED, pieces + b"0\r\n\r\n")) as server, opened(server.url) as upstream:
        answer = await ask(upstream)
        assert answer.chunks == [b"many small chunks"]


@dataclass(frozen=True)
class Bad:
    raw: bytes
    error: type[ProxyError]
    resets: bool = False


BEFORE = {
    "closed": Bad(b"", Dropped),
    "reset": Bad(b"", Dropped, resets=True),
    "half a head": Bad(b"HTTP/1.1 200 OK\r\nContent-Le", Dropped),
    "an interim answer only": Bad(b"HTTP/1.1 100 Continue\r\n\r\n", Dropped),
    "not HTTP": Bad(b"SSH-2.0-OpenSSH_9.6\r\n", BadAnswer),
    "HTML without a head": Bad(b"<html>busy</html>", BadAnswer),
    "HTTP/2": Bad(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04", BadAnswer),
    "line feeds only": Bad(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", BadAnswer),
    "two lengths": Bad(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", BadAnswer),
    "length and chunks": Bad(CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", BadAnswer),
    "a length that is none": Bad(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BadAnswer),
    "300 KB of header": Bad(b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"a" * 1000) * 300 + b"\r\n", BadAnswer),
    "one field of 300 KB": Bad(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", BadAnswer),
    "a head without end": Bad(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, BadAnswer),
    "interim answers without end": Bad(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 20_000, BadAnswer),
}
WITHIN = {
    "short of its length, closed": Bad(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Interrupted),
    "short of its length, reset": Bad(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Interrupted, resets=True),
    "no last chunk, closed": Bad(CHUNKED + b"4\r\nhalf\r\n", Interrupted),
    "no last chunk, reset": Bad(CHUNKED + b"4\r\nhalf\r\n", Interrupted, resets=True),
    "within a chunk": Bad(CHUNKED + b"9\r\nhalf", Interrupted),
    "within the trailers": Bad(CHUNKED + b"4\r\nhalf\r\n0\r\nX: y\r\n", Interrupted),
    "no length, reset": Bad(CLOSING + b"half", Interrupted, resets=True),
    "a chunk size that is none": Bad(CHUNKED + b"4\r\nhalf\r\nxyz\r\n", BadAnswer),
    "a chunk longer than it says": Bad(CHUNKED + b"4\r\nhalfway\r\n", BadAnswer),
}


def ends_with(bad: Bad) -> object:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(bad.raw)
        if bad.resets:
            await asyncio.sleep(0.02)
            peer.leave(reset=True)

    return script


@pytest.mark.parametrize("bad", BEFORE.values(), ids=BEFORE)
async def test_without_a_head_there_is_an_error_that_names_the_upstream(bad: Bad) -> None:
    async with serving(ends_with(bad)) as server, opened(server.url) as upstream:
        with pytest.raises(ProxyError) as raised:
            await ask(upstream)
        assert type(raised.value) is bad.error
        assert (raised.value.status, raised.value.outcome) == (502, Outcome.UPSTREAM_ERROR)
        assert raised.value.message.startswith("upstream 'up'")
        assert "127.0.0.1" not in raised.value.message
        assert upstream.pool.idle == 0


@pytest.mark.parametrize("bad", WITHIN.values(), ids=WITHIN)
async def test_what_breaks_within_the_body_is_no_end(bad: Bad) -> None:
    async with serving(ends_with(bad)) as server, opened(server.url) as upstream:
        answer = await ask(upstream)
        assert answer.body == b"half"
        assert (type(answer.error), answer.ends) == (bad.error, 1)
        assert upstream.pool.idle == 0


async def test_an_upstream_that_switches_protocols_is_refused_and_not_relayed() -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x05hello"
    interim: list[object] = []
    async with serving(each(switching)) as server, opened(server.url) as upstream:
        with pytest.raises(BadAnswer):
            await start(upstream, on_interim=lambda *seen: interim.append(seen))
    assert interim == []


async def test_6_kb_of_header_pass() -> None:
    fields = [(b"X-Policy-%d" % number, b"v" * 1000) for number in range(6)]
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in fields) + OK.partition(b"\r\n")[2]
    async with serving(each(head)) as server, opened(server.url) as upstream:
        answer = await ask(upstream)
        assert (answer.incoming.fields[:6], answer.body) == (fields, b"ok")


@pytest.mark.parametrize("before", [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b""], ids=["103", "half a head"])
async def test_a_body_that_comes_in_big_reads_is_no_header(before: bytes) -> None:
    body = bytes(range(256)) * 8192
    head = b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 1000) * 10 + b"Content-Length: %d\r\n\r\n" % len(body)
    raw = before + head + body
    first = len(before) or 9000

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(raw[:first])
            await asyncio.sleep(0.02)
            await peer.send(raw[first:])

    async with serving(script) as server, opened(server.url) as upstream:
        for _ in range(10):  # the kernel's window grows, and with it what one read brings
            answer = await ask(upstream)
            assert answer.error is None
            assert answer.body == body


EXCESS = {
    "a body too long": (OK + b" and more", "GET", b"ok"),
    "a body too long, closing": (OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + b" and more", "GET", b"ok"),
    "an answer to no request": (OK + OK.replace(b"ok", b"no"), "GET", b"ok"),
    "fields that are no trailers": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK, "GET", b"ok"),
    "a body for 204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "GET", b""),
}


@pytest.mark.parametrize("cut", [False, True], ids=["at once", "head first"])
@pytest.mark.parametrize(("raw", "method", "body"), EXCESS.values(), ids=EXCESS)
async def test_what_follows_an_answer_is_dropped_with_its_connection(
    raw: bytes, method: str, body: bytes, cut: bool
) -> None:
    head = raw.index(b"\r\n\r\n") + 4 if cut else len(raw)

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(raw[:head])
            await asyncio.sleep(0.02)
            await peer.send(raw[head:])

    async with serving(script) as server, opened(server.url) as upstream:
        for _ in range(3):
            async with asyncio.timeout(5):
                answer = await ask(upstream, request(method))
            assert (answer.body, answer.trailers, answer.is_whole) == (body, [], True)
            await asyncio.sleep(0.04)
        assert server.connections == 3


@pytest.mark.parametrize("pause", [0, 0.02], ids=["at once", "head first"])
async def test_a_body_that_head_must_not_have_goes_nowhere(pause: float) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.send(OK[:-2])
            await asyncio.sleep(pause)
            await peer.send(OK[-2:])

    async with serving(script) as server, opened(server.url) as upstream:
        for _ in range(3):
            answer = await ask(upstream, request("HEAD"))
            assert (answer.body, answer.is_whole) == (b"", True)
            await asyncio.sleep(0.25)


async def test_what_an_upstream_says_unasked_ends_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await asyncio.sleep(0.02)
        await peer.send(OK.replace(b"ok", b"no"))
        await peer.request()

    async with serving(script) as server, opened(server.url) as upstream:
        assert (await ask(upstream)).body == b"ok"
        await asyncio.sleep(0.05)
        assert (await ask(upstream)).body == b"ok"
        assert server.connections == 2


async def test_an_end_comes_once_also_for_a_body_that_was_held() -> None:
    async with serving(each(TRAILED.raw)) as server, opened(server.url) as upstream:
        incoming = await start(upstream)
        await asyncio.sleep(0.02)
        sink = taken(incoming)
        assert (sink.chunks, sink.trailers, sink.ends) == ([TRAILED.body], TRAILED.trailers, 1)


PERSISTENT = {
    "HTTP/1.1": (OK, 1),
    "HTTP/1.1, keep-alive": (OK.replace(b"\r\n", b"\r\nConnection: Keep-Alive\r\n", 1), 1),
    "HTTP/1.1, close": (OK.replace(b"\r\n", b"\r\nConnection: Close\r\n", 1), 3),
    "HTTP/1.1, close among others": (OK.replace(b"\r\n", b"\r\nconnection: x-trace, close\r\n", 1), 3),
    "HTTP/1.0": (OK.replace(b"1.1", b"1.0"), 3),
    "HTTP/1.0, keep-alive": (OK.replace(b"1.1 200 OK", b"1.0 200 OK\r\nConnection: keep-alive"), 1),
    "chunks": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", 1),
}


@pytest.mark.parametrize(("raw", "connections"), PERSISTENT.values(), ids=PERSISTENT)
async def test_a_connection_is_used_again_where_the_upstream_keeps_it(raw: bytes, connections: int) -> None:
    async with serving(each(raw)) as server, opened(server.url) as upstream:
        for _ in range(3):
            assert (await ask(upstream)).body == b"ok"
        assert server.connections == connections
