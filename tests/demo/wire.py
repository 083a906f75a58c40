"""HTTP/1.1 as bytes, for what an SDK hides: framing, cut connections, leaving early."""

import asyncio
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "host: demo", "connection: close", f"content-type: {content_type}"]
    return "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body


async def exchange(
    url: str, method: str, path: str, body: bytes = b"", content_type: str = "application/json"
) -> tuple[int, bytes, bytes]:
    """Status, head, and the body with its framing."""
    async with asyncio.timeout(20), connection(url) as (reader, writer):
        writer.write(request(method, path, body, content_type))
        head, _, rest = (await reader.read(-1)).partition(b"\r\n\r\n")
        return int(head.split()[1]), head, rest


async def ask(url: str, method: str, path: str, payload: Any = None) -> tuple[int, Any]:
    status, _, body = await exchange(url, method, path, b"" if payload is None else orjson.dumps(payload))
    return status, orjson.loads(body)


def unchunked(body: bytes) -> tuple[list[bytes], bool]:
    """The chunks, and whether the last one ended the body."""
    chunks = []
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return chunks, True
        chunks.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return chunks, False


async def stats(url: str) -> dict[str, int]:
    return (await ask(url, "GET", "/demo/stats"))[1]


async def until(url: str, seen: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """The stats as soon as they are as expected."""
    async with asyncio.timeout(20):
        while not seen(found := await stats(url)):  # noqa: ASYNC110 - the server is asked over HTTP, it tells nobody
            await asyncio.sleep(0.02)
    return found
