"""An app and an upstream, joined after a 101: what one side sends is written to the other in the callback that read it.

Not a byte is changed, so pings, close codes and subprotocols are the two sides' own business. A FIN is passed on as a
FIN, and the other direction stays open; a reset is passed on as a reset. Frames are watched after the write: what
closes the connection tells how it ended, and where usage is asked for, the server's messages are read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.errors import Interrupted, Outcome
from proxy.realtime import Session
from proxy.websocket import GOING_AWAY, NO_CODE, NORMAL, Frames, close_frame

if TYPE_CHECKING:
    from proxy.downstream import Downstream
    from proxy.errors import ProxyError
    from proxy.exchange import Exchange
    from proxy.headers import Fields
    from proxy.upstream.incoming import Incoming
    from proxy.upstream.switched import Switched

MAX_MESSAGE = 2**20
"""Longer messages are not held for their usage, in bytes."""
LINGER_SECONDS = 5.0
"""After one side's FIN the other may be silent for so long."""

_ORDERLY = frozenset({NORMAL, GOING_AWAY, NO_CODE})


class Tunnel:
    """`outcome` is None until it is known: by the first close frame, else by who ended."""

    __slots__ = (
        "_app",
        "_app_is_open",
        "_down",
        "_downstream",
        "_exchange",
        "_incoming",
        "_lingers",
        "_over",
        "_passed",
        "_sent",
        "_session",
        "_socket",
        "_up",
        "_upstream_is_open",
        "outcome",
    )

    def __init__(self, exchange: Exchange, downstream: Downstream, incoming: Incoming) -> None:
        self.outcome: Outcome | None = None
        self._exchange = exchange
        self._downstream = downstream
        assert downstream.app is not None
        self._app = downstream.app
        self._incoming = incoming
        self._session = Session(exchange)
        self._down = Frames(MAX_MESSAGE if exchange.chain.reads_usage else 0)
        self._up = Frames(0)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._socket: Switched | None = None
        self._app_is_open = self._upstream_is_open = True
        self._lingers: asyncio.TimerHandle | None = None
        self._sent = self._passed = 0

    async def run(self) -> None:
        """Returns when both sides have ended, or one was lost; the app's connection is left to the edge then."""
        self._downstream.source = self
        self._incoming.attach(self)
        try:
            if self._incoming.error is None:
                self._socket = self._incoming.switch(self)
                self._app.join(self)
            await self._over
        finally:
            self._downstream.source = None
            if self._lingers is not None:
                self._lingers.cancel()
        if self._socket is not None:
            self._socket.close()

    # -- the upstream's side

    def feed(self, chunk: bytes) -> None:
        self._downstream.write(chunk)
        for message in self._down.feed(chunk):
            self._session.see(message)
        code = self._down.close_code
        if code in _ORDERLY:
            self._ended_as(Outcome.OK)
        elif code is not None:
            self._break(Interrupted(f"{self._upstream()} closed the WebSocket with code {code}"))

    def end(self, trailers: Fields) -> None:
        """The upstream's FIN."""
        del trailers
        if self._down.is_amid:
            self._break(Interrupted(f"{self._upstream()} ended in the middle of a message"))
        self._ended_as(Outcome.OK)
        self._close_down()

    def fail(self, error: ProxyError) -> None:
        """The upstream was lost, or its time is up; after a close frame that is an end like any other."""
        if self._over.done():
            return
        if self._down.close_code is not None:
            self.end([])
        elif self._upstream_is_open:
            self._break(error)
            self._cut()

    def hold(self) -> None:
        """The upstream reads too slowly."""
        self._app.pause_reading()

    def release(self) -> None:
        self._app.resume_reading()

    # -- the app's side

    def send(self, data: bytes) -> None:
        if self._socket is None or self._socket.is_closing:
            return
        self._socket.write(data)
        self._sent += len(data)
        self._up.feed(data)
        if self._up.close_code is not None:
            self._ended_as(Outcome.OK if self._up.close_code in _ORDERLY else Outcome.CLIENT_ABORT)

    def app_ended(self) -> bool:
        """The app's FIN; whether its connection stays open for what the upstream still says."""
        if self._over.done() or self._socket is None:
            return False
        self._app_is_open = False
        self._ended_as(Outcome.CLIENT_ABORT)
        if not self._socket.end():
            self._upstream_is_open = False
        self._settle()
        return True

    def pause(self) -> None:
        """The app reads too slowly."""
        self._incoming.pause()

    def resume(self) -> None:
        self._incoming.resume()

    # -- the end

    def interrupt(self, error: ProxyError) -> None:
        """Weir stops: the app is told so where a frame may stand, and may answer; else it is cut."""
        self._break(error)
        if self._upstream_is_open and self._down.close_code is None:
            if not self._down.at_boundary:
                self._cut()
            else:
                self._downstream.write(close_frame(GOING_AWAY))
        self._incoming.cancel()
        self._close_down()

    def finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _cut(self) -> None:
        self._downstream.reset()
        self.finish()

    def _close_down(self) -> None:
        """No more comes for the app; what it still has to say is heard."""
        if self._upstream_is_open and not self._over.done():
            self._upstream_is_open = False
            self._downstream.half_close()
            self._settle()

    def _ended_as(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self.outcome = outcome

    def _break(self, error: ProxyError) -> None:
        if self.outcome is None:
            self.outcome, self._exchange.error = Outcome.STREAM_INTERRUPTED, error

    def _upstream(self) -> str:
        return f"upstream '{self._exchange.attempts[-1].target.upstream}'"

    def _settle(self) -> None:
        if not (self._app_is_open or self._upstream_is_open):
            self.finish()
        elif self._lingers is None:
            self._linger()

    def _linger(self) -> None:
        """One side has ended: the other may take its time as long as something passes."""
        passed = self._sent + self._downstream.sent
        if self._lingers is not None and passed == self._passed:
            self.finish()
            return
        self._passed = passed
        self._lingers = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._linger)
