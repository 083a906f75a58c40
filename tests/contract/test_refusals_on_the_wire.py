"""What is ambiguous is refused, and what only looks odd passes: paths and hosts (field case 26).

Requests that are no HTTP at all, or two at once, are in test_edge_corpus.py.
"""

import orjson
import pytest

from tests import wire
from tests.contract.double import OK, asks, at_rest, upstream, weir

PATHS = [
    "/v1/../admin",
    "/v1/..",
    "/..",
    "/.",
    "/v1/./models",
    "/v1/models/.",
    "/v1/models/..?x=1",
    "/v1/%2e%2e/admin",
    "/v1/%2E%2E/admin",
    "/v1/.%2e/admin",
    "/v1/%2e./admin",
    "/v1/%2e/models",
    "/v1/%2e",
    "/v1%2f..%2fadmin",
    "/v1%2F%2e%2e%2Fadmin",
    "/v1/a%2f../b",
    "/v1/..%2fadmin",
    "/v1/..%5cadmin",
    "/v1/a%5cb",
    "/v1/a%5C..%5Cb",
    "/v1\\models",
    "/v1/..\\admin",
    "//v1/models",
    "/v1//models",
    "/v1/models//",
    "//evil.example/v1/models",
    "/v1/models#part",
    "/v1/models?x=1#part",
    "/v1/mo\x01dels",
    "/v1/mo\x7fdels",
    "http://user@api.example/v1/models",
    "http://user:pw@api.example/v1/models",
    "http://api.example/v1/../admin",
    "http://api.example//v1",
    "v1/models",
]
HOSTS = [
    "a:1/#@b",
    "localhost:4000/#@x",
    "user@api.example",
    "user:pw@api.example",
    "api.example/v1",
    "api.example?x",
    "api.example#x",
    "api.example:80:80",
    "api.example:http",
    "api example",
    "a,b/c",
    "[::1",
    "\\\\evil",
]
LEGAL_PATHS = [
    "/v1/models/org%2Fname:tag",
    "/v1/models/org%2Fname%3Atag@main",
    "/v1/models/a..b",
    "/v1/models/..a",
    "/v1/models/a..",
    "/v1/.well-known/x",
    "/v1/models/...",
    "/v1/models/%2e%2e%2e",
    "/v1/models/a%2e%2eb",
    "/v1/models/%252e%252e",
    "/v1/models?path=/../x//y\\z",
    "/v1/models/a%20b%00",
    "/v1%2fmodels",
    "/v1/~user/(a)!*'",
]
LEGAL_HOSTS = [
    "api.example",
    "api.example:8080",
    "localhost",
    "127.0.0.1:80",
    "[::1]:8080",
    "my_service.ns",
    "a-b.c:",
    "",
]


async def _refused(sent: bytes) -> wire.Message:
    async with upstream(OK) as double, weir(double.url) as proxy:
        async with wire.connected(proxy.url) as client:
            await client.send(sent)
            answer = await client.answer()
            assert answer.head.get("connection") == "close"
            assert await client.ends()
        assert double.wires == []
        await at_rest(proxy)
    assert (answer.status, answer.is_whole) == (400, True)
    return answer


def _error(answer: wire.Message) -> dict[str, str | None]:
    assert answer.head.get("content-type") == "application/json"
    assert (answer.head.get("x-weir-request-id") or "").startswith("req_")
    error: dict[str, str | None] = orjson.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("path", PATHS)
async def test_an_ambiguous_path_is_refused(path):
    _error(await _refused(asks(f"GET {path}")))


@pytest.mark.parametrize("host", HOSTS)
async def test_an_ambiguous_host_is_refused(host):
    _error(await _refused(asks("GET /v1/models").replace(b"api.example", host.encode())))


@pytest.mark.parametrize("path", LEGAL_PATHS)
async def test_what_only_looks_odd_passes_undecoded(path):
    async with upstream(OK) as double, weir(double.url) as proxy:
        assert (await wire.fetch(proxy.url, asks(f"GET {path}"))).status == 200
        [request] = double.requests
    assert request.head.start == f"GET {path} HTTP/1.1".encode()


@pytest.mark.parametrize("host", LEGAL_HOSTS)
async def test_any_name_of_a_host_is_served_and_none_goes_up(host):
    async with upstream(OK) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, asks("GET /v1/models").replace(b"api.example", host.encode()))
        [request] = double.requests
    assert (answer.status, request.head.all("host")) == (200, [double.authority])


async def test_a_whole_url_is_taken_for_its_path():
    async with upstream(OK) as double, weir(double.url) as proxy:
        assert (await wire.fetch(proxy.url, asks("GET http://api.example/v1/models?x=1"))).status == 200
        [request] = double.requests
    assert request.head.start == b"GET /v1/models?x=1 HTTP/1.1"


async def test_what_follows_a_refusal_is_not_read():
    """No second request hides behind one that was refused."""
    smuggled = asks("GET /v1/smuggled")
    for sent in (asks("GET /v1/../x"), asks("POST //x", body=b"abc")):
        async with upstream(OK) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
            await client.send(sent + smuggled)
            assert (await client.answer()).status == 400
            assert await client.ends()
            assert double.requests == []


async def test_a_broken_chunk_is_a_400_and_the_upstream_sees_a_cut():
    async with upstream(OK) as double, weir(double.url) as proxy, wire.connected(proxy.url) as client:
        await client.send(
            asks("POST /v1/files", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n", b"zz\r\nhello\r\n0\r\n\r\n"
        )
        answer = await client.answer("POST")
        assert answer.status == 400
        _error(answer)
        assert await client.ends()
        await at_rest(proxy)
        assert not any(request.is_whole for request in double.requests)
