"""An upstream's socket after its 101: bytes as they come, both ways, pushed; no parser and no `idle` limit any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.headers import Fields

FAREWELL_SECONDS = 5.0
"""How long an upstream may take to read what it was sent before the end."""


class Peer(Protocol):
    """Whom the bytes are for. `end` is the upstream's FIN; between `hold` and `release` it reads too slowly."""

    def feed(self, chunk: bytes) -> None: ...
    def end(self, trailers: Fields) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...


class Switched(asyncio.Protocol):
    __slots__ = ("_on_lost", "_peer", "_transport")

    def __init__(self, transport: asyncio.Transport, peer: Peer, on_lost: Callable[[Exception | None], None]) -> None:
        self._transport = transport
        self._peer = peer
        self._on_lost = on_lost

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def end(self) -> bool:
        """Send a FIN; whether the upstream can still be heard then. TLS knows no half of a connection."""
        if self._transport.is_closing():
            return False
        if not self._transport.can_write_eof():
            self.close()
            return False
        self._transport.write_eof()
        return True

    def close(self) -> None:
        """What was written still goes out, if it is read soon."""
        if not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._transport.abort)

    @override
    def data_received(self, data: bytes) -> None:
        self._peer.feed(data)

    @override
    def eof_received(self) -> bool:
        self._peer.end([])
        return self._transport.can_write_eof()

    @override
    def pause_writing(self) -> None:
        self._peer.hold()

    @override
    def resume_writing(self) -> None:
        self._peer.release()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.release()
        self._on_lost(exc)
