"""One answer as it arrives from an upstream.

The connection parses and fills it; whoever relays it attaches a receiver. What comes before that is held, and the
connection stops reading when more than HOLD_BYTES wait, so that a slow reader slows the upstream down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from proxy.errors import BadAnswer, ProxyError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from proxy.headers import Fields
    from proxy.upstream.connection import Connection
    from proxy.upstream.switched import Peer, Switched

HOLD_BYTES = 256 * 1024


class Receiver(Protocol):
    """Where an answer's body is pushed, each call within the read that brought it; `end` or `fail` comes once, last."""

    def feed(self, chunk: bytes) -> None: ...
    def end(self, trailers: Fields) -> None: ...
    def fail(self, error: ProxyError) -> None: ...


class Flow(Protocol):
    """A body on its way, as its relay sees it: an upstream's, or what stands between one and the relay."""

    is_pushed: ClassVar[bool]
    """Whether it comes to its end also where nobody awaits `over`."""

    @property
    def at_hand(self) -> bytes | None:
        """The whole body, where that is here already."""
        ...

    def attach(self, receiver: Receiver) -> None: ...
    async def over(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...
    def finish(self) -> None: ...
    def interrupt(self, error: ProxyError) -> None: ...


class Incoming:
    """`head` is done when status and header are here, or has what went wrong instead."""

    __slots__ = (
        "_connection",
        "_loop",
        "_on_interim",
        "_over",
        "_receiver",
        "chunks",
        "error",
        "fields",
        "guard",
        "head",
        "head_at",
        "index",
        "is_complete",
        "may_upgrade",
        "reason",
        "status",
        "trailers",
        "uploading",
    )

    is_pushed: ClassVar[bool] = True

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: Connection, on_interim: Callable[[int, bytes, Fields], None]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._on_interim = on_interim
        self.head: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] | None = None
        self._receiver: Receiver | None = None
        self.chunks: list[bytes] = []
        self.status = 0
        self.reason = b""
        self.fields: Fields = []
        self.index: dict[bytes, bytes] = {}
        self.trailers: Fields = []
        self.head_at = 0.0
        self.is_complete = self.may_upgrade = False
        self.error: ProxyError | None = None
        self.guard: Callable[[Receiver], Receiver] | None = None
        self.uploading: asyncio.Future[None] | None = None

    # -- the relaying side

    def attach(self, receiver: Receiver) -> None:
        """From now on the body is pushed into `receiver`, behind its `guard`; what has come so far at once."""
        self._receiver = receiver if self.guard is None else self.guard(receiver)
        self.resume()  # first: what is delivered now may fill the receiver, which then pauses
        self.deliver()

    @property
    def at_hand(self) -> bytes | None:
        """The whole body, where it came in one read and nobody has taken it yet: so do most that are no streams.

        What a guard may change is not at hand.
        """
        return self.chunks[0] if self.is_complete and len(self.chunks) == 1 and self.guard is None else None

    def preview(self, receiver: Receiver) -> None:
        """Until `put_back`, the body is pushed into `receiver`, as it came; what has come so far at once."""
        self._receiver = receiver
        self.resume()
        self.deliver()

    def put_back(self, chunks: list[bytes]) -> None:
        """What a preview was given is still to be delivered."""
        self._receiver = None
        self.chunks[:0] = chunks

    def replace(self, body: bytes, *, kind: bytes = b"", status: int | None = None) -> None:
        """A whole body in place of what has come, which nobody has taken yet, and what would still come.

        `kind`: its content type; `status`: it is another answer altogether.
        """
        self.cancel()
        self.chunks, self.is_complete, self.error = [body], True, None
        changed = {b"content-length": b"%d" % len(body), **({b"content-type": kind} if kind else {})}
        kept = [field for field in self.fields if field[0].lower() not in changed]
        self.fields = [*kept, *changed.items()]
        self.index = {**self.index, **changed}
        if status is not None:
            self.status, self.guard = status, None

    def switch(self, peer: Peer) -> Switched:
        """After a 101: the connection's bytes go to `peer`, and what it has to say goes to what is returned."""
        return self._connection.switch(peer)

    async def over(self) -> None:
        """Wait until the receiver's `end` or `fail` was called."""
        if self._receiver is not None:
            self._over = self._loop.create_future()
            await self._over

    def pause(self) -> None:
        """Stop reading from the upstream: the receiver's side is full."""
        if not self.is_complete:  # a connection whose answer is complete is the next one's
            self._connection.pause()

    def resume(self) -> None:
        if not self.is_complete:
            self._connection.resume()

    def cancel(self) -> None:
        """Nobody wants the rest: drop the connection, so that the upstream stops working."""
        self._receiver = None
        self._stop_upload()
        if not self.is_complete:
            self._connection.abort()

    def finish(self) -> None:
        """The receiver is done before the upstream is."""
        self.cancel()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def interrupt(self, error: ProxyError) -> None:
        """End the answer here, for the receiver as if the upstream had broken it off."""
        self.fail(error)
        self.cancel()

    # -- the connection's side

    def begin(self, status: int, reason: bytes, fields: Fields, index: dict[bytes, bytes]) -> None:
        """`index`: the fields by their lower-case names."""
        self.status, self.reason, self.fields, self.index = status, reason, fields, index
        if not self.head.done():
            self.head.set_result(None)

    def interim(self, status: int, reason: bytes, fields: Fields) -> None:
        self._on_interim(status, reason, fields)

    def deliver(self) -> None:
        """Hand on what one read brought, as one chunk; and the end, if that has come."""
        receiver, chunks = self._receiver, self.chunks
        if receiver is None:
            self._hold()
            return
        if len(chunks) == 1:
            receiver.feed(chunks.pop())
        elif chunks:
            together = b"".join(chunks)
            chunks.clear()
            receiver.feed(together)
        if self.is_complete or self.error is not None:
            self._close()

    def _hold(self) -> None:
        if self.is_complete or not self.chunks:
            return
        if sum(map(len, self.chunks)) > HOLD_BYTES:
            self._connection.pause()

    def complete(self) -> None:
        self.is_complete = True

    def fail(self, error: ProxyError) -> None:
        if self.is_complete or self.error is not None:
            return
        self.error = error
        if not self.head.done():
            self.head.set_exception(error)
        self.deliver()

    def _stop_upload(self) -> None:
        if self.uploading is not None and not self.uploading.done():
            self.uploading.cancel()

    def _close(self) -> None:
        self._stop_upload()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            if self.error is None:
                receiver.end(self.trailers)
            else:
                receiver.fail(self.error)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


async def whole(incoming: Flow, limit: int) -> bytes:
    """The whole body; more than `limit` bytes, or a broken answer, raise."""
    body = _Whole(incoming, limit)
    incoming.attach(body)
    await incoming.over()
    if body.error is not None:
        raise body.error
    return b"".join(body.chunks)


class _Whole:
    def __init__(self, incoming: Flow, limit: int) -> None:
        self.chunks: list[bytes] = []
        self.error: ProxyError | None = None
        self._incoming = incoming
        self._room = limit

    def feed(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room < 0:
            self.error = BadAnswer("the upstream's answer is too large to be held as a whole")
            self._incoming.finish()
        else:
            self.chunks.append(chunk)

    def end(self, trailers: Fields) -> None:
        pass

    def fail(self, error: ProxyError) -> None:
        self.error = error
