"""Upstreams that fail, refuse, babble or say nothing: status kept, OpenAI's shape, never the upstream's address or key."""

import asyncio
import socket

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests import wire
from tests.contract import sse
from tests.contract.double import CHAT, Wire, answers, asks, at_rest, says, upstream, weir
from tests.contract.sse import DONE, FINISH, LAST, STREAM, TOLD, chunk

POST = asks(f"POST {CHAT}", "Content-Type: application/json", body=b'{"model": "m"}')
HTML = b"<html><head><title>502</title></head><body><h1>Bad Gateway</h1><hr>nginx/1.27</body></html>"
TGI = b'{"error":"Input validation error: `inputs` must have less than 4096 tokens","error_type":"validation"}'
JSON = "Content-Type: application/json"

WRAPPED = {
    "502 HTML": ("502 Bad Gateway", ["Content-Type: text/html"], HTML, "Bad Gateway nginx/1.27"),
    "503 empty": ("503 Service Unavailable", [], b"", "nothing"),
    "400 text/plain": ("400 Bad Request", ["Content-Type: text/plain"], b"no such model", "no such model"),
    "401 empty": ("401 Unauthorized", ["WWW-Authenticate: Bearer"], b"", "nothing"),
    "404 without a type": ("404 Not Found", [], b"404 page not found\n", "404 page not found"),
    "413 HTML": ("413 Payload Too Large", ["Content-Type: text/html"], b"<h1>413 too large</h1>", "413 too large"),
    "429 text": ("429 Too Many Requests", ["Retry-After: 7"], b"slow down", "slow down"),
    "500 JSON that is none": ("500 Internal Server Error", [JSON], b'{"error": ', '{"error":'),
    "500 a bare string": ("500 Internal Server Error", [JSON], b'"oops"', '"oops"'),
    "504 a long page": ("504 Gateway Timeout", ["Content-Type: text/html"], b"<p>wait " * 1000, "wait wait"),
}
PASSED = {
    "TGI 422": ("422 Unprocessable Entity", TGI),
    "OpenAI 400": (
        "400 Bad Request",
        b'{"error":{"message":"m","type":"invalid_request_error","param":null,"code":null}}',
    ),
    "vLLM 404": ("404 Not Found", b'{"object":"error","message":"The model does not exist","code":404}'),
    "FastAPI 422": ("422 Unprocessable Entity", b'{"detail":[{"loc":["body","model"],"msg":"field required"}]}'),
    "Gemini's list": ("400 Bad Request", b'[{"error":{"code":400,"message":"API key not valid"}}]'),
    "no content-type": ("500 Internal Server Error", b'{"error": "x"}'),
}
RAISED = {
    "400 text/plain": openai.BadRequestError,
    "401 empty": openai.AuthenticationError,
    "404 without a type": openai.NotFoundError,
    "429 text": openai.RateLimitError,
    "502 HTML": openai.InternalServerError,
    "503 empty": openai.InternalServerError,
    "413 HTML": openai.APIStatusError,
    "TGI 422": openai.UnprocessableEntityError,
    "OpenAI 400": openai.BadRequestError,
}


@pytest.mark.parametrize("sent", [POST, STREAM, asks("GET /v1/models")], ids=["chat", "stream", "models"])
@pytest.mark.parametrize("name", WRAPPED)
async def test_an_error_that_no_client_can_read_is_told_in_openais_shape(name, sent):
    """Field case 50: the status is kept, and so are the fields that do not describe the body."""
    status, fields, body, said = WRAPPED[name]
    async with upstream(answers(status, *fields, body=body)) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, sent)
        error = orjson.loads(answer.body)["error"]
        assert f"{answer.status} {answer.head.reason.decode()}" == status
        assert (error["type"], error["code"], error["param"]) == ("upstream_error", f"upstream_{answer.status}", None)
        assert error["message"].startswith(f"upstream 'up' answered {answer.status} and said: {said}")
        assert len(error["message"]) < 600
        assert answer.head.all("content-type") == [b"application/json"]
        assert answer.head.all("retry-after") == ([b"7"] if name == "429 text" else [])
        assert answer.head.get("x-weir-request-id")
        assert double.authority.decode() not in error["message"]
        assert await at_rest(proxy) == {"upstream_error" if answer.status >= 500 else "client_error": 1}


@pytest.mark.parametrize("name", PASSED)
async def test_a_json_error_passes_unchanged(name):
    status, body = PASSED[name]
    fields = [] if name == "no content-type" else ["content-type: application/json; charset=utf-8"]
    async with upstream(answers(status, *fields, body=body)) as double, weir(double.url) as proxy:
        for sent in (POST, STREAM):
            answer = await wire.fetch(proxy.url, sent)
            assert (str(answer.status), answer.body) == (status[:3], body)


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_raises_the_class_of_the_status(name, stream):
    status, body = PASSED[name] if name in PASSED else (WRAPPED[name][0], WRAPPED[name][2])
    async with (
        upstream(answers(status, body=body)) as double,
        weir(double.url) as proxy,
        AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-app", max_retries=0) as client,
    ):
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model="m", messages=[], stream=stream)
    assert type(raised.value) is RAISED[name]
    assert raised.value.status_code == int(status[:3])
    assert raised.value.request_id.startswith("req_")


async def test_our_own_key_is_masked_where_an_upstream_repeats_it():
    body = b'{"error": {"message": "Incorrect API key provided: sk-upstream-1"}}'
    script = answers("401 Unauthorized", "X-Echo: Bearer sk-upstream-1", body=body)
    async with upstream(script) as double, weir(double.url, settings="api_key: sk-upstream-1") as proxy:
        answer = await wire.fetch(proxy.url, POST)
    assert (answer.status, answer.body) == (401, body.replace(b"sk-upstream-1", b"***"))
    assert b"sk-upstream" not in repr(answer.head).encode()


BABBLE = {
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "300 KB of header": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"v" * 3000) for n in range(100)),
    "a head without an end": b"HTTP/1.1 200 OK\r\nContent-",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BABBLE)
async def test_an_upstream_that_speaks_no_http_is_a_502(name):
    async with upstream(says(BABBLE[name], closes=True)) as double, weir(double.url) as proxy:
        answer = await wire.fetch(proxy.url, POST)
        error = orjson.loads(answer.body)["error"]
        assert (answer.status, error["type"]) == (502, "upstream_error")
        assert "upstream 'up'" in error["message"]
        assert await at_rest(proxy) == {"upstream_error": 1}
        assert len(double.requests) == 1


@pytest.mark.parametrize("sent", [POST, STREAM, asks("GET /v1/models")], ids=["chat", "stream", "models"])
async def test_an_upstream_that_is_not_there_is_a_502_that_names_it(sent):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with weir(f"http://127.0.0.1:{port}/secret-path") as proxy:
        answer = await wire.fetch(proxy.url, sent)
        error = orjson.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (502, "upstream_unreachable")
        assert error["message"] == "upstream 'up' cannot be reached: connection refused"
        assert await at_rest(proxy) == {"upstream_error": 1}


async def test_a_name_that_does_not_resolve_is_a_502_too():
    async with weir("http://nowhere.invalid:1") as proxy:
        answer = await wire.fetch(proxy.url, POST)
    assert (
        orjson.loads(answer.body)["error"]["message"] == "upstream 'up' cannot be reached: its name cannot be resolved"
    )


async def silent(connection: Wire) -> None:
    await connection.read()
    await connection.left()


@pytest.mark.parametrize("sent", [POST, STREAM, asks("GET /v1/models")], ids=["chat", "stream", "models"])
async def test_an_upstream_that_does_not_begin_is_a_504(sent):
    async with upstream(silent) as double, weir(double.url, settings="timeouts: {first_byte: 100ms}") as proxy:
        answer = await wire.fetch(proxy.url, sent)
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (504, "upstream_timeout")
        assert await at_rest(proxy) == {"upstream_error": 1}
        async with asyncio.timeout(wire.SECONDS):
            await double.wires[0].has_left.wait()


@pytest.mark.parametrize("idle", ["none", "10s"])
async def test_silence_below_the_limit_passes(idle):
    """Before the first byte and between events; a limit bounds each silence, not their sum."""

    async def script(connection: Wire) -> None:
        await connection.read()
        await asyncio.sleep(0.2)
        await connection.send(sse.CHUNKED + chunk(TOLD[0]))
        await asyncio.sleep(3 if idle == "none" else 0.2)
        await connection.send(chunk(TOLD[1]))
        await asyncio.sleep(0.2)
        await connection.send(chunk(FINISH + DONE) + LAST)

    timeouts = f"timeouts: {{first_byte: {idle}, idle: {idle}}}"
    async with upstream(script) as double, weir(double.url, settings=timeouts) as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
    assert (answer.body, answer.is_whole) == (TOLD[0] + TOLD[1] + FINISH + DONE, True)


async def test_comments_end_a_silence():
    """An upstream that says `: processing` is not silent; the answer's whole time may pass the limit many times."""

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(sse.CHUNKED)
        for _ in range(10):
            await asyncio.sleep(0.25)
            await connection.send(chunk(b": processing\n\n"))
        await connection.send(chunk(FINISH + DONE) + LAST)

    async with upstream(script) as double, weir(double.url, settings="timeouts: {idle: 2s}") as proxy:
        answer = await wire.fetch(proxy.url, STREAM)
    assert (answer.body, answer.is_whole) == (b": processing\n\n" * 10 + FINISH + DONE, True)
