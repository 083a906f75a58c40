import asyncio

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from proxy.demo import running

from .wire import ask, connection, exchange, request, stats, until

HELLO = [{"role": "user", "content": "Hello"}]
ENDLESS = {"model": "m", "messages": HELLO, "max_tokens": 4096, "ignore_eos": True}


async def test_every_answer_has_the_headers_of_openai(demo: str):
    for method, path in [
        ("GET", "/v1/models"),
        ("GET", "/v1/nowhere"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/health"),
    ]:
        _, head, _ = await exchange(demo, method, path)
        names = {line.split(b":")[0] for line in head.lower().split(b"\r\n")}
        assert {b"x-request-id", b"openai-processing-ms", b"x-ratelimit-limit-requests"} <= names
        assert {b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-requests"} <= names


async def test_request_ids_are_new_each_time(client: AsyncOpenAI):
    first, second = [await client.models.with_raw_response.list() for _ in range(2)]
    assert first.http_response.headers["x-request-id"] != second.http_response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nowhere", 404, "unknown_url"),
        ("GET", "/v1/nowhere/%ff", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_supported"),
        ("GET", "/v1/files/none", 404, None),
    ],
)
async def test_wrong_addresses_are_refused_in_openais_shape(
    demo: str, method: str, path: str, status: int, code: str | None
):
    got, answer = await ask(demo, method, path)
    assert (got, answer["error"]["code"], answer["error"]["type"]) == (status, code, "invalid_request_error")
    assert set(answer["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"model": "\\ud800"}'])
async def test_a_body_that_is_no_json_object_is_refused(demo: str, body: bytes):
    status, _, answer = await exchange(demo, "POST", "/v1/chat/completions", body)
    assert (status, orjson.loads(answer)["error"]["type"]) == (400, "invalid_request_error")


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"file": "text"}'),
        ("multipart/form-data", b"--x--"),
        (FORM, b"--y\r\n\r\n--y--"),
        (FORM, PART + b"batch"),
        (FORM, PART + b"\xff\r\n--x--\r\n"),
    ],
)
async def test_a_form_that_is_none_is_refused(demo: str, kind: str, body: bytes):
    status, _, answer = await exchange(demo, "POST", "/v1/files", body, kind)
    assert (status, orjson.loads(answer)["error"]["type"]) == (400, "invalid_request_error")


async def test_an_unknown_expectation_is_refused(demo: str):
    async with asyncio.timeout(20), connection(demo) as (reader, writer):
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: demo\r\nexpect: wonders\r\nconnection: close\r\n\r\n")
        assert (await reader.read(-1)).startswith(b"HTTP/1.1 417 ")


async def test_a_body_above_64_mib_is_refused(client: AsyncOpenAI):
    with pytest.raises(openai.APIStatusError) as refused:
        await client.moderations.create(input="x" * (64 * 2**20 + 1))
    assert refused.value.status_code == 413
    assert refused.value.type == "invalid_request_error"


async def test_one_key_is_wrong(client: AsyncOpenAI):
    with pytest.raises(openai.AuthenticationError) as refused:
        await client.with_options(api_key="wrong-key").models.list()
    assert refused.value.code == "invalid_api_key"
    assert "wrong-key" not in refused.value.message


async def test_one_model_is_unknown(client: AsyncOpenAI):
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="unknown-model", messages=HELLO)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


async def test_the_stats_count(client: AsyncOpenAI, demo: str):
    assert await stats(demo) == {"requests": 0, "active": 0, "cancelled": 0, "tokens": 0}
    answer = await client.chat.completions.create(model="m", messages=HELLO)
    async for _ in await client.chat.completions.create(model="m", messages=HELLO, stream=True):
        pass
    found = await until(demo, lambda found: found["active"] == 0)
    assert found == {"requests": 2, "active": 0, "cancelled": 0, "tokens": 2 * answer.usage.completion_tokens}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("first_token", [0.0, 60.0])
async def test_a_client_that_leaves_stops_the_generation(stream: bool, first_token: float):
    body = orjson.dumps(ENDLESS | {"stream": stream})
    async with running(pace=0.01, first_token=first_token) as url:
        async with connection(url) as (reader, writer):
            writer.write(request("POST", "/v1/chat/completions", body))
            await until(url, lambda found: found["active"] == 1)
            if stream and not first_token:
                await reader.readuntil(b'"content":"')
        found = await until(url, lambda found: found["active"] == 0)
    assert found["cancelled"] == 1
    assert found["tokens"] < 4096


async def test_streams_go_on_beside_each_other():
    async with running(pace=0.001, first_token=0) as url:
        body = orjson.dumps(ENDLESS | {"stream": True, "max_tokens": 50})
        answers = await asyncio.gather(*(exchange(url, "POST", "/v1/chat/completions", body) for _ in range(50)))
        assert {framed for _, _, framed in answers} == {answers[0][2]}
        assert (await stats(url))["tokens"] == 50 * 50


async def test_it_ends_while_a_client_still_listens():
    async with asyncio.timeout(20):
        async with running(pace=1, first_token=0) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(request("POST", "/v1/chat/completions", orjson.dumps(ENDLESS | {"stream": True})))
            await reader.readuntil(b'"content":"')
        assert b"DONE" not in await reader.read(-1)
        writer.close()
