"""TGI's own clients, unmodified, get through Weir what they get from the server, streamed or not, errors included."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
import requests
import text_generation.errors  # type: ignore[import-untyped]
from huggingface_hub import InferenceClient
from huggingface_hub.errors import OverloadedError, TextGenerationError, ValidationError
from text_generation import AsyncClient, Client
from text_generation.types import Message  # type: ignore[import-untyped]

from proxy import testing
from tests.contract.tgi_double import Tgi

KEY = "hf_0123456789"
SECONDS = 20
Call = Callable[[str], Any]

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    ),  # it closes no connection of a stream
]


@pytest.fixture(scope="module", autouse=True)
def _open_connections() -> Iterator[None]:
    """They are let go of here, where that is no fault, and not within some later test."""
    yield
    gc.collect()


def client(root: str) -> Any:
    return Client(root, headers={"authorization": f"Bearer {KEY}"}, timeout=SECONDS)


def hub(root: str) -> InferenceClient:
    return InferenceClient(model=root, token=KEY, timeout=SECONDS)


def run(using: Callable[[Any], Any]) -> Call:
    """With text-generation's asynchronous client."""
    headers = {"authorization": f"Bearer {KEY}"}
    return lambda root: asyncio.run(using(AsyncClient(root, headers=headers, timeout=SECONDS)))


async def listed(stream: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in stream]


def hub_text(prompt: str, **asked: Any) -> Call:
    """With the route of the client's own, and what it makes of it."""
    return lambda root: plain(hub(root).text_generation(prompt, **asked))


def plain(said: Any) -> Any:
    return said if isinstance(said, str) or hasattr(said, "generated_text") else [str(each) for each in said]


SAID = [Message(role="user", content="Hi")]
ASKED = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]

CALLS: dict[str, Call] = {
    "generate": lambda root: client(root).generate("Hi you", max_new_tokens=4, decoder_input_details=True),
    "generate, full text": lambda root: client(root).generate("Hi", return_full_text=True, stop_sequences=["x"]),
    "generate_stream": lambda root: list(client(root).generate_stream("Hi ☕", max_new_tokens=7)),
    "async generate": run(lambda to: to.generate("Hi you", seed=3)),
    "async generate_stream": run(lambda to: listed(to.generate_stream("Hi you"))),
    "chat": lambda root: client(root).chat(SAID, max_tokens=3),
    "async chat": run(lambda to: to.chat(SAID)),
    "hub, text": hub_text("Hi"),
    "hub, details": hub_text("Hi", details=True, max_new_tokens=3, decoder_input_details=True),
    "hub, stream": hub_text("Hi", stream=True),
    "hub, stream of details": hub_text("Hi", stream=True, details=True, max_new_tokens=2),
    "hub, chat": lambda root: hub(root).chat_completion(ASKED, max_tokens=3),
    "hub, chat stream": lambda root: list(hub(root).chat_completion(ASKED, stream=True)),
    "hub, tools": lambda root: hub(root).chat_completion(ASKED, tools=TOOLS),
    "hub, tool stream": lambda root: list(hub(root).chat_completion(ASKED, tools=TOOLS, stream=True)),
    "info": lambda root: requests.get(f"{root}/info", timeout=SECONDS).json(),
    "health": lambda root: requests.get(f"{root}/health", timeout=SECONDS).status_code,
    "metrics": lambda root: requests.get(f"{root}/metrics", timeout=SECONDS).text,
    "tokenize": lambda root: posted(root, "/tokenize", {"inputs": "Hi you"}),
    "chat_tokenize": lambda root: posted(root, "/chat_tokenize", {"messages": ASKED}),
    "invocations": lambda root: posted(root, "/invocations", {"inputs": "Hi you", "parameters": {"details": True}}),
}

REFUSED: dict[str, tuple[Call, type[Exception]]] = {
    "overloaded": (lambda root: client(root).generate("overloaded"), text_generation.errors.OverloadedError),
    "failed": (lambda root: client(root).generate("failed"), text_generation.errors.GenerationError),
    "invalid": (lambda root: client(root).generate("invalid"), text_generation.errors.ValidationError),
    "incomplete": (
        lambda root: client(root).generate("incomplete"),
        text_generation.errors.IncompleteGenerationError,
    ),
    "stream, overloaded": (
        lambda root: list(client(root).generate_stream("overloaded")),
        text_generation.errors.OverloadedError,
    ),
    "stream, fails later": (
        run(lambda to: listed(to.generate_stream("later: failed"))),
        text_generation.errors.GenerationError,
    ),
    "hub, overloaded": (hub_text("overloaded"), OverloadedError),
    "hub, invalid": (hub_text("invalid"), ValidationError),
    "hub, stream": (hub_text("later: failed", stream=True), TextGenerationError),
}


def posted(root: str, path: str, body: Any) -> Any:
    answer = requests.post(root + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=SECONDS)
    return answer.status_code, answer.json()


@contextlib.asynccontextmanager
async def both(settings: str = "", **quirks: Any) -> AsyncIterator[tuple[str, str]]:
    """The server's root, and that of Weir before it."""
    async with testing.upstream(Tgi(api_key=KEY, **quirks).script) as upstream:
        config = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{gpu: {{kind: tgi, base_url: {upstream.url!r}, auth: passthrough{settings}}}}}\n"
            "plugins: [metering, {failover: {max_attempts: 2}}, {circuit_breaker: {fail_max: 100}}]\n"
            "routes: [{name: default, targets: [gpu]}]\n"
        )
        async with testing.configured(config) as weir:
            yield upstream.url, weir.url


async def called(call: Call, root: str) -> Any:
    def quietly() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package speaks pydantic 1's dialect
            return call(root)

    return await asyncio.to_thread(quietly)


@pytest.mark.parametrize(
    "quirks", [{}, {"space": False, "done": False, "comments": 1, "pieces": 40}], ids=["3.x", "1.x, in pieces"]
)
async def test_clients_get_the_same(quirks: dict[str, Any]) -> None:
    async with both(", normalize: false", **quirks) as (direct, weir):
        for name, call in CALLS.items():
            assert (name, await called(call, weir)) == (name, await called(call, direct))


async def test_normalized_chats_differ_in_what_was_repaired() -> None:
    async with both() as (direct, weir):
        for name, call in CALLS.items():
            through, straight = await called(call, weir), await called(call, direct)
            if "chat" not in name and "tool" not in name:
                assert (name, through) == (name, straight)
        chunks = await called(CALLS["hub, tool stream"], weir)
        whole = await called(CALLS["hub, tools"], weir)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"
    assert (
        "".join(chunk.choices[0].delta.tool_calls[0].function.arguments for chunk in chunks[:-1]) == '{ "city": "Rome"}'
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].id


@pytest.mark.parametrize("settings", ["", ", normalize: false"], ids=["normalized", "as it came"])
async def test_clients_raise_the_same(settings: str) -> None:
    async with both(settings) as (direct, weir):
        for name, (call, exception) in REFUSED.items():
            said = []
            for root in (direct, weir):
                with pytest.raises(exception) as raised:
                    await called(call, root)
                said.append(str(raised.value))
            assert (name, said[1]) == (name, said[0])


CHATS = {"overloaded": "OverloadedError", "failed": "GenerationError", "invalid": "ValidationError"}


async def test_for_chats_its_client_raises_the_same_although_the_error_is_openais() -> None:
    async with both() as (direct, weir):
        for prompt, name in CHATS.items():
            for root in (direct, weir):
                asked = [Message(role="user", content=prompt)]
                with pytest.raises(getattr(text_generation.errors, name)):
                    await called(lambda root, asked=asked: client(root).chat(asked), root)


async def test_what_the_framework_refuses_is_an_error_that_its_client_knows() -> None:
    """Direct, text-generation stumbles over a body that is no JSON."""
    async with both() as (direct, weir):
        long = "x" * 30_000
        with pytest.raises(text_generation.errors.ValidationError, match="length limit exceeded"):
            await called(lambda root: client(root).generate(long), weir)
        with pytest.raises(requests.exceptions.JSONDecodeError):
            await called(lambda root: client(root).generate(long), direct)


async def test_weirs_own_refusals_are_known_by_their_status() -> None:
    async with testing.configured(
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        'upstreams: {gpu: {kind: tgi, base_url: "http://127.0.0.1:9"}}\n'
        "plugins: [{rate_limit: {by: route, requests: 1/hour}}]\nroutes: [{name: default, targets: [gpu]}]\n"
    ) as weir:
        for exception in (text_generation.errors.UnknownError, text_generation.errors.RateLimitExceededError):
            with pytest.raises(exception):
                await called(lambda root: client(root).generate("Hi"), weir.url)


async def test_openais_client_is_told_what_failed() -> None:
    async with both() as (_, weir), openai.AsyncOpenAI(base_url=f"{weir}/v1", api_key=KEY, max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "too long"}]
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(model="tgi", messages=asked, stream=True)
    assert raised.value.code == "context_length_exceeded"
