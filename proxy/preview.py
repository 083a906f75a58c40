"""The beginning of an answer, looked at before it goes down: a 200 may still turn out to be a failure.

An answer serves once its first content, reasoning or tool delta is there; JSON once it is whole and no error. Until
then it is held, within limits, and what was held is delivered afterwards as if nobody had looked.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Protocol

from proxy.answer import Answer, error_in_body, speaks_of_error
from proxy.encoding import Unreadable, decoder_for, is_plain
from proxy.fault import Fault, Kind, fault_in_band, fault_of_error
from proxy.sse import Reader
from proxy.upstream.incoming import Incoming

if TYPE_CHECKING:
    from proxy.attempt import Attempt, Hold
    from proxy.encoding import Decoder
    from proxy.errors import ProxyError
    from proxy.headers import Fields
    from proxy.response import Response
    from proxy.sse import Event


def serves_at_once(response: Response) -> bool:
    """Of JSON that is all here in one piece and speaks of no error, as nearly all is; a no is not to be wondered at."""
    incoming = response.incoming
    if not isinstance(incoming, Incoming) or (body := incoming.at_hand) is None or not body.endswith(b"}"):
        return False
    kind, is_packed = incoming.index.get(b"content-type", b""), b"content-encoding" in incoming.index
    return not is_packed and kind.startswith(b"application/json") and not speaks_of_error(body)


async def looked_at(
    response: Response, attempt: Attempt, hold: Hold, *, expects_terminal: bool, only_reads: bool = False
) -> Fault | None:
    """Returns when it is clear whether the answer serves, and what is wrong if not; it can be attached then."""
    encoding = response.field(b"content-encoding")
    decoder = None if is_plain(encoding) else decoder_for(encoding)
    if decoder is None and not is_plain(encoding):
        return None
    incoming = response.incoming
    assert isinstance(incoming, Incoming)
    if response.is_event_stream:
        answer = Answer(expected=expects_terminal)
        look = _Stream(answer, expects_data=expects_terminal, whole=hold.whole)
        fault = await Preview(incoming, look, hold.size, decoder).over(*_limit(attempt, hold))
        attempt.delivered_tokens = answer.delivered_tokens()
        return fault
    is_json = response.content_type.endswith((b"/json", b"+json"))
    if not (is_json or hold.whole):  # it may flow for as long as it likes, and nobody could tell what it says
        return None
    body = _Body(expects_json=is_json and expects_terminal, only_reads=only_reads)
    return await Preview(incoming, body, hold.size, decoder).over(*_limit(attempt, hold))


def _limit(attempt: Attempt, hold: Hold) -> tuple[float, Kind]:
    """Until when, in monotonic seconds, a token is waited for, and what an answer without one has failed of."""
    if attempt.deadline <= hold.seconds:
        return attempt.started + attempt.deadline, Kind.LATE
    return attempt.started + hold.seconds, Kind.SLOW


class Look(Protocol):
    """What is known of an answer so far: once it `is_clear`, `fault` says why it does not serve, or None: it does.

    `has_begun`: there is no limit of time any more. `end` is told what broke the answer off, if anything did.
    """

    is_clear: bool
    fault: Fault | None

    @property
    def has_begun(self) -> bool: ...
    def see(self, chunk: bytes) -> None: ...
    def end(self, broken: Fault | None) -> None: ...


class _Stream:
    """Judged event by event: how the network cut the stream makes no difference."""

    def __init__(self, answer: Answer, *, expects_data: bool, whole: bool) -> None:
        self.is_clear = False
        self.fault: Fault | None = None
        self._answer = answer
        self._expects_data = expects_data
        self._whole = whole
        self._reader = Reader()

    @property
    def has_begun(self) -> bool:
        return self._answer.started

    def see(self, chunk: bytes) -> None:
        self._read(self._reader.feed(chunk))

    def end(self, broken: Fault | None) -> None:
        self._read(self._reader.end())
        if not self.is_clear:
            self._conclude(broken or (None if self._answer.is_whole() else Fault(Kind.BROKEN)))

    def _read(self, events: list[Event]) -> None:
        answer = self._answer
        for event in events:
            answer.see(event)
            if event.data and not event.is_done:
                self._expects_data = False
            if answer.error is not None:
                self._conclude(fault_in_band(answer.error))
            elif answer.has_ended():
                self._conclude(Fault(Kind.BROKEN) if self._expects_data else None)  # a lone `[DONE]` is no answer
            elif answer.started and not self._whole:
                self._conclude(None)
            if self.is_clear:
                return

    def _conclude(self, fault: Fault | None) -> None:
        self.fault, self.is_clear = fault, True


class _Body:
    """Anything else, to its end. Some servers send the header of a long answer at once, so that no limit is set."""

    has_begun = True

    def __init__(self, *, expects_json: bool, only_reads: bool) -> None:
        self.is_clear = False
        self.fault: Fault | None = None
        self._expects_json = expects_json
        self._only_reads = only_reads
        self._chunks: list[bytes] = []

    def see(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def end(self, broken: Fault | None) -> None:
        self.is_clear = True
        body = b"".join(self._chunks)
        told = None if self._only_reads else error_in_body(body)
        if told is not None:
            self.fault = fault_in_band(told)
        elif broken is not None or (self._expects_json and not body.rstrip().endswith((b"}", b"]"))):
            self.fault = broken or Fault(Kind.BROKEN)


class Preview:
    """A receiver that keeps what it is given."""

    def __init__(self, incoming: Incoming, look: Look, size: int, decoder: Decoder | None) -> None:
        """After `size` bytes, packed or not, nothing is held any longer, whatever they are."""
        self._incoming = incoming
        self._look = look
        self._room = size
        self._decoder = decoder
        self._chunks: list[bytes] = []
        self._clear: asyncio.Future[None] | None = None

    async def over(self, until: float, late: Kind) -> Fault | None:
        """None: it serves. Who is cancelled here drops the answer. `late`: what it is without a token by `until`."""
        self._incoming.preview(self)
        if not self._look.is_clear:
            await self._wait(until, late)
        self._incoming.put_back(self._chunks)
        return self._look.fault

    async def _wait(self, until: float, late: Kind) -> None:
        loop = asyncio.get_running_loop()
        self._clear = loop.create_future()
        timer = loop.call_later(until - time.monotonic(), self._expire, late) if until < math.inf else None
        try:
            await self._clear
        except asyncio.CancelledError:
            self._incoming.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        if self._look.is_clear:
            return
        try:
            text = chunk if self._decoder is None else self._decoder.feed(chunk)
        except Unreadable:
            self._look.is_clear = True
        else:
            self._room -= max(len(chunk), len(text))
            self._look.see(text)
        if self._room < 0:
            self._look.is_clear = True
        self._tell()

    def end(self, trailers: Fields) -> None:
        del trailers  # the incoming has them
        if not self._look.is_clear:
            self._look.end(None)
            self._tell()

    def fail(self, error: ProxyError) -> None:
        if not self._look.is_clear:
            self._look.end(fault_of_error(error))
            self._tell()

    def _expire(self, late: Kind) -> None:
        look = self._look
        if not (look.is_clear or look.has_begun):
            look.fault, look.is_clear = Fault(late), True
            self._tell()

    def _tell(self) -> None:
        if self._look.is_clear and self._clear is not None and not self._clear.done():
            self._clear.set_result(None)
