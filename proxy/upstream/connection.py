"""HTTP/1.1 to an upstream: one socket, one exchange at a time, parsed by httptools within `data_received`.

Time limits are one deadline and one lazily re-armed timer per connection, so that a chunk costs an assignment only:
connect and pool waits are the pool's, this file knows `first_byte`, `idle` and `total`, and keep-alive while idle.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import httptools
from typing_extensions import override

from proxy.errors import (
    BadAnswer,
    DownstreamStalled,
    Dropped,
    Interrupted,
    OutOfTime,
    ProxyError,
    UploadStalled,
    UpstreamTimeout,
)
from proxy.upstream.incoming import Incoming
from proxy.upstream.switched import Switched

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.headers import Fields
    from proxy.upstream.switched import Peer

MAX_HEAD_BYTES = 64 * 1024
"""After so many bytes an answer's head must be complete, and interim answers be over; real ones stay below 10 KiB."""

NO_BODY = frozenset({204, 304})

_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLIN)


class Limits(NamedTuple):
    """Seconds; infinity where there is no limit. `is_cut`: a request's deadline left less for `first_byte`."""

    first_byte: float = math.inf
    idle: float = math.inf
    total: float = math.inf
    is_cut: bool = False


_Phase = Literal["idle", "upload", "wait", "body"]
"""Words, since before Python 3.12 a look at a member of an Enum costs as much as a call."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_close_delimited",
        "_deadline",
        "_fields",
        "_final_deadline",
        "_head_bytes",
        "_heard_at",
        "_incoming",
        "_is_reading",
        "_keep",
        "_limits",
        "_method",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_phase",
        "_probe",
        "_reason",
        "_timer",
        "_timer_at",
        "_transport",
        "_uploading",
        "_writable",
        "idle_since",
        "is_reused",
        "keep_alive_hint",
        "loop",
        "name",
        "on_body",
        "rests_for",
    )

    def __init__(self, name: str, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._incoming: Incoming | None = None
        self._fields: Fields = []
        self._reason = b""
        self._method = ""
        self._limits = Limits()
        self._phase: _Phase = "idle"
        self._deadline = self._final_deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._head_bytes = 0
        self._heard_at = 0.0
        self._uploading = False
        self._close_delimited = False
        self._keep = False
        self._is_reading = True
        self._writable: asyncio.Future[None] | None = None
        self._probe: select.poll | None = None
        self.idle_since = self.rests_for = 0.0
        self.is_reused = False
        self.keep_alive_hint = math.inf

    # -- one exchange

    def start(
        self, method: str, data: bytes, limits: Limits, on_interim: Callable[[int, bytes, Fields], None], *, more: bool
    ) -> Incoming:
        """Write a request's head (and its body, where that is at hand: then not `more`)."""
        incoming = self._incoming = Incoming(self.loop, self, on_interim)
        self.on_body = incoming.chunks.append  # a method of C: no frame of Python's for each chunk
        self._parser = httptools.HttpResponseParser(self)
        self._fields = []
        self._reason = b""
        self._method = method
        self._limits = limits
        self._head_bytes = 0
        self._keep = self._close_delimited = False
        self._uploading = more
        self._final_deadline = self.loop.time() + limits.total
        self._enter("upload" if more else "wait", limits.idle if more else limits.first_byte)
        assert self._transport is not None
        self._transport.write(data)
        return incoming

    async def upload(self, data: bytes) -> None:
        """Write a piece of the request's body, no faster than the upstream reads it."""
        if self._transport is None or self._incoming is None:
            return
        self._transport.write(data)
        if self._phase == "upload":
            self._enter("upload", self._limits.idle)
        if self._writable is not None:
            await self._writable

    def end_upload(self) -> None:
        self._uploading = False
        if self._phase == "upload":
            self._enter("wait", self._limits.first_byte)

    def abort(self) -> None:
        """Drop the socket at once: the upstream learns within a round trip that nobody waits."""
        if self._transport is not None:
            self._transport.abort()

    def is_usable(self) -> bool:
        """Whether a request may be written: the far side has neither closed nor said anything unasked.

        The event loop may not have seen yet what the kernel has, hence the look into the socket: it costs 1 µs, and
        saves the POST that follows at once on an answer whose server closes without a word.
        """
        if self._transport is None or self._transport.is_closing():
            return False
        if self._probe is None:
            self._probe = select.poll()
            self._probe.register(self._transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return not self._probe.poll(0)

    def pause(self) -> None:
        if self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()
            if self._phase == "body":
                self._enter("body", self._limits.idle)

    def switch(self, peer: Peer) -> Switched:
        """After a 101: bytes go to `peer` as they come. The connection still counts here until it is lost."""
        assert self._transport is not None
        switched = Switched(self._transport, peer, self.connection_lost)
        self._transport.set_protocol(switched)
        return switched

    def rest(self, seconds: float) -> None:
        """Wait in the pool, `seconds` at most."""
        self.rests_for = seconds
        self._final_deadline = math.inf
        self._enter("idle", seconds)

    # -- asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming is None:
            self.abort()
            return
        if self._parser is None:  # after a 101
            incoming.chunks.append(data)
            incoming.deliver()
            return
        if self._phase == "body":
            self._heard_at = self.loop.time()
        elif self._is_too_long(data):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self._leave_http(incoming, data[switched.args[0] :])
        except httptools.HttpParserError:
            self._garbage()  # an answer that was complete before it is still to be handed on
        incoming.deliver()

    @override
    def eof_received(self) -> None:
        incoming = self._incoming
        if self._close_delimited and incoming is not None:
            self._complete(incoming)
            incoming.deliver()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._incoming is not None:
            self._read_rest()
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.resume_writing()
        self._on_lost(self)
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.fail(self._lost(incoming))

    @override
    def pause_writing(self) -> None:
        self._writable = self.loop.create_future()

    @override
    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # -- httptools

    def on_status(self, reason: bytes) -> None:
        self._reason += reason  # comes in parts where the reads do

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value.strip()))

    def on_headers_complete(self) -> None:
        incoming, parser = self._incoming, self._parser
        assert incoming is not None
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            return
        incoming.head_at = time.monotonic()
        fields, self._fields = self._fields, incoming.trailers
        self._enter("body", self._limits.idle)
        index = {name.lower(): value for name, value in fields}
        self._note_framing(status, index)
        incoming.begin(status, self._reason, fields, index)
        if self._method == "HEAD" or status in NO_BODY:
            incoming.chunks = []  # the parser fills the old list: a body that must not be there goes nowhere
            self._complete(incoming)

    def on_message_complete(self) -> None:
        incoming, parser = self._incoming, self._parser
        assert parser is not None
        if incoming is None:
            return
        status = parser.get_status_code()
        if status == 101:
            self._switch(incoming, parser)
        elif status < 200:
            fields, self._fields = self._fields, []
            reason, self._reason = self._reason, b""
            incoming.interim(status, reason, fields)
        else:
            self._complete(incoming)

    # -- inside

    def _switch(self, incoming: Incoming, parser: httptools.HttpResponseParser) -> None:
        """A 101: `first_byte` is kept, `idle` is for answers, `total` stays."""
        fields, self._fields = self._fields, []
        index = {name.lower(): value for name, value in fields}
        is_known = parser.should_upgrade() and index.get(b"upgrade", b"").lower() == b"websocket"
        if not (incoming.may_upgrade and is_known):
            self._garbage("it switches protocols unasked")
            return
        incoming.head_at = time.monotonic()
        self._limits = Limits()
        self._enter("body", math.inf)
        incoming.begin(101, self._reason, fields, index)

    def _leave_http(self, incoming: Incoming, rest: bytes) -> None:
        """What comes from now on waits in the socket until somebody is there for it."""
        if self._incoming is None:  # it was not asked for
            return
        self._parser = None
        self.pause()
        if rest:
            incoming.chunks.append(rest)

    def _note_framing(self, status: int, names: dict[bytes, bytes]) -> None:
        coding = names.get(b"transfer-encoding", b"").lower()
        framed = b"content-length" in names or coding.endswith(b"chunked")
        self._close_delimited = not framed and status not in NO_BODY and self._method != "HEAD"
        assert self._parser is not None
        persists = self._parser.should_keep_alive()
        if self._method == "HEAD" and not framed:  # where llhttp waits for a body up to the end of the connection
            persists = self._parser.get_http_version() == "1.1" and b"close" not in names.get(b"connection", b"")
        self._keep = not self._close_delimited and persists
        self.keep_alive_hint = _seconds_offered(names[b"keep-alive"]) if b"keep-alive" in names else math.inf

    def _complete(self, incoming: Incoming) -> None:
        """The last byte is here: the connection is free again before its receiver hears of the end."""
        if incoming.is_complete:
            return
        incoming.complete()
        self._incoming, self._fields = None, []
        if self._uploading:
            self.abort()
        elif self._keep:
            self.is_reused = True
            self.resume()
            self._on_idle(self)
        elif self._transport is not None:
            self._transport.close()

    def _is_too_long(self, data: bytes) -> bool:
        """By what came in earlier reads: this one may bring the first 256 KiB of a body along."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._garbage("its header is too large")
            return True
        self._head_bytes += len(data)
        return False

    def _read_rest(self) -> None:
        """A write can fail before the loop has read why: the early answer to an upload still lies in the socket."""
        assert self._transport is not None
        if self._transport.get_extra_info("sslcontext") is not None:
            return
        try:
            data = os.read(self._transport.get_extra_info("socket").fileno(), MAX_HEAD_BYTES)
        except OSError:
            return
        if data:
            self.data_received(data)

    def _garbage(self, what: str = "its answer is not HTTP/1.1") -> None:
        incoming, self._incoming = self._incoming, None
        self.abort()
        if incoming is not None:
            incoming.fail(BadAnswer(f"upstream '{self.name}': {what}"))

    def _lost(self, incoming: Incoming) -> ProxyError:
        if incoming.status:
            return Interrupted(f"upstream '{self.name}' closed the connection in the middle of its answer")
        return Dropped(f"upstream '{self.name}' closed the connection before it answered")

    # -- time

    def _enter(self, phase: _Phase, seconds: float) -> None:
        deadline = self.loop.time() + seconds
        self._phase = phase
        final = self._final_deadline
        self._deadline = deadline if deadline < final else final  # noqa: FURB136 - `min` costs a tuple and a call
        if self._deadline < self._timer_at:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self.loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._phase == "body":
            idle_until = self._heard_at + self._limits.idle
            self._deadline = min(max(self._deadline, idle_until), self._final_deadline)
        if self.loop.time() + 0.001 < self._deadline:
            if self._deadline < math.inf:
                self._arm()
            return
        incoming, self._incoming = self._incoming, None
        self.abort()
        if incoming is not None:
            incoming.fail(self._expired())

    def _expired(self) -> ProxyError:
        upstream = f"upstream '{self.name}'"
        if self._phase == "upload" and self._writable is None:
            return UploadStalled("the request's body stopped coming")
        if self._deadline == self._final_deadline:
            kind = Interrupted if self._phase == "body" else UpstreamTimeout
            return kind(f"{upstream} did not finish within its total time limit", code="upstream_timeout")
        if self._phase == "body" and not self._is_reading:
            return DownstreamStalled("the client stopped reading its answer")
        if self._phase == "body":
            return Interrupted(f"{upstream} fell silent in the middle of its answer", code="upstream_timeout")
        if self._phase == "upload":
            return UpstreamTimeout(f"the request's body stopped flowing to {upstream}")
        if self._limits.is_cut:
            return OutOfTime(f"{upstream} did not begin to answer before the request's deadline")
        return UpstreamTimeout(f"{upstream} did not begin to answer in time")


def _seconds_offered(value: bytes) -> float:
    """`timeout=N` of a Keep-Alive field."""
    for part in value.split(b","):
        name, _, number = part.strip().partition(b"=")
        if name.strip().lower() == b"timeout" and number.strip().isdigit():
            return float(number)
    return math.inf
