"""What an app sends is what the upstream receives: the table of requests."""

from operator import attrgetter

import pytest

from tests.contract.double import CHAT, Case, asks, chunked, compare

JSON = "Content-Type: application/json"
HELLO = '{"model": "m",  "messages": [{"role": "user", "content": "Grüße \\u263a"}], "x": 1.0, "x": 2}\n'.encode()
EDGE = b"--edge\r\ncontent-disposition: form-data; name="
FORM = (
    EDGE
    + b'"model"\r\n\r\nwhisper\r\n'
    + EDGE
    + b'"file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n'
    + bytes(range(256)) * 2
    + b"\r\n--edge--\r\n"
)
MULTIPART = "Content-Type: multipart/form-data; boundary=edge"
CHUNKED = "Transfer-Encoding: chunked"

PATHS = [
    "/v1/chat/completions",
    "/v1/models?a=1&b=%20%2B&&c=&c",
    "/v1/models?",
    "/v1/models?next=/a/../b&u=http://x//y",
    "/v1/models/",
    "/v1/models/org%2Fname:tag",
    "/v1/models/org%2fname",
    "/v1/models/%E2%98%BA~!$&'()*+,;=@",
    "/v1/files/a.b..c/content",
    "/v1/...",
    "/v1/none/at/all",
    "/v1",
    "/v1?page=2",
    "/v1/",
    "/v10/models",
    "/",
    "/health",
    "/tokenize?text=a",
    "/%76%31/models",
    "/metrics",
    "/state",
]

METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"]

HEADERS = {
    "names with _ and .": ["x_under_score: 1", "x.dotted.name: 2", "X-Mixed_Case.Name: 3"],
    "names in any case": ["ACCEPT: */*", "user-Agent: App/1.0", "x-lower: a"],
    "repeated, apart": ["X-Tag: one", "Accept: a/b", "x-tag: two", "Accept: c/d", "X-Tag: one"],
    "values in UTF-8": ["X-Name: Grüße ☺ 漢字"],
    "values in Latin-1": [b"X-Name: Gr\xfc\xdfe"],
    "empty values": ["X-Empty:", "X-Blank:   ", "X-After: 1"],
    "inner white space and quotes": ['X-Text: a  b\tc "d\\"e"; f=, ,'],
    "none but Host": [],
    "content-type without a body": [JSON],
    "accept-encoding": ["Accept-Encoding: gzip, deflate, br, zstd"],
    "no accept-encoding": ["User-Agent: curl/8"],
    "the SDK's own": ["x-stainless-retry-count: 1", "Idempotency-Key: k-1", "X-Stainless-Lang: python"],
    "many": [f"X-Field-{number}: {number}" for number in range(100)],
    "30 KB": [f"X-Long-{number}: {'v' * 3000}" for number in range(10)],
    "a trace and a version": ["traceparent: 00-1-2-01", "OpenAI-Organization: org", "OpenAI-Beta: assistants=v2"],
    "x-weir- of the app": ["x-weir-note: mine"],
    "who was forwarded, by RFC 7239": ["Forwarded: for=192.0.2.1", "Via: 1.1 a"],
}

CASES = [
    *(Case(f"path {path}", asks(f"GET {path}")) for path in PATHS),
    *(Case(f"{method} without a body", asks(f"{method} /v1/files/f-1")) for method in METHODS),
    *(Case(f"{method} with a body", asks(f"{method} /v1/files/f-1", JSON, body=HELLO)) for method in METHODS),
    *(Case(f"headers: {name}", asks("GET /v1/models", *fields)) for name, fields in HEADERS.items()),
    *(Case(f"headers of a POST: {name}", asks(f"POST {CHAT}", *HEADERS[name], body=HELLO)) for name in HEADERS),
    Case("a body of nothing", asks(f"POST {CHAT}", JSON, body=b"")),
    Case("not JSON", asks(f"POST {CHAT}", JSON, body=b'{"model": ')),
    Case("no content-type", asks(f"POST {CHAT}", body=HELLO)),
    Case("a body of 64 KiB", asks(f"POST {CHAT}", JSON, body=b"x" * 65536)),
    Case("a body of 64 KiB and 1", asks(f"POST {CHAT}", JSON, body=b"x" * 65537)),
    Case("a body of 3 MB", asks(f"POST {CHAT}", JSON, body=HELLO * 30_000)),
    Case("multipart", asks("POST /v1/audio/transcriptions", MULTIPART, body=FORM)),
    Case("multipart, 1 MB", asks("POST /v1/files", MULTIPART, body=FORM * 1300)),
    Case("chunked", asks(f"POST {CHAT}", JSON, CHUNKED) + chunked(HELLO, b"x", HELLO)),
    Case("chunked, 1 MB", asks(f"POST {CHAT}", JSON, CHUNKED) + chunked(*[HELLO * 100] * 100)),
    Case("chunked, of nothing", asks(f"POST {CHAT}", JSON, CHUNKED) + chunked()),
    Case("chunked, with extensions", asks(f"POST {CHAT}", CHUNKED) + b"2;a=b\r\n{}\r\n0;c\r\n\r\n"),
    Case("chunked DELETE", asks("DELETE /v1/files/f", CHUNKED) + chunked(b"{}")),
    Case("a gzipped body", asks(f"POST {CHAT}", "Content-Encoding: gzip", body=b"\x1f\x8b\x08\x00not really")),
    Case("a whole URL in the request line", asks("GET /v1/models?x=1")),
]

GONE = {
    "hop-by-hop": ["Connection: keep-alive", "Keep-Alive: timeout=5", "TE: trailers", "Proxy-Connection: keep-alive"],
    "what Connection names": ["Connection: X-Secret, keep-alive", "connection: x-other", "x-secret: 1", "X-Other: 2"],
    "proxy-authorization": ["Proxy-Authorization: Basic eDp5"],
    "x-forwarded-": ["X-Forwarded-For: 192.0.2.1", "x-forwarded-host: a", "X-FORWARDED-PROTO: https"],
    "upgrade": ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
}
LOST = ("x-secret", "x-other", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
async def test_a_request_arrives_as_it_was_sent(case):
    await compare(case)


@pytest.mark.parametrize("name", GONE)
async def test_what_belongs_to_the_connection_stays_there(name):
    await compare(Case(name, asks("GET /v1/models", "X-Before: 1", *GONE[name], "X-After: 2"), lost=LOST))


@pytest.mark.parametrize("name", ["Content-Length", "Content-Type", "Host"])
async def test_connection_cannot_unsay_what_describes_the_message(name):
    await compare(Case(name, asks(f"POST {CHAT}", JSON, f"Connection: {name}", body=HELLO)))


async def test_fifty_unknown_fields_of_a_body_pass():
    """Field case 114."""
    body = b"{%b}" % b", ".join(b'"field_%d" : [%d.0, null, "\\u00e9"]' % (n, n) for n in range(50))
    await compare(Case("unknown fields", asks(f"POST {CHAT}", JSON, body=body)))
