"""One connection to a Redis: what is asked within a turn of the event loop travels together, answers come in order.

redis-py costs 50 to 75 µs of CPU for each command, this 5 to 15: no task, no lock and no stream reader per command. A
command that is not answered in time fails, and the connection stays: the answer that comes late belongs to the command
that it belongs to.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.store.commands import Command

MOMENT = 0.002
GRACE = 0.001
"""When time is up the loop looks into the socket once more: it may be the loop that was late."""


class Unanswered(Exception):
    """Nobody knows whether the command was carried out."""


class Waiter(Protocol):
    """Who waits for an answer: a future, or less."""

    def done(self) -> bool: ...
    def set_result(self, answer: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Nobody:
    def done(self) -> bool:
        return True

    def set_result(self, answer: Any, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...


NOBODY = Nobody()


class Pipe(asyncio.Protocol):
    def __init__(self, on_late: Callable[[Pipe], None], on_lost: Callable[[Pipe], None], *, timeout: float) -> None:
        """`on_late` is called once for all commands that were found to be late together; `failures` counts those in a
        row, until an answer comes in time.
        """
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._on_late = on_late
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._is_sending = False
        self._waiting: deque[tuple[float, Waiter, tuple[str, Command] | None]] = deque()
        self._later: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.failures = 0

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def call(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Its answer; an error of Redis's is an answer too, a `hiredis.ReplyError`. Fails as Unanswered."""
        future = self._loop.create_future()
        self.send(future, *command)
        return future

    def send(self, waiter: Waiter, *command: str | bytes | int) -> None:
        self._write(waiter, command, None)

    def run(self, waiter: Waiter, sha: str, text: str, command: Command) -> None:
        """A script. A server that has forgotten it, without having done anything, gets its text."""
        self._write(waiter, ("EVALSHA", sha, *command), (text, command))

    def post(self, *command: str | bytes | int) -> None:
        """Nobody waits for it: it goes with what is sent next, or a moment later, since each write costs as much."""
        if self._transport is None:
            return
        if not self._is_sending and self._later is None:
            self._later = self._loop.call_later(MOMENT, self._flush)
        self._queue(NOBODY, command, None)

    def _write(self, waiter: Waiter, command: tuple[Any, ...], script: tuple[str, Command] | None) -> None:
        if self._transport is None:
            fail(waiter)
            return
        if not self._is_sending:
            self._is_sending = True
            self._loop.call_soon(self._flush)
        self._queue(waiter, command, script)

    def _queue(self, waiter: Waiter, command: tuple[Any, ...], script: tuple[str, Command] | None) -> None:
        self._unsent.append(hiredis.pack_command(cast("Any", command)))
        self._waiting.append((self._loop.time(), waiter, script))

    async def drain(self) -> None:
        """Wait for what was asked, as long as one may."""
        if self._waiting and self._transport is not None:
            await asyncio.wait({self.call("PING")}, timeout=self._timeout)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                _, waiter, script = waiting.popleft()
                if waiter.done():
                    continue
                self.failures = 0
                if script is not None and _is_unknown(answer):
                    self.send(waiter, "EVAL", script[0], *script[1])
                else:
                    waiter.set_result(answer)
        except (hiredis.ProtocolError, IndexError):  # whatever speaks there, it is no Redis
            self.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in (self._timer, self._later):
            if timer is not None:
                timer.cancel()
        while self._waiting:
            fail(self._waiting.popleft()[1])
        self._on_lost(self)

    def _flush(self) -> None:
        data, self._unsent, self._is_sending = b"".join(self._unsent), [], False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._transport is not None:
            self._transport.write(data)
            if self._timer is None:
                self._timer = self._loop.call_later(self._timeout, self._look)

    def _look(self) -> None:
        """Whether somebody has waited for too long."""
        self._timer = None
        first = next((since for since, waiter, _ in self._waiting if not waiter.done()), None)
        if first is None:
            return
        left = first + self._timeout - self._loop.time()
        self._timer = (
            self._loop.call_later(left, self._look) if left > 0 else self._loop.call_later(GRACE, self._expire)
        )

    def _expire(self) -> None:
        self._timer = None
        now, is_late = self._loop.time(), False
        for since, waiter, _ in self._waiting:
            if since + self._timeout > now:
                break
            is_late = is_late or not waiter.done()
            fail(waiter)
        if is_late:
            self.failures += 1
            self._on_late(self)
        self._look()


def _is_unknown(answer: Any) -> bool:
    """Whether it says that it does not know the script."""
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOSCRIPT")


def fail(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_exception(Unanswered("no answer in time"))
        if isinstance(waiter, asyncio.Future):
            waiter.exception()  # nobody has to look at it
