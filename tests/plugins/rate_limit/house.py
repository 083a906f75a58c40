"""Weir with rate_limit behind a plugin that says who calls, and an upstream that answers as it is asked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import orjson

from proxy import testing
from proxy.plugin import PRINCIPAL, Plugin, PluginConfig, Principal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from proxy.app import Weir
    from proxy.plugin import Exchange
    from proxy.testing import Answer, Received, Script, Upstream, Wire

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**ASK, "stream": True}
SERVES = testing.chat("hello world")
UNKNOWN: Any = None


class Somebody(Plugin[PluginConfig]):
    """Whoever the app says it is."""

    provides = (PRINCIPAL,)

    async def on_request(self, exchange: Exchange) -> None:
        name = exchange.request.headers.get("x-team", "bob")
        exchange[PRINCIPAL] = Principal(name, metric=name if name == "bob" else "other")


SOMEBODY = {"somebody": {"use": f"{__name__}:Somebody"}}


@contextlib.asynccontextmanager
async def house(
    script: Script = SERVES, *behind: Mapping[str, Any] | str, routes: list[Any] = UNKNOWN, **limits: Any
) -> AsyncIterator[tuple[Weir, Upstream]]:
    """`limits` are the settings of rate_limit, `behind` what stands after it."""
    async with testing.upstream(script) as upstream:
        config = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {"up": {"base_url": f"{upstream.url}/v1"}},
            "plugins": [SOMEBODY, {"rate_limit": limits}, *behind],
            "routes": [*(routes or []), {"name": "default", "targets": ["up"]}],
        }
        async with testing.configured(orjson.dumps(config).decode()) as weir:
            yield weir, upstream


async def statuses(weir: Weir, times: int, body: Any = None, **headers: str) -> list[int]:
    """One after the other; each is counted before the next one asks."""
    found = []
    for _ in range(times):
        found.append((await ask(weir, body, **headers)).status)
        weir.gateway.settle()
    return found


async def ask(weir: Weir, body: Any = None, path: str = testing.CHAT, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await testing.ask(weir, ASK if body is None else body, path=path, headers=fields)


def standing(answer: Answer) -> dict[str, str]:
    """What the header says of limits, without its prefix."""
    return {
        name.lower().removeprefix("x-ratelimit-"): value
        for name, value in answer.headers.items()
        if name.lower().startswith("x-ratelimit-")
    }


def counted(prompt: int, made: int) -> Script:
    """JSON or a stream of one word per token, with this usage; a stream has it where it was asked for."""
    usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
    whole = testing.chat(" ".join(["word"] * made), usage=usage)
    told = b"data: %b\n\n" % orjson.dumps({"choices": [], "usage": usage})
    events = testing.chat_events(["word"] * made)
    streamed = testing.stream(*events[:-1], told, events[-1])

    async def script(received: Received, wire: Wire) -> None:
        await (streamed if b'"stream":true' in received.body else whole)(received, wire)

    return script


async def leaves(weir: Weir, body: Any, after: int) -> None:
    """An app that goes after so many bytes of its stream."""
    reader, writer = await asyncio.open_connection(*weir.url.removeprefix("http://").split(":"))
    data = orjson.dumps(body)
    head = f"POST {testing.CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    seen = b""
    while seen.count(b"data: ") < after:
        seen += await reader.read(65536)
    writer.transport.abort()
