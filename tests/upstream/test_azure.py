"""Azure OpenAI: where a path goes, with which deployment and version, and that its streams pass as they come."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import orjson
import pytest

from proxy import config, testing
from proxy.errors import ClientFault
from proxy.upstream.azure import LONGEST_NAME, OF_A_DEPLOYMENT, Azure
from tests import wire

VERSION = "api-version=2024-10-21"
ROOT = "https://name.openai.azure.com"


def azure(base_url: str = ROOT, **settings: Any) -> Azure:
    return Azure("up", config.Upstream(kind="azure", base_url=base_url, **settings))


def classic(base_url: str = ROOT, **settings: Any) -> Azure:
    return azure(base_url, api_version="2024-10-21", **settings)


# -- where it goes


@pytest.mark.parametrize("path", sorted(OF_A_DEPLOYMENT))
def test_what_a_model_does_is_asked_of_its_deployment(path: str) -> None:
    located = classic().locate(path, "gpt-4o")
    assert located == f"/openai/deployments/gpt-4o/{path.removeprefix('/v1/')}?{VERSION}"


@pytest.mark.parametrize(
    ("target", "located"),
    [
        ("/v1/models", f"/openai/models?{VERSION}"),
        ("/v1/models/org%2Fname:tag", f"/openai/models/org%2Fname:tag?{VERSION}"),
        ("/v1/files?purpose=batch&x=%20", f"/openai/files?purpose=batch&x=%20&{VERSION}"),
        ("/v1/batches/b-1/cancel", f"/openai/batches/b-1/cancel?{VERSION}"),
        ("/v1/responses", f"/openai/responses?{VERSION}"),
        ("/v1/chat/completions/c-1", f"/openai/chat/completions/c-1?{VERSION}"),
        ("/v1/models?api-version=2023-05-15", "/openai/models?api-version=2023-05-15"),
        ("/v1/models?API-Version=2023-05-15", "/openai/models?API-Version=2023-05-15"),
        ("/v1/models?api%2Dversion=2023-05-15", "/openai/models?api%2Dversion=2023-05-15"),
        ("/v1/models?my-api-version=1", f"/openai/models?my-api-version=1&{VERSION}"),
        ("/openai/deployments/d/chat/completions", f"/openai/deployments/d/chat/completions?{VERSION}"),
        (
            "/openai/deployments/d/chat/completions?api-version=v",
            "/openai/deployments/d/chat/completions?api-version=v",
        ),
        ("/v1", "/v1"),
        ("/health?a", "/health?a"),
    ],
)
def test_everything_else_is_asked_of_the_resource(target: str, located: str) -> None:
    assert classic().locate(target) == located


def test_a_gateway_in_front_keeps_its_path() -> None:
    upstream = classic("https://gate.example/openai-eu/")
    assert upstream.locate("/v1/embeddings?a", "e") == f"/openai-eu/openai/deployments/e/embeddings?a&{VERSION}"
    assert upstream.locate("/v1/models") == f"/openai-eu/openai/models?{VERSION}"


@pytest.mark.parametrize(
    ("model", "deployment"),
    [
        ("gpt-4o", "prod-4o"),
        ("gpt-4", "gpt-4"),
        ("GPT-4O", "GPT-4O"),
        ("org/name:tag", "org%2Fname%3Atag"),
        ("a b?c#d&e%2F", "a%20b%3Fc%23d%26e%252F"),
        ("größe☺", "gr%C3%B6%C3%9Fe%E2%98%BA"),
        ("../../secrets", "..%2F..%2Fsecrets"),
        ("a\\b\r\nX: y", "a%5Cb%0D%0AX%3A%20y"),
        ("gpt-4.1_mini~2", "gpt-4.1_mini~2"),
    ],
)
def test_a_model_is_one_segment_of_the_path(model: str, deployment: str) -> None:
    located = classic(deployments={"gpt-4o": "prod-4o"}).locate("/v1/chat/completions", model)
    assert located == f"/openai/deployments/{deployment}/chat/completions?{VERSION}"


@pytest.mark.parametrize("model", [None, "", ".", "..", "m" * (LONGEST_NAME + 1)])
def test_what_names_no_deployment_is_the_clients_fault(model: str | None) -> None:
    with pytest.raises(ClientFault) as refused:
        classic().locate("/v1/chat/completions", model)
    assert (refused.value.status, refused.value.param) == (400, "model")


@pytest.mark.parametrize(
    ("target", "located"),
    [
        ("/v1/chat/completions", "/openai/v1/chat/completions"),
        ("/v1/models?a=1", "/openai/v1/models?a=1"),
        ("/v1/responses", "/openai/v1/responses"),
        ("/health", "/openai/health"),
    ],
)
def test_where_base_url_ends_in_openai_v1_it_is_openais(target: str, located: str) -> None:
    assert azure(f"{ROOT}/openai/v1/").locate(target) == located


def test_a_version_may_be_given_there_too() -> None:
    upstream = azure(f"{ROOT}/openai/v1", api_version="preview")
    assert upstream.locate("/v1/models") == "/openai/v1/models?api-version=preview"
    assert upstream.locate("/v1/models?api-version=v1") == "/openai/v1/models?api-version=v1"


# -- over the wire

FORM = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n'
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}


def house(url: str, settings: str = "api_version: 2024-10-21", targets: str = "[up]") -> str:
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{up: {{kind: azure, base_url: "{url}", api_key: sk-up, {settings}}}}}\n'
        f"routes: [{{name: all, targets: {targets}}}]\n"
    )


async def asked(body: Any, path: str = testing.CHAT, headers: Any = None, **more: Any) -> tuple[testing.Answer, Any]:
    """The answer, and what the upstream received, if anything."""
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.configured(house(upstream.url, **more)) as weir,
    ):
        answer = await testing.ask(weir, body, path=path, headers=headers)
    return answer, upstream.requests[-1] if upstream.requests else None


@pytest.mark.parametrize(
    ("body", "path", "headers", "target"),
    [
        ({"model": "gpt-4o"}, "/v1/chat/completions", {}, "/openai/deployments/gpt-4o/chat/completions"),
        (
            b'{"model": "gpt-4o"}',
            "/v1/completions",
            {"content-type": "text/plain"},
            "/openai/deployments/gpt-4o/completions",
        ),
        (FORM, "/v1/audio/transcriptions", MULTIPART, "/openai/deployments/whisper-1/audio/transcriptions"),
        ({"model": "gpt-4o"}, "/v1/responses", {}, "/openai/responses"),
    ],
)
async def test_the_model_is_the_requests(body: Any, path: str, headers: Any, target: str) -> None:
    answer, received = await asked(body, path, headers)
    assert (answer.status, received.target) == (200, f"{target}?{VERSION}")
    assert received.body == (body if isinstance(body, bytes) else orjson.dumps(body))
    assert received.headers["api-key"] == "sk-up"
    assert "authorization" not in received.headers


async def test_a_targets_model_goes_before_the_requests() -> None:
    answer, received = await asked({"model": "gpt-4o"}, targets="[{upstream: up, model: prod/4o}]")
    assert (answer.status, received.target) == (200, f"/openai/deployments/prod%2F4o/chat/completions?{VERSION}")


async def test_a_model_that_a_plugin_put_in_is_the_requests() -> None:
    plugins = [{"replace": {"use": "tests.test_attempts:Replace"}}]
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        by_model = house(upstream.url).replace("name: all,", 'name: all, match: {model: "*"},')
        async with testing.configured(f"{by_model}plugins: {orjson.dumps(plugins).decode()}\n") as weir:
            assert (await testing.ask(weir, {"model": "gpt-4o"})).status == 200
    assert upstream.last.target == f"/openai/deployments/replaced/chat/completions?{VERSION}"


@pytest.mark.parametrize("body", [{}, {"model": None}, {"model": 7}, {"model": ""}, [], b""])
async def test_a_request_without_a_model_is_400(body: Any) -> None:
    answer, received = await asked(body)
    assert (answer.status, received) == (400, None)
    assert answer.json()["error"] == {
        "message": "the request names no model, and Azure serves models by name",
        "type": "invalid_request_error",
        "code": "invalid_request",
        "param": "model",
    }


async def test_what_is_not_json_is_400() -> None:
    answer, received = await asked(b'{"model": "gpt')
    assert (answer.status, received) == (400, None)
    assert answer.json()["error"]["code"] == "invalid_json"


async def test_a_form_that_is_large_is_read_for_its_model() -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(300_000) + b"\r\n"
    answer, received = await asked(part + FORM, "/v1/audio/translations", MULTIPART)
    assert (answer.status, received.target) == (200, f"/openai/deployments/whisper-1/audio/translations?{VERSION}")
    assert received.body == part + FORM


async def test_uploads_that_need_no_model_stream_through() -> None:
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.configured(house(upstream.url)) as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n", bytes(100_000))
        await wire.until(lambda: upstream.wires)
        await client.send(bytes(100_000))
        assert (await client.answer()).status == 200
    assert upstream.last.target == f"/openai/files?{VERSION}"


async def test_the_key_of_the_v1_api_is_in_the_header_too() -> None:
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        yaml = house(f"{upstream.url}/openai/v1", "max_connections: 10")
        async with testing.configured(yaml) as weir:
            assert (await testing.ask(weir, {"model": "gpt-4o"}, headers={"api-key": "sk-app"})).status == 200
    assert upstream.last.target == "/openai/v1/chat/completions"
    assert [value for name, value in upstream.last.fields if name.lower() == b"api-key"] == [b"sk-up"]


async def test_an_entra_token_goes_as_bearer() -> None:
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        yaml = house(upstream.url).replace("api_key: sk-up", "token: {command: [echo, token-1]}")
        async with testing.configured(yaml) as weir:
            assert (await testing.ask(weir, {"model": "gpt-4o"}, headers={"api-key": "sk-app"})).status == 200
    assert upstream.last.headers["authorization"] == "Bearer token-1"
    assert "api-key" not in upstream.last.headers


# -- its streams

FILTERED = (
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,'
    b'"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}\n\n'
)
LATE = (
    b'data: {"id":"","object":"","created":0,"model":"","choices":[{"index":0,"finish_reason":null,'
    b'"content_filter_results":{},"content_filter_offsets":{"check_offset":1,"start_offset":1,"end_offset":9}}]}\n\n'
)


async def test_filter_results_pass_as_they_came_and_are_neither_first_token_nor_end() -> None:
    first, *rest = testing.chat_events(["Hi", "there"])
    pieces = [FILTERED, first, *rest[:-1], LATE, rest[-1]]

    async def script(received: testing.Received, up: testing.Wire) -> None:
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", FILTERED)
        await asyncio.sleep(0.2)
        await up.send(*pieces[1:])
        up.close()

    log = io.BytesIO()
    async with testing.upstream(script) as upstream, testing.configured(house(upstream.url), log) as weir:
        answer = await testing.ask(weir, {"model": "gpt-4o", "stream": True})
    assert (answer.body, answer.is_whole) == (b"".join(pieces), True)
    entry = orjson.loads(log.getvalue())
    assert entry["outcome"] == "ok"
    assert entry["ttft_ms"] >= 200


async def test_a_stream_that_ends_after_its_filter_results_was_cut() -> None:
    async with testing.upstream(testing.stream(FILTERED)) as upstream, testing.configured(house(upstream.url)) as weir:
        answer = await testing.ask(weir, {"model": "gpt-4o", "stream": True})
    assert answer.body.startswith(FILTERED + b'data: {"error":')
    assert not answer.is_whole
