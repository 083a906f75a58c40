"""WebSockets as bytes: frames, the handshake around them, and the two ends of one, joined directly or by Weir."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import wire
from tests.contract.double import Upstream, Wire, asks, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
MASK = b"\x37\xfa\x21\x3d"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def frame(opcode: int, payload: bytes = b"", *, mask: bytes = b"", is_final: bool = True, reserved: int = 0) -> bytes:
    size = len(payload)
    short = size if size < 126 else 126 if size < 2**16 else 127
    length = b"" if size < 126 else size.to_bytes(2 if short == 126 else 8, "big")
    head = bytes(((0x80 if is_final else 0) | reserved | opcode, (0x80 if mask else 0) | short))
    return head + length + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if mask else payload


def text(words: str) -> bytes:
    return frame(TEXT, words.encode())


def close(code: int | None = None, reason: str = "", *, mask: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode(), mask=mask)


def handshake(*fields: str, target: str = "/v1/realtime?model=m") -> bytes:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")
    return asks(f"GET {target}", *upgrade, *fields)


def accepted(*fields: bytes) -> bytes:
    return SWITCHED + b"\r\n".join([b"Sec-WebSocket-Accept: " + ACCEPT, *fields, b"", b""])


async def accepts(connection: Wire) -> None:
    """Says 101, and leaves the socket to the test."""
    await connection.send(accepted())
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Ends:
    """`head` is that of the 101 that the app got."""

    app: wire.Client
    server: Wire
    head: wire.Head


@contextlib.asynccontextmanager
async def joined(
    url: str, double: Upstream, sent: bytes = handshake(), *, hold: int = wire.HOLD
) -> AsyncIterator[Ends]:
    """A WebSocket from an app at `url` to the double."""
    async with wire.connected(url, hold=hold) as app:
        await app.send(sent)
        yield Ends(app, double.wires[-1] if double.wires else await _arrived(double), await app.head())


async def _arrived(double: Upstream) -> Wire:
    await wire.until(lambda: double.requests)
    return double.wires[-1]


@contextlib.asynccontextmanager
async def direct() -> AsyncIterator[Ends]:
    async with upstream(accepts) as double, joined(double.url, double) as ends:
        yield ends


async def rest(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """What still comes, and how the connection ends: FIN or RST."""
    seen = b""
    try:
        while chunk := await reader.read(2**20):
            seen += chunk
    except ConnectionError:
        return seen, "RST"
    return seen, "FIN"
