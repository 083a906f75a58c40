"""For the tests of plugins: a real Weir in this process, and a scripted upstream behind it, over real sockets.

async with testing.upstream(testing.chat("hello")) as upstream, testing.weir(upstream, plugins=["shout"]) as weir:
    answer = await testing.ask(weir, {"model": "m", "messages": []})  # or any client against weir.url + "/v1"
    assert upstream.last.headers["x-shout"] == "yes"
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import pathlib
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httptools
import orjson
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from proxy import app
from proxy.exchange import Exchange
from proxy.lines import Lines
from proxy.request import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    Script = Callable[["Received", "Wire"], Awaitable[None]]

CHAT = "/v1/chat/completions"


@dataclass
class Received:
    """A request as the upstream got it: header fields and body are the bytes from the wire, in order."""

    method: str = ""
    target: str = ""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """By lower-case name, the last of repeated ones."""
        return {name.decode().lower(): value.decode() for name, value in self.fields}

    def json(self) -> Any:
        return orjson.loads(self.body)


class Wire:
    """The upstream's end of a connection. `gone` is set when the other side has left."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.gone = asyncio.Event()

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Each piece in a write of its own; nothing more once the other side has left."""
        for piece in pieces:
            if self.transport.is_closing():
                return
            self.transport.write(piece)
            await asyncio.sleep(pause)

    def close(self) -> None:
        """FIN, after what was sent."""
        self.transport.close()

    def reset(self) -> None:
        """The connection is torn down; what was not flushed is lost."""
        self.transport.abort()


class Upstream:
    """A scripted server: `requests` in the order of their arrival, `connections` counted."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = ""
        self.requests: list[Received] = []
        self.wires: list[Wire] = []

    @property
    def connections(self) -> int:
        return len(self.wires)

    @property
    def last(self) -> Received:
        return self.requests[-1]


class _Connection(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._received = Received()
        self._work: set[asyncio.Task[None]] = set()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = Wire(cast("asyncio.Transport", transport))  # uvloop's is one only in what it can do
        self._upstream.wires.append(self._wire)

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.gone.set()
        for task in self._work:
            task.cancel()

    def on_url(self, url: bytes) -> None:
        self._received.target += url.decode("utf-8", "surrogateescape")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._received.fields.append((name, value))

    def on_body(self, chunk: bytes) -> None:
        self._received.body += chunk

    def on_message_complete(self) -> None:
        received, self._received = self._received, Received()
        received.method = self._parser.get_method().decode()
        self._upstream.requests.append(received)
        task = asyncio.get_running_loop().create_task(self._answer(received))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _answer(self, received: Received) -> None:
        await self._upstream.script(received, self._wire)


@contextlib.asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[Upstream]:
    """A scripted upstream on a free port of 127.0.0.1."""
    server = Upstream(script)
    listening = await asyncio.get_running_loop().create_server(lambda: _Connection(server), "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for wire in server.wires:
            wire.transport.abort()
        await asyncio.sleep(0)


def answer(body: bytes, *, status: int = 200, content_type: str = "application/json", **fields: str) -> Script:
    """A whole answer with a Content-Length; `fields` are further header fields, `_` for `-`."""
    head = _head(status, content_type, {**fields, "content-length": str(len(body))})

    async def script(_: Received, wire: Wire) -> None:
        await wire.send(head + body)

    return script


def stream(*pieces: bytes, pause: float = 0.0, ends: bool = True, **fields: str) -> Script:
    """An event stream, one chunk and one write per piece. `ends=False`: the connection is cut after the last."""
    head = _head(200, "text/event-stream", {**fields, "transfer-encoding": "chunked"})

    async def script(_: Received, wire: Wire) -> None:
        await wire.send(head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), pause=pause)
        if ends:
            await wire.send(b"0\r\n\r\n")
        else:
            wire.close()

    return script


def chat(text: str, *, usage: Mapping[str, Any] | None = None) -> Script:
    """A chat completion that says `text`: JSON, or word by word where the request asks for a stream."""
    counted = usage or {
        "prompt_tokens": 3,
        "completion_tokens": len(text.split()),
        "total_tokens": 3 + len(text.split()),
    }
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    whole = answer(orjson.dumps({**_CHAT, "object": "chat.completion", "choices": [message], "usage": counted}))
    streamed = stream(*chat_events(text.split(" ")))

    async def script(received: Received, wire: Wire) -> None:
        await (streamed if b'"stream":true' in received.body.replace(b" ", b"") else whole)(received, wire)

    return script


def chat_events(words: Iterable[str], *, ends: bool = True) -> list[bytes]:
    """The events of a streamed chat, one per word; with `ends` a finish chunk and `[DONE]`."""
    events = [chat_event({"content": word if place == 0 else f" {word}"}) for place, word in enumerate(words)]
    return [*events, chat_event({}, "stop"), b"data: [DONE]\n\n"] if ends else events


def chat_event(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return b"data: %b\n\n" % orjson.dumps({**_CHAT, "object": "chat.completion.chunk", "choices": [choice]})


@contextlib.asynccontextmanager
async def weir(
    upstream: Upstream, plugins: Iterable[Any] = (), *, settings: str = "", server: str = ""
) -> AsyncIterator[app.Weir]:
    """A running Weir in front of one upstream.

    `plugins` is the YAML list as data; `settings` are further keys of the upstream's block, `server` of the server's.
    """
    listed = orjson.dumps(list(plugins)).decode()
    text = (
        f'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"{", " if server else ""}{server}}}\n'
        f'upstreams: {{up: {{base_url: "{upstream.url}/v1"{", " if settings else ""}{settings}}}}}\n'
        f"plugins: {listed}\nroutes: [{{name: default, targets: [up]}}]\n"
    )
    async with configured(text) as running:
        yield running


@contextlib.asynccontextmanager
async def configured(text: str, stdout: io.BytesIO | None = None) -> AsyncIterator[app.Weir]:
    """A running Weir with that config.yaml, its access lines in `stdout`; raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "config.yaml"
        file.write_text(text)
        async with app.running(app.Plan.load(file), Lines(stdout or io.BytesIO())) as running:
            yield running


@dataclass(frozen=True)
class Answer:
    """What the app got. `is_whole` is False where the connection was cut before the body's end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool

    def json(self) -> Any:
        return orjson.loads(self.body)


async def ask(weir: app.Weir, body: Any, *, path: str = CHAT, headers: Mapping[str, str] | None = None) -> Answer:
    """One POST of `body` as JSON, on a connection of its own; by header name in any case."""
    fields = {"content-type": "application/json", **(headers or {})}
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as client,  # noqa: TID251 - this is an app, not the proxy
        client.post(weir.url + path, data=data, headers=fields) as answer,
    ):
        came, is_whole = bytearray(), True
        try:
            async for chunk in answer.content.iter_any():
                came += chunk
        except aiohttp.ClientError:
            is_whole = False
        return Answer(answer.status, answer.headers, bytes(came), is_whole)


def exchange(
    method: str = "POST", target: str = CHAT, *, headers: Mapping[str, str] | None = None, body: bytes = b"{}"
) -> Exchange:
    """An exchange for calling a hook by hand."""
    fields = CIMultiDictProxy(CIMultiDict({"content-type": "application/json", **(headers or {})}))
    return Exchange("req_test", Request(method, target, fields, body=body))


def _head(status: int, content_type: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


_CHAT = {"id": "chatcmpl-1", "created": 1760000000, "model": "m"}
