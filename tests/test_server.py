"""The edge: what it lets in, what its refusals look like, and one id on every answer."""

import asyncio
import contextlib
import io
import re

import orjson
import pytest
from typing_extensions import override

from proxy import testing
from proxy.plugin import Plugin, PluginConfig
from proxy.server import host_fault, new_id, origin_form, target_fault
from tests import wire

PASSED = """
/v1/chat/completions
/
/v1
/v1/
/v1/models/org%2Fname:tag
/v1/models/org%2fname
/v1/models/a%2F
/v1/models/%E2%98%BA
/v1/models/a.b..c
/v1/models/...
/v1/models/.hidden
/v1/models/..hidden
/v1/models/hidden..
/v1/models/%2e%2e%2e
/v1/models/%2ea
/v1/models/a%2e%2e
/v1/models/%252e%252e/x
/v1/models/%255c
/v1/models/a~b!$&'()*+,;=:@
/v1/models?next=/../x
/v1/models?u=http://a//b
/v1/models?p=a%5cb&q=..
/v1/models??
/v1/models/%00
/v1/models/%0d%0aX-Evil:1
/v1/%zz
/metrics
/inference/v1/generate
/{a}|"<>^`
"""

REFUSED = """
/.
/..
/./
/../
/v1/./models
/v1/../admin
/v1/..
/v1/.
/v1/%2e/models
/v1/%2e%2e/admin
/v1/%2E%2E/admin
/v1/.%2e/admin
/v1/%2e./admin
/v1/%2e%2e
/v1/..%2fadmin
/v1/..%2Fadmin
/v1/%2e%2e%2fadmin
/v1/a%2f..%2fb
/v1/a%2f../b
/v1/a%2f%2e%2e
/v1/..%5cadmin
/v1%5c..%5cadmin
/v1/a%5Cb
/v1/a\\b
/v1\\..\\admin
//v1/models
/v1//models
/v1/models//
//
//evil.example/v1
/v1/..?x=1
/v1/models#x
/v1/models?x=1#y
http://a/v1/../admin
http://a//v1
http://user@a/v1/models
http://user:pass@a/v1/models
*
v1/models
localhost:4000
"""

PATHS = [("passed", line) for line in PASSED.split()]
NO_PATHS = [("refused", line) for line in REFUSED.split()]
CONTROLS = ["/v1/mod els", "/v1/mod\tels", "/v1/\x00", "/v1/\x7f", "/v1/\x1b[0m", "/v1/models?a\x01"]


@pytest.mark.parametrize(("verdict", "target"), [*PATHS, *NO_PATHS, *(("refused", target) for target in CONTROLS)])
def test_targets(verdict, target):
    assert (target_fault(target) is None) == (verdict == "passed")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/models?x=http://a/b", "/v1/models?x=http://a/b"),
        ("http://any.example/v1/models?x=1", "/v1/models?x=1"),
        ("HTTPS://any.example:8/v1", "/v1"),
        ("http://any.example", "/"),
        ("ftp://any.example/v1", "ftp://any.example/v1"),
        ("*", "*"),
    ],
)
def test_an_absolute_target_means_its_path(target, path):
    assert origin_form(target) == path


GOOD_HOSTS = [
    "",
    "localhost",
    "localhost:8080",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "[::ffff:10.0.0.1]:1",
    "a_b.c-d",
]
BAD_HOSTS = [
    "a/b",
    "localhost:4000/#@x",
    "a:1/#@b",
    "user@host",
    "user:pass@host",
    "a b",
    "a\tb",
    "a#b",
    "a?b",
    "a\\b",
    "a:1:2",
    "a:x",
    "::1",
    "[::1",
    "[::1]x",
    "http://a",
    "a,b:1@c",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_hosts_that_pass(host):
    assert host_fault((host,)) is None


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_hosts_that_are_refused(host):
    assert host_fault((host,)) == "the Host header is not a host name"


def test_two_hosts_are_one_too_many():
    assert host_fault(("a", "a"))
    assert host_fault(()) is None


# -- the same as raw request lines over the wire


@contextlib.asynccontextmanager
async def house():
    async with testing.upstream(testing.answer(b"{}")) as upstream, testing.weir(upstream) as weir:
        yield upstream, weir


def is_refusal(answer):
    error = orjson.loads(answer.body)["error"]
    return answer.status == 400 and error["type"] == "invalid_request_error" and bool(error["code"])


async def test_every_path_that_passes_goes_up_byte_for_byte():
    async with house() as (upstream, weir), wire.connected(weir.url) as client:
        for _, target in PATHS:
            await client.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = await client.answer()
            assert answer.status == 200, target
        below = [target for _, target in PATHS]
    received = [request.target for request in upstream.requests]
    assert received == below


async def test_every_path_that_is_ambiguous_is_refused_at_the_door():
    async with house() as (upstream, weir):
        for target in [*(target for _, target in NO_PATHS), *CONTROLS]:
            answer = await wire.fetch(weir.url, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert is_refusal(answer), (target, answer)
            assert re.fullmatch("req_[0-9a-f]{24}", answer.head.get("x-weir-request-id"))
            assert answer.head.get("connection") == "close", target
    assert not upstream.requests


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_every_host_that_is_none_is_refused_at_the_door(host):
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert is_refusal(answer)
    assert not upstream.requests


async def test_two_host_fields_are_refused():
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert is_refusal(answer)
    assert not upstream.requests


@pytest.mark.parametrize("line", ["http://other.example/v1/models", "HTTP://127.0.0.1:1/v1/models"])
async def test_an_absolute_target_reaches_the_configured_upstream_only(line):
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, f"GET {line} HTTP/1.1\r\nHost: other.example\r\n\r\n".encode())
    assert (answer.status, upstream.last.target) == (200, "/v1/models")
    assert upstream.last.headers["host"] == upstream.url.removeprefix("http://")


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/models HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"p" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx: " + b"v" * 70_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\n" + b"x: v\r\n" * 128 + b"\r\n",
    ],
    ids=lambda junk: repr(junk[:60]),
)
async def test_what_is_not_http_or_too_much_of_it_is_told_in_openais_shape(junk):
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, junk + b"\r\n")
    assert is_refusal(answer)
    error = orjson.loads(answer.body)["error"]
    assert error["code"] == "bad_http"
    assert error["message"].endswith("or its header is too large: a line may have 64 KiB, and there may be 128")
    assert answer.head.start == b"HTTP/1.1 400 Bad Request"
    assert answer.head.get("content-type").startswith("application/json")
    assert re.fullmatch("req_[0-9a-f]{24}", answer.head.get("x-weir-request-id"))
    assert not upstream.requests


async def test_what_is_not_http_is_logged_and_counted():
    stdout = io.BytesIO()
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1"}}}}\nroutes: [{{name: default, targets: [up]}}]\n'
        )
        async with testing.configured(text, stdout) as weir:
            answer = await wire.fetch(weir.url, b"hello\r\n\r\n")
            assert (
                b'weir_requests_total{endpoint="other",outcome="client_error",route="none"} 1.0' in weir.metrics.page()
            )
    line = orjson.loads(stdout.getvalue())
    assert line["id"] == answer.head.get("x-weir-request-id")
    assert (line["status"], line["error"], line["path"], line["outcome"]) == (400, "bad_http", "", "client_error")


@pytest.mark.parametrize("half", [b"", b"GET /v1/models HTTP/1.1\r\nhost: a\r\n"], ids=["nothing", "half a header"])
async def test_a_connection_whose_first_request_does_not_come_is_closed(half, monkeypatch):
    """One that has brought a request may rest."""
    monkeypatch.setattr("proxy.server.HEADER_SECONDS", 0.2)
    async with house() as (_, weir), wire.connected(weir.url) as resting, wire.connected(weir.url) as client:
        await resting.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await resting.answer()).status == 200
        await client.send(half)
        assert await client.reader.read() == b""
        await asyncio.sleep(0.2)
        await resting.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await resting.answer()).status == 200


class Reader(Plugin[PluginConfig]):
    """Reads a header of all that ends."""

    sees_all = True

    @override
    def on_complete(self, exchange, outcome):
        exchange.request.headers.getall("traceparent", ())


async def test_what_is_not_http_has_no_header_and_plugins_can_look_for_one():
    text = (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\nupstreams: {up: {base_url: "http://127.0.0.1:1"}}\n'
        f"plugins: [{{reader: {{use: '{__name__}:Reader'}}}}]\nroutes: [{{name: default, targets: [up]}}]\n"
    )
    async with testing.configured(text) as weir:
        assert is_refusal(await wire.fetch(weir.url, b"hello\r\n\r\n"))
        await wire.until(lambda: b'route="none"} 1.0' in weir.metrics.page())
        assert b'weir_plugin_errors_total{plugin="reader"}' not in weir.metrics.page()


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_no_request_asks_for_a_tunnel_or_for_its_own_echo(method):
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, f"{method} /v1/models HTTP/1.1\r\nhost: a\r\n\r\n".encode())
    assert is_refusal(answer)
    assert orjson.loads(answer.body)["error"]["code"] == "bad_method"
    assert not upstream.requests


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked", "chunked, chunked"])
async def test_a_body_is_coded_for_its_transfer_as_chunks_or_not_at_all(coding):
    async with house() as (upstream, weir):
        request = f"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"
        assert is_refusal(await wire.fetch(weir.url, request.encode()))
    assert not upstream.requests


@pytest.mark.parametrize(
    "body",
    [b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"transfer-encoding: chunked\r\n\r\n5\r\nabcdeXX\r\n"],
    ids=["no size", "longer than its size"],
)
async def test_a_body_that_is_not_framed_as_it_says_is_the_clients_fault(body):
    async with house() as (upstream, weir):
        answer = await wire.fetch(weir.url, b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n" + body)
    assert is_refusal(answer)
    assert not [received for received in upstream.requests if received.body]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions"])
async def test_a_body_that_breaks_when_it_is_under_way_is_told_at_once(path):
    """Also to a plugin that waits for all of it."""
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.weir(upstream, ["guard"]) as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        await wire.until(lambda: weir.in_flight)
        await client.send(b"5\r\nhello\r\n")
        await asyncio.sleep(0.01)
        await client.send(b"-1\r\n")
        answer = await client.answer("POST")
        assert is_refusal(answer)
        assert orjson.loads(answer.body)["error"]["code"] == "bad_body"
        assert answer.head.get("connection") == "close"
        assert await client.ends()
    assert not [received for received in upstream.requests if received.body == b"hello"]


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("content-length: 101", b""),
        ("content-length: 101", bytes(101)),
        ("transfer-encoding: chunked", b"65\r\n" + bytes(101) + b"\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked", b"65\r\n" + bytes(101) + b"\r\n"),
    ],
)
async def test_too_large_a_body_is_413_in_openais_shape(framing, body):
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.weir(upstream, server="max_request_bytes: 100B") as weir,
    ):
        request = f"POST /v1/files HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n".encode() + body
        answer = await wire.fetch(weir.url, request)
    error = orjson.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["type"]) == (413, "request_too_large", "invalid_request_error")
    assert "server.max_request_bytes" in error["message"]
    assert answer.head.get("x-weir-request-id")
    assert answer.head.get("connection") == "close"
    assert not upstream.requests


async def test_a_body_that_grows_past_the_limit_is_413_and_closes():
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.weir(upstream, server="max_request_bytes: 100B") as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        await wire.until(lambda: weir.in_flight)
        for _ in range(2):
            await client.send(b"3c\r\n" + bytes(60) + b"\r\n")
            await asyncio.sleep(0.01)
        answer = await client.answer("POST")
        assert (answer.status, answer.head.get("connection")) == (413, "close")
    assert not upstream.requests


async def test_every_answer_has_an_id_of_its_own():
    listed = '[{name: a, match: {path: "/v1/*"}, targets: [up]}]'
    seen = []
    async with testing.upstream(testing.answer(b"{}", status=404)) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0", max_request_bytes: 9B}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1"}}}}\nroutes: {listed}\n'
        )
        async with testing.configured(text) as weir:
            for line, status in [
                ("GET /v1/models HTTP/1.1\r\nhost: a\r\n", 404),
                ("GET /other HTTP/1.1\r\nhost: a\r\n", 404),
                ("GET /v1/../x HTTP/1.1\r\nhost: a\r\n", 400),
                ("POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n", 413),
                ("GET nonsense\r\n", 400),
                ("GET /v1/models HTTP/1.1\r\nhost: a@b\r\n", 400),
                ("HEAD /other HTTP/1.1\r\nhost: a\r\n", 404),
                ("GET /other HTTP/1.0\r\n", 404),
            ] * 2:
                answer = await wire.fetch(weir.url, f"{line}\r\n".encode())
                assert answer.status == status, line
                [identity] = answer.head.all("x-weir-request-id")
                assert answer.head.all("x-request-id") == [identity]
                seen.append(identity)
    assert len(set(seen)) == len(seen) == 16


def test_ids_do_not_repeat():
    assert len({new_id() for _ in range(50_000)}) == 50_000
