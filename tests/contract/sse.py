"""Event streams for the contract's tables, and an upstream that sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from proxy import testing
from tests.contract.double import CHAT, asks

if TYPE_CHECKING:
    from tests.contract.double import Script, Wire

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
STREAM = asks(f"POST {CHAT}", "Content-Type: application/json", body=b'{"model": "m", "stream": true, "messages": []}')
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
TOLD = [
    testing.chat_event({"role": "assistant", "content": ""}),
    'data: {"id":"1","choices":[{"index":0,"delta":{"content":"漢字 Grüße ☕ %s"}}]}\n\n'.replace(
        "%s", FAMILY
    ).encode(),
    testing.chat_event({"content": " wörld"}),
]
FINISH = testing.chat_event({}, "stop")
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
WHOLE = b"".join([*TOLD, FINISH, USAGE, DONE])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streams(*pieces: bytes, ends: bool = True) -> Script:
    """A chunked event stream, each piece a chunk and a write of its own; with `ends` it ends in order."""

    async def script(connection: Wire) -> None:
        await connection.read()
        await connection.send(CHUNKED, *map(chunk, pieces))
        if ends:
            await connection.send(LAST)

    return script


def choice(index: int, finish_reason: str | None = None, **delta: str) -> bytes:
    choices = [{"index": index, "delta": delta, "finish_reason": finish_reason}]
    return b"data: %b\n\n" % orjson.dumps({"id": "1", "object": "chat.completion.chunk", "choices": choices})
