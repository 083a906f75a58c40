"""Weir with a cache in front of one scripted upstream, and callers by their API keys."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import TYPE_CHECKING, Any

import openai
import orjson

from proxy import testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from proxy import app
    from proxy.testing import Answer, Received, Script, Wire

ASK = {"model": "m", "messages": [{"role": "user", "content": "What is a weir?"}]}
STREAM = {**ASK, "stream": True}
SAID = testing.chat("A weir stands in a stream")
EVENTS = testing.chat_events(["A", "weir", "stands", "in", "a", "stream"])
USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
PRICES = "models: {m: {input: '1', output: '2'}}\n"


class House:
    def __init__(self, weir: app.Weir, upstream: testing.Upstream, log: io.BytesIO, sdk: openai.AsyncOpenAI) -> None:
        self.weir, self.upstream, self.log, self.sdk = weir, upstream, log, sdk

    @property
    def calls(self) -> int:
        """How often the upstream was asked."""
        return len(self.upstream.requests)

    async def ask(self, body: Any = None, *, key: str = "ada", path: str = testing.CHAT, **fields: str) -> Answer:
        """By the caller `key`; `fields` are further header fields, `_` for `-`."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return await testing.ask(self.weir, ASK if body is None else body, path=path, headers=headers)

    async def results(self, *bodies: Any, **fields: str) -> list[str]:
        """What the cache says of these requests, one after the other."""
        return [(await self.ask(body, **fields)).headers["x-weir-cache"] for body in bodies]

    def counted(self, name: str) -> dict[str, float]:
        """A metric's samples, by the text between the braces."""
        self.weir.gateway.settle()
        found = {}
        for line in self.weir.metrics.page().decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                labels, _, value = line.removeprefix(name).rpartition(" ")
                found[labels.strip("{}")] = float(value)
        return found

    def lines(self, log: str) -> list[dict[str, Any]]:
        """Once Weir has stopped."""
        told = [orjson.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in told if line["log"] == log]


@contextlib.asynccontextmanager
async def house(
    script: Script,
    *,
    before: tuple[Any, ...] = (),
    behind: tuple[Any, ...] = (),
    settings: str = "",
    targets: str = "[up]",
    other: str = "[up]",
    **cache: Any,
) -> AsyncIterator[House]:
    """`before` and `behind` are plugins of the chain, `cache` its settings, `settings` further keys of the upstream.

    `other`: the targets of a second route, which takes nothing by itself.
    """
    log = io.BytesIO()
    async with testing.upstream(script) as upstream:
        plugins = orjson.dumps([*before, {"cache": cache}, *behind]).decode()
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1"{", " if settings else ""}{settings}}}}}\n'
            f"plugins: {plugins}\n"
            f"routes: [{{name: other, match: {{path: /other}}, targets: {other}}}, {{name: main, targets: {targets}}}]\n"
        )
        async with testing.configured(text, log) as weir, client(weir) as sdk:
            yield House(weir, upstream, log, sdk)


def client(weir: app.Weir) -> openai.AsyncOpenAI:
    """The official one, of the caller `ada`."""
    return openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="ada", max_retries=0)


class Gate:
    """A script that sends nothing until it is told to, and then each piece when it is told to."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.sent = 0
        self.wires: list[Wire] = []
        self._allowed = asyncio.Semaphore(0)

    def open(self, count: int) -> None:
        for _ in range(count):
            self._allowed.release()

    def open_all(self) -> None:
        self.open(len(self.pieces) - self.sent)

    async def __call__(self, received: Received, wire: Wire) -> None:
        self.wires.append(wire)
        for piece in self.pieces:
            await self._allowed.acquire()
            await wire.send(piece)
            self.sent += 1


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def gated(*events: bytes) -> Gate:
    """A stream: its head, each event, its end."""
    return Gate(HEAD, *map(chunk, events), b"0\r\n\r\n")


def usage_event(usage: Mapping[str, int] = USAGE) -> bytes:
    told = {"id": "chatcmpl-1", "created": 1760000000, "model": "m", "object": "chat.completion.chunk", "choices": []}
    return b"data: %b\n\n" % orjson.dumps({**told, "usage": usage})
