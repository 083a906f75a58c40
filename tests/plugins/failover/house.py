"""Weir with failover in front of scripted upstreams `a`, `b`, … that are its one route's targets, in this order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import openai
import orjson

from proxy import testing
from tests import wire
from tests.contract import sse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from proxy import app
    from proxy.testing import Answer, Received, Script, Upstream, Wire

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**ASK, "stream": True}
ROLE = testing.chat_event({"role": "assistant", "content": ""})
HELLO = testing.chat_event({"content": "hello"})
STOP = testing.chat_event({}, "stop")
DONE = b"data: [DONE]\n\n"
IN_BAND = b'data: {"error": {"message": "the engine died", "type": "server_error", "code": 500}}\n\n'
SERVES = testing.chat("hello world")


def refusal(status: int, code: str = "nope", message: str = "no", **fields: str) -> Script:
    """An error in OpenAI's shape."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    return testing.answer(orjson.dumps({"error": error}), status=status, **fields)


DOWN = refusal(500, "server_error", "down")
LIMITED = refusal(429, "rate_limit_exceeded", "slow down")
TOO_LONG = refusal(
    400, "context_length_exceeded", "This model's maximum context length is 8192 tokens. Please reduce the length."
)


def limited(seconds: str) -> Script:
    return refusal(429, "rate_limit_exceeded", "slow down", retry_after=seconds)


async def silent(received: Received, wire: Wire) -> None:
    """Takes the request, and says nothing."""


async def drops(received: Received, wire: Wire) -> None:
    """Takes the request, and closes."""
    wire.close()


def begins(*pieces: bytes) -> Script:
    """A stream that begins so, and then says no more."""

    async def script(received: Received, wire: Wire) -> None:
        await wire.send(sse.CHUNKED, *map(sse.chunk, pieces))

    return script


def slowly(script: Script, seconds: float) -> Script:
    async def slow(received: Received, wire: Wire) -> None:
        await asyncio.sleep(seconds)
        await script(received, wire)

    return slow


class Scripted:
    """Each request its own script, the last for all further; `at` has the loop's time of each."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.at: list[float] = []

    async def __call__(self, received: Received, wire: Wire) -> None:
        self.at.append(asyncio.get_running_loop().time())
        await self._scripts[min(len(self.at), len(self._scripts)) - 1](received, wire)

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)]


@contextlib.asynccontextmanager
async def house(
    *scripts: Script,
    failover: Mapping[str, Any] | None = None,
    before: Sequence[Any] = (),
    behind: Sequence[Any] = (),
    upstream: Mapping[str, Any] | None = None,
    targets: Iterable[Mapping[str, Any]] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    routes: Sequence[str] = (),
    static: str = "",
) -> AsyncIterator[tuple[app.Weir, *tuple[Upstream, ...]]]:
    """`upstream` are further keys of each upstream's block, `targets` those of each target.

    `elsewhere` gives upstreams other addresses; `routes` makes one each, by path, with settings of their own; `static`
    is the text of a last target.
    """
    async with contextlib.AsyncExitStack() as stack:
        names = "abcd"[: len(scripts)]
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        urls = {**{name: up.url for name, up in zip(names, ups, strict=True)}, **(elsewhere or {})}
        more = list(targets or [{}] * len(names))
        listed = [{"upstream": name, **keys} for name, keys in zip(names, more, strict=True)]
        listed += [{"static": static}] if static else []
        config = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {name: {"base_url": f"{url}/v1", **(upstream or {})} for name, url in urls.items()},
            "plugins": [*before, {"failover": dict(failover or {})}, *behind],
            "routes": [*(_route(name, place, listed) for place, name in enumerate(routes)), _main(listed)],
        }
        yield await stack.enter_async_context(testing.configured(orjson.dumps(config).decode())), *ups


def _main(targets: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": "main", "targets": targets}


def _route(name: str, place: int, targets: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"failover": {"max_attempts": 3 + place}}
    return {"name": name, "match": {"path": f"/{name}"}, "targets": targets, "plugins": own}


def way(answer: Answer) -> tuple[int, str, str]:
    """Status, upstream, number of attempts."""
    return answer.status, answer.headers["x-weir-upstream"], answer.headers["x-weir-attempts"]


def sdk(weir: app.Weir) -> openai.AsyncOpenAI:
    """The official client, without its own retries."""
    return openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="any", max_retries=0)


async def idle(weir: app.Weir) -> dict[str, int]:
    """What is under way at each upstream once nothing is at Weir."""
    await wire.until(lambda: not weir.in_flight)
    return {name: upstream.in_flight for name, upstream in weir.gateway.upstreams.items()}
