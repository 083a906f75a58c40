"""What the upstream answers is what the app gets: the table of answers that are no event streams."""

import gzip
import zlib
from operator import attrgetter

import pytest

from tests import wire
from tests.contract.double import CHAT, OK, OWN, Case, answers, asks, chunked, compare, says, upstream, weir

JSON = "Content-Type: application/json"
BODY = b'{"object": "list",  "data": [1.0, "\\u00e9", "\xc3\xa9"]}\n'
GET = asks("GET /v1/models")
POST = asks(f"POST {CHAT}", JSON, body=b"{}")
HEAD = asks("HEAD /v1/models")
OLD_CLIENT = asks("GET /v1/models").replace(b"HTTP/1.1", b"HTTP/1.0")
SOUND = bytes(range(256)) * 4000
GZIPPED = gzip.compress(BODY, mtime=0)
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
TRAILERS = b"X-Checksum: abc\r\nx-checksum: def\r\nX-Empty:\r\n"

STATUSES = [
    ("200 OK", BODY),
    ("200 All Quiet", BODY),
    ("200 ", BODY),
    ("201 Created", BODY),
    ("202 Accepted", b""),
    ("206 Partial Content", b"part"),
    ("302 Found", b"elsewhere"),
    ("307 Temporary Redirect", b""),
    ("308 Permanent Redirect", BODY),
    ("400 Bad Request", b'{"error": {"message": "m", "type": "invalid_request_error", "param": null, "code": null}}'),
    ("404 Not Found", b'{"error": {"message": "The model does not exist", "code": "model_not_found"}}'),
    ("422 Unprocessable Entity", b'{"error":"Input validation error","error_type":"validation"}'),
    ("429 Too Many Requests", b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'),
    ("500 Internal Server Error", b'{"error": {"message": "oops"}}'),
    ("529 Overloaded", b'{"type": "error", "error": {"type": "overloaded_error"}}'),
]

FIELDS = {
    "names in any case": ["X-UPPER: 1", "x-lower: 2", "X-miXed_Under.Dot: 3"],
    "repeated, apart": ["Link: </a>", "X-Tag: one", "link: </b>", "X-Tag: one"],
    "values in UTF-8 and Latin-1": ["X-Name: Grüße ☺", b"X-Other: Gr\xfc\xdfe"],
    "empty values": ["X-Empty:", "X-After: 1"],
    "the upstream's own request id": ["X-Request-Id: req_upstream"],
    "limits and how long to wait": ["x-ratelimit-remaining-tokens: 9", "retry-after: 2", "retry-after-ms: 1500"],
    "6 KB": [f"X-Policy-{number}: {'p' * 580}" for number in range(10)],
    "a single one of 6 KB": [f"Content-Security-Policy: {'p' * 6000}"],
    "a hundred": [f"X-Field-{number}: {number}" for number in range(100)],
    "Server and Date": ["Server: uvicorn", "Date: Thu, 20 Nov 2025 12:00:00 GMT"],
    "hop-by-hop": [
        "Connection: X-Private, keep-alive",
        "Keep-Alive: timeout=5",
        "X-Private: 1",
        "Proxy-Authenticate: a",
    ],
    "another Weir's": ["x-weir-request-id: req_other", "X-Weir-Cache: hit"],
}
HIDDEN = ("x-private", "x-weir-request-id", "x-weir-cache")

ENCODED = {
    "gzip": ("gzip", GZIPPED),
    "double gzip": ("gzip, gzip", gzip.compress(GZIPPED, mtime=0)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "br": ("br", b"\x8b\x02\x80hello\x03"),
    "zstd": ("zstd", b"\x28\xb5\x2f\xfd\x04\x00\x29\x00\x00hello"),
    "a name of its own": ("x-rot13", b"uryyb"),
    "gzip, and is not": ("gzip", b"hello"),
    "identity": ("identity", BODY),
}

CASES = [
    *(Case(f"{status}", POST, answers(status, JSON, "Location: /v1/x", body=body)) for status, body in STATUSES),
    *(
        Case(f"fields: {name}", GET, answers("200 OK", *fields, body=BODY), hidden=HIDDEN)
        for name, fields in FIELDS.items()
    ),
    *(
        Case(f"encoded: {name}", GET, answers("200 OK", JSON, f"Content-Encoding: {encoding}", "ETag: e", body=body))
        for name, (encoding, body) in ENCODED.items()
    ),
    *(
        Case(f"an error, encoded: {name}", GET, answers("400 Bad", JSON, f"Content-Encoding: {encoding}", body=body))
        for name, (encoding, body) in ENCODED.items()
        if name in {"gzip", "double gzip", "deflate", "identity"}
    ),
    Case("204", asks("DELETE /v1/files/f"), answers("204 No Content", "X-A: 1")),
    Case("304", GET, answers("304 Not Modified", "ETag: e")),
    Case("304 that tells a length", GET, answers("304 Not Modified", "ETag: e", "Content-Length: 9")),
    Case("HEAD", HEAD, answers("200 OK", JSON, "Content-Length: 300")),
    Case("HEAD of something without a length", HEAD, answers("200 OK", JSON)),
    Case("HEAD of an error", HEAD, answers("404 Not Found", JSON, "Content-Length: 30")),
    Case("HEAD of something chunked", HEAD, says(CHUNKED + b"\r\n")),
    Case("a body of nothing", GET, answers("200 OK", JSON, body=b"")),
    Case("binary, 1 MB", GET, answers("200 OK", "Content-Type: audio/mpeg", body=SOUND)),
    Case("chunked", GET, says(CHUNKED + b"\r\n" + chunked(b"{", b"}"))),
    Case("chunked, of nothing", GET, says(CHUNKED + b"\r\n" + chunked())),
    Case("chunked, with extensions", GET, says(CHUNKED + b'\r\n2;a="b;c"\r\n{}\r\n0;d\r\n\r\n')),
    Case("chunked, 1 MB", GET, says(CHUNKED + b"\r\n" + chunked(*[SOUND[:7777]] * 130))),
    Case("trailers", GET, says(CHUNKED + b"Trailer: X-Checksum\r\n\r\n" + chunked(BODY, trailers=TRAILERS))),
    Case("byte by byte", GET, says(*[bytes([byte]) for byte in CHUNKED + b"\r\n" + chunked(BODY, trailers=TRAILERS)])),
    Case("until the connection ends", GET, answers("200 OK", JSON, body=BODY, closes=True)),
    Case("HTTP/1.0, until the end", GET, says(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n" + BODY, closes=True)),
    Case("HTTP/1.0, with a length", GET, says(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", closes=True)),
    Case("Connection: close", GET, answers("200 OK", "Connection: close", body=BODY)),
    Case("103", GET, says(EARLY_HINTS, WHOLE)),
    Case("102, 103, 103", POST, says(PROCESSING, EARLY_HINTS, EARLY_HINTS + WHOLE)),
    Case("100 unasked", POST, says(b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE)),
    Case("an HTTP/1.0 client", OLD_CLIENT, answers("200 OK", JSON, body=BODY)),
    Case("an HTTP/1.0 client, chunked", OLD_CLIENT, says(CHUNKED + b"\r\n" + chunked(b"{", b"}"))),
]


@pytest.mark.parametrize("case", [c for c in CASES if c.sent is not OLD_CLIENT], ids=attrgetter("name"))
async def test_an_answer_arrives_as_it_was_given(case):
    await compare(case)


@pytest.mark.parametrize("case", [c for c in CASES if c.sent is OLD_CLIENT], ids=attrgetter("name"))
async def test_an_old_client_gets_an_answer_that_it_can_read(case):
    """HTTP/1.0 knows no chunks: the body lasts until the connection ends."""
    async with upstream(case.script) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(case.sent)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, BODY if case.script == CASES[-2].script else b"{}")
        assert answer.head.all("transfer-encoding") == []
        assert await client.ends()


async def test_an_old_client_is_told_no_1xx():
    async with upstream(says(EARLY_HINTS + WHOLE)) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, OLD_CLIENT)
    assert (answer.interim, answer.body) == ([], b"{}")


NAMES = {"content-type", "content-length", "transfer-encoding", "connection", *(name.decode() for name in OWN)}
STREAMED = answers("200 OK", "Content-Type: text/event-stream", body=b"data: {}\n\ndata: [DONE]\n\n")
SCRIPTS = {
    "whole": OK,
    "streamed": STREAMED,
    "not JSON": answers("500 Oops", body=b"oops"),
    "garbage": says(b"garbage\n"),
}
SENT = {
    "what passes": GET,
    "an ambiguous path": asks("GET /v1/../x"),
    "no HTTP": b"hello\r\n\r\n",
    "a method of its own": asks("TRACE /v1/models"),
    "too large": asks("POST /v1/files", "Content-Length: 99999999999"),
    "a broken body": asks("POST /v1/files", "Transfer-Encoding: chunked") + b"x\r\n",
    "an old client": b"GET /v1/models HTTP/1.0\r\n\r\n",
    "a HEAD": asks("HEAD /v1/models"),
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_no_header_tells_a_version(script):
    """Field case 109: not ours, not aiohttp's; the upstream's own passes. A WebSocket's is in test_handshakes.py."""
    async with upstream(SCRIPTS[script]) as double, weir(double.url) as proxy:
        for name, sent in SENT.items():
            answer = await wire.fetch(proxy.url, sent)
            assert {field.decode().lower() for field, _ in answer.head.fields} <= NAMES, name
            assert not any(word in repr(answer).lower() for word in ("aiohttp", "python", "weir/", "uvloop")), name
