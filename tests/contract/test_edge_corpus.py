"""Field case 106: requests that two parsers could take for different ones, as bytes, each with another request behind it.

They are refused, once, and nothing of them reaches the upstream; or they have one meaning, and the upstream gets just
that. All hold for aiohttp's compiled parser as well as for the one in Python, which the last test runs.
"""

import asyncio
import contextlib
import os
import pathlib
import re
import subprocess
import sys

import orjson
import pytest

from tests import wire
from tests.contract.double import OK, asks, at_rest, chunked, upstream, weir

HOST = b"Host: api.example\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n" + HOST
POST = b"POST /v1/x HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EMPTY = b"\r\n0\r\n\r\n"
NEXT = asks("GET /v1/next")
LAST = b"GET /v1/next HTTP/1.1"
HERE = pathlib.Path(__file__)
HAS_EXTENSIONS = "AIOHTTP_NO_EXTENSIONS" not in os.environ


def length(value):
    return POST + b"Content-Length:" + value + b"\r\n\r\nhello"


def coding(value):
    return POST + b"Transfer-Encoding:" + value + b"\r\n" + EMPTY


def chunk(body):
    return POST + CHUNKED + b"\r\n" + body


def field(line):
    return GET + line + b"\r\n\r\n"


def line(start):
    return start + b"\r\n" + HOST + b"\r\n"


LENGTHS = {
    repr(value): length(value)
    for value in (
        *(
            b" +5",
            b" -5",
            b" 5 5",
            b" 0x5",
            b" 5,5",
            b" 5, 6",
            b"",
            b" ",
            b" 5e0",
            b" 5.0",
            b" 1_0",
            b" \x0b5",
            b" 5\x0c",
        ),
        *(b' "5"', b" 5;a", b" true", b" \xd9\xa5", b" 5\x00", b"\r\n 5", b" 5\r\n 6", b" five", b" 5\xa0"),
    )
}
FRAMINGS = {
    "a length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": POST + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a length, then chunks": POST + b"Content-Length: 5\r\n" + CHUNKED + EMPTY,
    "chunks, then a length": POST + CHUNKED + b"Content-Length: 5\r\n" + EMPTY,
    "chunks and no length": POST + CHUNKED + b"Content-Length: 0\r\n" + EMPTY,
    "identity and a length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "chunks twice": POST + CHUNKED + CHUNKED + EMPTY,
    "chunks, then identity": POST + CHUNKED + b"transfer-encoding: identity\r\n" + EMPTY,
    "identity, then chunks": POST + b"transfer-encoding: identity\r\n" + CHUNKED + EMPTY,
    "chunks of HTTP/1.0": b"POST /v1/x HTTP/1.0\r\n" + HOST + CHUNKED + EMPTY,
    "chunks behind a bare LF": POST + b"X: a\nTransfer-Encoding: chunked\r\n" + EMPTY,
    "chunks behind a lone CR": POST + b"X: a\rTransfer-Encoding: chunked\r\n" + EMPTY,
    "chunks, folded": POST + b" Transfer-Encoding: chunked\r\n" + EMPTY,
    "chunks with a space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + EMPTY,
    "chunks with a line end before the colon": POST + b"Transfer-Encoding\n: chunked\r\n" + EMPTY,
    "a length with a space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "a length with a NUL in its name": POST + b"Content-Length\0: 5\r\n\r\nhello",
}
CODINGS = {
    repr(value): coding(value)
    for value in (
        *(
            b" xchunked",
            b" chunkedx",
            b" chunked, chunked",
            b" gzip, chunked",
            b" chunked, gzip",
            b" gzip",
            b" identity",
        ),
        *(b" identity, chunked", b" ,chunked", b" chunked,", b" chunked\x0b", b" chunked\x0c", b" \x0bchunked", b""),
        *(
            b' "chunked"',
            b" chunked;a=b",
            b"\r\n chunked",
            b" chunked\r\n gzip",
            b" chunked\x00",
            b" chunked\r",
            b" chun\rked",
        ),
        *(b" chunked\xa0", b" chunked foo", b" cow", b" chunke\xc4\xb1d"),
    )
}
CHUNKS = {
    repr(body[:30]): chunk(body + b"0\r\n\r\n")
    for body in (
        *(b"-1\r\nhello\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5\nhello\n", b"5\nhello\r\n", b"5\rhello\r\n"),
        *(b"5;a\nb\r\nhello\r\n", b"5\r\nhello", b"5\r\nhelloXX", b"5\r\nhello\n", b"5\r\nhello\r", b"5\r\nhello!\r\n"),
        *(
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\t\r\nhello\r\n",
            b"\r\nhello\r\n",
            b";a\r\nhello\r\n",
            b"G\r\nhello\r\n",
        ),
        *(
            b"1_0\r\n0123456789abcdef\r\n",
            b"5.\r\nhello\r\n",
            b"5,5\r\nhello\r\n",
            b"five\r\nhello\r\n",
            b"\x005\r\nhello\r\n",
        ),
    )
}
TRAILERS = {
    repr(trailer[:30]): chunk(b"0\r\n" + trailer + b"\r\n")
    for trailer in (
        *(b"X: a\rb\r\n", b"X: a\0b\r\n", b"X\r\n", b"X: a\n", b"X: a\r\n b\r\n", b"X : a\r\n", b": a\r\n"),
        *(b"X: " + b"a" * 100_000 + b"\r\n", b"X: a\r\n" * 5000),
    )
}
FIELDS = {
    repr(value[:30]): field(value)
    for value in (
        *(
            b"X: a\rb",
            b"X: a\nY: b",
            b"X: a\n",
            b"X: a\r",
            b"X: a\0b",
            b"X: a\x01b",
            b"X: a\x7fb",
            b"X: a\x0bb",
            b"X: \x1b[0m",
        ),
        *(b"X : a", b"X\t: a", b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b": a", b"X", b"X Y: a", b"X\0: a", b"X\r: a"),
        *(
            b"\xc3\x9c: a",
            b"\xfc: a",
            b"X(Y): a",
            b"X/Y: a",
            b'"X": a',
            b"X@Y: a",
            b"X;Y: a",
            b"{X}: a",
            b"X,Y: a",
            b"X=Y: a",
        ),
        *(b"[X]: a", b"X\\Y: a", b"X?: a", b"<X>: a", b"Host: api.example", b"host: other", b"Host : other"),
        *(b"X: " + b"v" * 70_000, b"X" * 70_000 + b": a", b"\r\n".join(b"X-%d: a" % number for number in range(200))),
        b"\r\n".join(b"X-%d: %b" % (number, b"v" * 9000) for number in range(200)),
    )
}
LINES = {
    repr(start[:30]): line(start)
    for start in (
        *(b"GET /v1/models HTTP/1.2", b"GET /v1/models HTTP/2.0", b"GET /v1/models HTTP/9.9", b"GET /v1/models HTTP/1"),
        *(
            b"GET /v1/models HTTP/1.10",
            b"GET /v1/models HTTP/01.1",
            b"GET /v1/models http/1.1",
            b"GET /v1/models FTP/1.1",
        ),
        *(
            b"GET /v1/models HTTP/1.1 ",
            b"GET\t/v1/models\tHTTP/1.1",
            b" GET /v1/models HTTP/1.1",
            b"\0GET /v1/models HTTP/1.1",
        ),
        *(
            b"GET /v1/models HTTP/1.1\r",
            b"GET HTTP/1.1",
            b"GET  HTTP/1.1",
            b"GET",
            b"",
            b"GET /v1/models",
            b"GET /v1/\x01 HTTP/1.1",
        ),
        *(
            b"G@T /v1/models HTTP/1.1",
            b"G(T /v1/models HTTP/1.1",
            b"G\xc3\x89T /v1/models HTTP/1.1",
            b"A" * 70_000 + b" / HTTP/1.1",
        ),
        *(
            b"GET /v1/" + b"p" * 70_000 + b" HTTP/1.1",
            b"GET /v1/a b HTTP/1.1",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
        ),
        *(b"GET file:///etc/passwd HTTP/1.1", b"TRACE /v1/models HTTP/1.1", b"TRACK /v1/models HTTP/1.1"),
        *(
            b"GET ftp://a/v1 HTTP/1.1",
            b"GET http:///v1 HTTP/1.1",
            b"GET http://a:99999/v1 HTTP/1.1",
            b"GET http://[::1/v1 HTTP/1.1",
        ),
    )
}
OTHER_PROTOCOLS = {
    "no version": b"GET /v1/models\r\n\r\n",
    "no Host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "bare LFs only": b"GET /v1/models HTTP/1.1\nHost: a\n\n",
    "lone CRs only": b"GET /v1/models HTTP/1.1\rHost: a\r\r",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "every byte": bytes(range(256)),
    "text": b"hello\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"EHLO evil.example\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
}
REFUSED = {
    "lengths": LENGTHS,
    "framings": FRAMINGS,
    "codings": CODINGS,
    "chunks": CHUNKS,
    "trailers": TRAILERS,
    "fields": FIELDS,
    "lines": LINES,
    "other protocols": OTHER_PROTOCOLS,
}

# What may be taken as it is meant, or refused: what the upstream sees of it, its first line and its body
HELLO = (b"POST /v1/x HTTP/1.1", b"hello")
NOTHING = (b"POST /v1/x HTTP/1.1", b"")
MODELS = (b"GET /v1/models HTTP/1.1", b"")
ONE_MEANING = {
    "a length with tabs": (length(b"\t5\t"), HELLO),
    "a length with zeros": (length(b" 0000000005"), HELLO),
    "chunked in capitals": (coding(b" CHUNKED"), NOTHING),
    "chunked in both": (coding(b" ChUnKeD"), NOTHING),
    "chunked and a space": (coding(b" chunked "), NOTHING),
    "chunked and a tab": (coding(b" chunked\t"), NOTHING),
    "a tab and chunked": (coding(b"\tchunked"), NOTHING),
    "a name that is none of framing": (POST + b"Transfer_Encoding: chunked\r\nContent_Length: 5\r\n\r\n", NOTHING),
    "an expectation that nobody knows": (POST + b"Expect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    "a size with zeros": (chunk(b"0" * 30 + b"5\r\nhello\r\n0\r\n\r\n"), HELLO),
    "an extension": (chunk(b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'), HELLO),
    "an extension with a lone CR": (chunk(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), HELLO),
    "an extension with a NUL": (chunk(b"5;\0\r\nhello\r\n0\r\n\r\n"), HELLO),
    "100 KB of extension": (chunk(b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n"), HELLO),
    "a length as a trailer": (chunk(b"0\r\nContent-Length: 5\r\n\r\n"), NOTHING),
    "chunks as a trailer": (chunk(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), NOTHING),
    "a request within a body": (POST + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT, (HELLO[0], NEXT)),
    "a request within a chunk": (chunk(chunked(NEXT)), (HELLO[0], NEXT)),
    "two spaces": (line(b"GET  /v1/models HTTP/1.1"), MODELS),
    "an empty line before": (b"\r\n" + field(b"X: a"), MODELS),
    "an empty line of LF before": (b"\n" + field(b"X: a"), MODELS),
    "a method in small letters": (line(b"get /v1/models HTTP/1.1"), MODELS),
    "a method that nobody knows": (line(b"FOO /v1/models HTTP/1.1"), (b"FOO /v1/models HTTP/1.1", b"")),
    "a protocol of streams": (line(b"SOURCE /v1/models ICE/1.0"), (b"SOURCE /v1/models HTTP/1.1", b"")),
    "a path in UTF-8": (line("GET /v1/ü HTTP/1.1".encode()), ("GET /v1/ü HTTP/1.1".encode(), b"")),
    "a path in Latin-1": (line(b"GET /v1/\xfc HTTP/1.1"), (b"GET /v1/\xfc HTTP/1.1", b"")),
    "every letter of a name": (field(b"!#$%&'*+-.^_`|~9aZ: a"), MODELS),
    "a value in Latin-1": (field(b"X: \xfc"), MODELS),
    "a value of nothing": (field(b"X:"), MODELS),
    "a field of 60 KB": (field(b"X: " + b"v" * 60_000), MODELS),
    "100 fields": (field(b"\r\n".join(b"X-%d: a" % number for number in range(100))), MODELS),
    "another server's path": (line(b"GET https://evil.example/v1/models HTTP/1.1"), MODELS),
}


@contextlib.asynccontextmanager
async def house():
    async with upstream(OK) as double, weir(double.url) as proxy:
        yield double, proxy


async def send(client, sent, *, bytewise=False):
    """What is refused on the way may not be taken to its end."""
    with contextlib.suppress(ConnectionError):
        await client.send(*(sent[at : at + 1] for at in range(len(sent))) if bytewise else [sent])


async def is_refused(client, name):
    """One answer of ours, and the end of the connection; or only that."""
    try:
        answer = await client.answer("POST")
    except (EOFError, ConnectionError):
        return
    assert (answer.status, answer.is_whole) == (400, True), (name, answer)
    assert answer.head.start == b"HTTP/1.1 400 Bad Request", name
    assert answer.head.get("connection") == "close", name
    assert answer.head.get("content-type") == "application/json", name
    assert re.fullmatch("req_[0-9a-f]{24}", answer.head.get("x-weir-request-id") or ""), name
    error = orjson.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "code", "param"}, name
    assert (error["type"], bool(error["message"])) == ("invalid_request_error", True), name
    assert await client.ends(), name


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_is_ambiguous_is_refused_once_and_goes_nowhere(kind):
    async with house() as (double, proxy):
        for name, sent in REFUSED[kind].items():
            async with wire.connected(proxy.url) as client:
                await send(client, sent + NEXT)
                await is_refused(client, name)
            assert not any(request.is_whole for request in double.requests), (name, double.requests)
            double.requests.clear()
        await at_rest(proxy)


@pytest.mark.parametrize("kind", REFUSED)
async def test_it_is_refused_in_whatever_pieces_it_comes(kind):
    """Its first line alone, its head alone, and byte by byte."""
    async with house() as (double, proxy):
        for name, sent in REFUSED[kind].items():
            if len(sent) > 1000:
                continue
            for cut in (sent.find(b"\r\n") + 2, sent.find(b"\r\n\r\n") + 4, 0):
                async with wire.connected(proxy.url) as client:
                    if cut:
                        await send(client, sent[:cut])
                        await asyncio.sleep(0.002)
                    await send(client, sent[cut:] + NEXT, bytewise=not cut)
                    await is_refused(client, (name, cut))
        await at_rest(proxy)
        assert not any(request.is_whole for request in double.requests), double.requests


async def test_what_has_one_meaning_goes_up_as_that_or_not_at_all():
    async with house() as (double, proxy):
        for name, (sent, expected) in ONE_MEANING.items():
            async with wire.connected(proxy.url) as client:
                await send(client, sent + NEXT)
                answer = await client.answer("POST")
                if answer.status == 400:
                    assert await client.ends(), name
                    assert not any(request.is_whole for request in double.requests), name
                else:
                    assert (answer.status, (await client.answer()).status) == (200, 200), name
                    seen = [(request.head.start, request.body) for request in double.requests]
                    assert seen == [expected, (LAST, b"")], name
                    assert all(is_framed_once(request) for request in double.requests), name
            double.requests.clear()


def is_framed_once(request):
    lengths, codings = request.head.all("content-length"), request.head.all("transfer-encoding")
    one_host = len(request.head.all("host")) == 1
    return one_host and len(lengths) + len(codings) <= 1 and not request.trailers


@pytest.mark.skipif(not HAS_EXTENSIONS, reason="what the compiled parser lets pass")
async def test_most_of_what_has_one_meaning_is_served():
    async with house() as (_, proxy):
        served = []
        for name, (sent, _) in ONE_MEANING.items():
            answer = await wire.fetch(proxy.url, sent)
            served += [name] if answer.status == 200 else []
    assert len(served) > len(ONE_MEANING) / 2, served


@pytest.mark.parametrize(
    "size", [b"7FFFFFFFFFFFFFFF", b"8000000000000000", b"FFFFFFFFFFFFFFFF", b"1" + b"0" * 16 + b"5"]
)
async def test_a_size_beyond_all_bounds_never_wraps_round(size):
    """What follows is that chunk's, as far as it comes: never a request of its own."""
    async with house() as (double, proxy):
        async with wire.connected(proxy.url) as client:
            await client.send(chunk(size + b"\r\nhello\r\n0\r\n\r\n") + NEXT)
            with contextlib.suppress(EOFError, TimeoutError):
                async with asyncio.timeout(0.2):
                    assert (await client.answer("POST")).status == 400
        await at_rest(proxy)
        assert not any(request.is_whole or request.head.start == LAST for request in double.requests)


@pytest.mark.parametrize("target", [b"evil.example:443", b"/v1/models", b"http://evil.example/", b"*"])
async def test_nobody_gets_a_tunnel(target):
    async with house() as (double, proxy):
        answer = await wire.fetch(proxy.url, line(b"CONNECT " + target + b" HTTP/1.1"))
        assert (answer.status, answer.head.get("connection"), double.wires) == (400, "close", [])


async def test_a_length_beyond_all_bounds_is_refused():
    async with house() as (double, proxy):
        for digits in (20, 40, 4000):
            answer = await wire.fetch(proxy.url, length(b" " + b"9" * digits))
            assert answer.status in (400, 413), digits
            assert answer.head.get("connection") == "close"
        assert double.requests == []


@pytest.mark.skipif(not HAS_EXTENSIONS, reason="this is that run")
def test_the_same_holds_where_aiohttp_has_no_compiled_parser():
    """Its parser in Python is another one: where no wheel fits, it is what stands at the edge."""
    files = [str(HERE), str(HERE.with_name("test_refusals_on_the_wire.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
