"""The app's side of one exchange: writes the head, frames the body, and never ends a broken answer as if whole."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.headers import Fields

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
FAREWELL_SECONDS = 5.0
MAX_UNSENT = 8 * 2**20
"""What is read for an app that has gone (`on_disconnect: drain`), in bytes."""

_BODILESS = frozenset({204, 304})
_AT_ONCE = struct.pack("ii", 1, 0)


class Source(Protocol):
    """What feeds a response: told when the app reads too slowly, is not there any more, or Weir stops."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def finish(self) -> None: ...
    def interrupt(self, error: ProxyError) -> None: ...


class Sink(Protocol):
    """Takes what the app sends after a 101. `app_ended`, its FIN, says whether the connection stays open."""

    def send(self, data: bytes) -> None: ...
    def app_ended(self) -> bool: ...


class App(Protocol):
    """The reading side of a connection that may switch protocols."""

    def join(self, sink: Sink) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Downstream:
    """Writes once per call; after the app has gone, into the void. `sent` and `unsent` count the body's bytes.

    The head waits for the body's first bytes, so that a short answer is one write; `flush` sends it without.
    """

    __slots__ = (
        "_head",
        "_is_http11",
        "_method",
        "_transport",
        "_wants_body",
        "app",
        "is_chunked",
        "is_cut",
        "is_early",
        "is_started",
        "keep_alive",
        "sent",
        "source",
        "unsent",
    )

    def __init__(self, transport: asyncio.Transport, method: str, *, is_http11: bool, keep_alive: bool) -> None:
        self._transport = transport
        self._method = method
        self._is_http11 = is_http11
        self._wants_body = True
        self._head = b""
        self.keep_alive = keep_alive
        self.is_started = False
        self.is_chunked = self.is_early = self.is_cut = False
        self.sent = self.unsent = 0
        self.source: Source | None = None
        self.app: App | None = None

    @property
    def is_gone(self) -> bool:
        return self._transport.is_closing()

    def interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """A 1xx answer, as it came."""
        if self._is_http11 and not self.is_started:
            self._send(_head(status, reason, fields) + b"\r\n")

    def ask_for_body(self) -> None:
        """The answer to `Expect: 100-continue` where the body is wanted here."""
        self.interim(100, b"Continue", [])

    def start(self, status: int, reason: bytes | None, fields: Fields, own: bytes, *, is_framed: bool) -> None:
        """Status, header and Weir's `own` lines; a `reason` of None is HTTP's own.

        `is_framed`: the fields tell the body's length; else its end does.
        """
        self.is_started = True
        self._wants_body = self._method != "HEAD" and status not in _BODILESS
        framing = self._framing() if self._wants_body and not is_framed else b""
        self._head = b"%b%b%b%b\r\n" % (_head(status, reason, fields), own, framing, self._persistence())

    def switch(self, reason: bytes | None, fields: Fields, own: bytes) -> None:
        """A 101: from here on `write` passes bytes as they are."""
        self.is_started, self.keep_alive = True, False
        self._send(_head(101, reason, fields) + own + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")

    def write(self, chunk: bytes) -> None:
        if self._transport.is_closing():
            self.unsent += len(chunk)
            if self.unsent > MAX_UNSENT and self.source is not None:
                self.source.finish()
        elif self._wants_body and chunk:
            self.sent += len(chunk)
            framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if self.is_chunked else chunk
            if self._head:
                framed, self._head = self._head + framed, b""
            self._transport.write(framed)

    def flush(self) -> None:
        """Send the head, if no body has taken it along."""
        head, self._head = self._head, b""
        if head:
            self._send(head)

    def end(self, trailers: Fields) -> None:
        if self.is_chunked and self._wants_body:
            self.flush()
            self._send(b"0\r\n" + b"".join([b"%b: %b\r\n" % field for field in trailers]) + b"\r\n")

    def abort(self) -> None:
        """Close without the end that HTTP asks for: what was written arrives, and the app sees that it was cut.

        An app that does not even read that is dropped after FAREWELL_SECONDS.
        """
        self.keep_alive, self.is_cut = False, True
        self.flush()
        self._transport.close()
        asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._transport.abort)

    def half_close(self) -> None:
        """A FIN after what was written; the app can still be heard."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def reset(self) -> None:
        """An RST, as the upstream's was: no FIN could be taken for it."""
        if not self._transport.is_closing():
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._transport.abort()

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _framing(self) -> bytes:
        if self._is_http11:
            self.is_chunked = True
            return b"Transfer-Encoding: chunked\r\n"
        self.keep_alive = False
        return b""

    def _persistence(self) -> bytes:
        if not self.keep_alive:
            return b"Connection: close\r\n"
        return b"" if self._is_http11 else b"Connection: keep-alive\r\n"


def _head(status: int, reason: bytes | None, fields: Fields) -> bytes:
    reason = _PHRASES.get(status, b"") if reason is None else reason
    lines = b"\r\n".join([b"HTTP/1.1 %d %b" % (status, reason), *map(b": ".join, fields)])
    return lines + b"\r\n"
