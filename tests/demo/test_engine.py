import asyncio

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from proxy.demo import running

from .wire import connection, exchange, request, unchunked

HELLO = [{"role": "user", "content": "Hello"}]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses"]


def body(model: str, *, stream: bool) -> bytes:
    return orjson.dumps({"model": model, "messages": HELLO, "prompt": "Hello", "input": "Hello", "stream": stream})


@pytest.mark.parametrize("path", PATHS)
async def test_demo_cut_drops_the_connection_after_five_tokens(demo: str, path: str):
    status, _, framed = await exchange(demo, "POST", path, body("demo-cut", stream=True))
    chunks, ended = unchunked(framed)
    spoken = [chunk for chunk in chunks if b'"text":"' in chunk or b'"content":"' in chunk or b'"delta":"' in chunk]
    opening = sum(b'"content":""' in chunk or b"part.added" in chunk for chunk in spoken)
    assert (status, ended, len(spoken) - opening) == (200, False, 5)
    assert b"DONE" not in framed


async def test_demo_cut_without_a_stream_never_answers(demo: str):
    async with asyncio.timeout(20), connection(demo) as (reader, writer):
        writer.write(request("POST", "/v1/chat/completions", body("demo-cut", stream=False)))
        assert await reader.read(-1) == b""


async def test_demo_error_breaks_a_stream_with_an_event(client: AsyncOpenAI, demo: str):
    async def listen() -> None:
        async for chunk in await client.chat.completions.create(model="demo-error", messages=HELLO, stream=True):
            assert chunk.choices[0].finish_reason is None

    with pytest.raises(openai.APIError, match="The server had an error"):
        await listen()
    chunks, ended = unchunked((await exchange(demo, "POST", PATHS[0], body("demo-error", stream=True)))[2])
    assert (len(chunks), ended) == (1 + 5 + 1, True)  # the role, the tokens, the error; no [DONE]
    assert chunks[-1].startswith(b'data: {"error":{')


async def test_demo_error_without_a_stream_is_a_500(client: AsyncOpenAI):
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(model="demo-error", messages=HELLO)


@pytest.mark.parametrize("model", ["demo-cut", "demo-error"])
async def test_a_shorter_answer_fails_at_its_end(demo: str, model: str):
    short = orjson.dumps({"model": model, "messages": HELLO, "stream": True, "max_tokens": 2})
    chunks, _ = unchunked((await exchange(demo, "POST", PATHS[0], short))[2])
    heard = [chunk for chunk in chunks if b'"choices"' in chunk]
    assert len(heard) == 1 + 2
    assert all(b'"finish_reason":null' in chunk for chunk in heard)


async def test_demo_429_says_when_to_come_back(client: AsyncOpenAI):
    with pytest.raises(openai.RateLimitError) as refused:
        await client.embeddings.create(model="demo-429", input="Hello")
    headers = refused.value.response.headers
    assert (refused.value.code, headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == (
        "rate_limit_exceeded",
        "1",
        "0",
    )


async def test_demo_500(client: AsyncOpenAI):
    with pytest.raises(openai.InternalServerError) as failed:
        await client.responses.create(model="demo-500", input="Hello")
    assert failed.value.type == "server_error"


async def test_demo_slow_is_silent_for_two_seconds(client: AsyncOpenAI):
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.chat.completions.create(model="demo-slow", messages=HELLO, max_tokens=1, stream=True)
    assert loop.time() - started >= 1.99


async def test_tokens_come_at_the_pace_of_a_model():
    loop = asyncio.get_running_loop()
    async with running(pace=0.01, first_token=0.1) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        started = loop.time()
        stream = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=20, stream=True)
        times = [loop.time() - started async for _ in stream]
        assert times[0] >= 0.099
        assert times[-1] >= 0.099 + 19 * 0.01
        started = loop.time()
        await client.chat.completions.create(model="m", messages=HELLO, max_tokens=20)
        assert loop.time() - started >= 0.099 + 19 * 0.01
