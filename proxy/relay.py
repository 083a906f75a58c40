"""From the upstream's bytes to the app's, within the callback that read them; four kinds, the strictest stage picks.

pipe     bytes in, bytes out
tap      written first, then watched: event streams always are, since a stream may end without being whole
events   events run through the filters; what no filter touches leaves byte-identical; one write per incoming chunk
buffer   (proxy/buffer.py) the whole body, before the first byte goes down

A stream that breaks ends with one error event and a connection that is cut, never with a clean end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from proxy.encoding import Unreadable
from proxy.errors import OK, DownstreamStalled, Interrupted, Outcome, ProxyError, error_body
from proxy.sse import Event, Reader
from proxy.stages import EventFilter, EventTap, Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proxy.answer import Answer
    from proxy.chain import Chain, Placed
    from proxy.downstream import Downstream
    from proxy.encoding import Decoder
    from proxy.exchange import Exchange
    from proxy.headers import Fields


UNREAD_BYTES = 4096
"""How much of a stream may have gone down unread where only the core watches it, once its first token was seen: looking
at a dozen events in one go costs a third of a dozen looks, each with cold caches. Stages see each event at once."""


class Pipe:
    """Bytes in, bytes out; a cut answer stays cut."""

    def __init__(self, exchange: Exchange, downstream: Downstream) -> None:
        self.exchange = exchange
        self.downstream = downstream
        self.outcome: Outcome | None = None

    def feed(self, chunk: bytes) -> None:
        self.downstream.write(chunk)

    def end(self, trailers: Fields) -> None:
        self.downstream.end(trailers)
        self.outcome = OK

    def fail(self, error: ProxyError) -> None:
        self.exchange.error = error
        self.outcome = error.outcome
        self.downstream.abort()

    def close(self, outcome: Outcome) -> None:
        """No more comes; said once, whatever happened."""


class TapRelay(Pipe):
    """Writes, then lets the taps see what was written; a tap that raises is dropped and counted."""

    def __init__(
        self, exchange: Exchange, downstream: Downstream, stages: Sequence[Placed], decoder: Decoder | None
    ) -> None:
        super().__init__(exchange, downstream)
        self._chain: Chain = exchange.chain
        self._stages = list(stages)
        self._decoder = decoder
        self._is_readable = True

    @override
    def feed(self, chunk: bytes) -> None:
        self.downstream.write(chunk)
        chunk = self._decoded(chunk)
        if chunk:
            self._watch(chunk)

    @override
    def close(self, outcome: Outcome) -> None:
        for placed in list(self._stages):
            if isinstance(placed.stage, Tap | EventTap):
                try:
                    placed.finish(outcome)
                except Exception:  # noqa: BLE001 - a tap may raise anything
                    self._drop(placed)
        self._stages.clear()

    def _watch(self, chunk: bytes) -> None:
        for placed in list(self._stages):
            self._tap(placed, (), chunk)

    def _tap(self, placed: Placed, events: Iterable[Event], chunk: bytes) -> None:
        feed = placed.feed
        try:
            if not placed.taps_bytes:
                for event in events:
                    if event.data is not None:
                        feed(event)
            elif chunk:
                feed(chunk)
        except Exception:  # noqa: BLE001 - a tap may raise anything
            self._drop(placed)

    def _decoded(self, chunk: bytes) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            return self._decoder.feed(chunk) if self._is_readable else b""
        except Unreadable:
            self._is_readable = False
            return b""

    def _drop(self, placed: Placed) -> None:
        self._stages.remove(placed)
        placed.is_finished = True
        self._chain.count(placed.plugin, type(placed.stage).__name__, self.exchange)


class StreamRelay(TapRelay):
    """An event stream: knows whether it is whole, and says so to the app when it is not."""

    def __init__(
        self,
        exchange: Exchange,
        downstream: Downstream,
        stages: Sequence[Placed],
        decoder: Decoder | None,
        answer: Answer,
    ) -> None:
        super().__init__(exchange, downstream, stages, decoder)
        self._answer = answer
        self._reader = Reader()
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._reads_at = 0
        self._stages_read = bool(stages)
        self._can_tell = decoder is None
        self._is_broken = False

    @override
    def feed(self, chunk: bytes) -> None:
        self.downstream.write(chunk)
        self._unread.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > self._reads_at:
            self._read()

    @override
    def end(self, trailers: Fields) -> None:
        tail = self._tail()
        error = self._answer.error
        if self._is_broken:
            return
        if error is not None and not tail:
            self.outcome = Outcome.STREAM_INTERRUPTED
            self._end(trailers)
        elif error is None and self._answer.is_whole():
            self.outcome = OK
            self._end(trailers)
        else:
            what = error.message if error else f"{self._upstream()} ended its answer before it was complete"
            self._break(Interrupted(what), tail)

    @override
    def fail(self, error: ProxyError) -> None:
        tail = self._tail()
        if self._is_broken:
            return
        if isinstance(error, DownstreamStalled):
            super().fail(error)
        elif self._answer.has_ended() and self._answer.error is None:
            self.outcome = OK
            self._end([])
        else:
            self._break(error, tail)

    def may_beat(self) -> bool:
        """Whether a comment may be put in here: the stream stands between two events."""
        if self._unread:
            self._read()
        return self._can_tell and not self._is_broken and self._reader.at_boundary

    @override
    def close(self, outcome: Outcome) -> None:
        if self._unread:
            self._read()
        self._answer.report(self.exchange)
        super().close(outcome)

    def _read(self) -> None:
        """Look at what was written since the last time."""
        chunk = self._decoded(self._taken())
        events = self._look(chunk)
        for placed in list(self._stages) if self._stages else ():
            self._tap(placed, events, chunk)

    def _taken(self) -> bytes:
        chunk = self._unread[0] if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        self._unread_bytes = 0
        return chunk

    def _look(self, chunk: bytes) -> list[Event]:
        """What the core wants to know; the events are returned where stages want them too."""
        if not self._stages_read and self._reader.at_boundary and self._answer.says_nothing(chunk):
            return []
        events = self._reader.feed(chunk)
        self._see(events)
        return events

    def _see(self, events: list[Event]) -> None:
        answer = self._answer
        for event in events:
            answer.see(event)
        if answer.started and self.exchange.first_token_at is None:
            self.exchange.note_first_token()
            self._reads_at = 0 if self._stages_read else UNREAD_BYTES

    def _tail(self) -> list[Event]:
        """The half event that the stream left behind, seen like the others."""
        self._read()
        tail = self._reader.end()
        self._see(tail)
        for placed in list(self._stages):
            if isinstance(placed.stage, EventTap):
                self._tap(placed, tail, b"")
        return tail

    def _end(self, trailers: Fields) -> None:
        self.downstream.end(trailers)

    def _break(self, error: ProxyError, tail: list[Event]) -> None:
        self.exchange.error = error
        self.outcome = Outcome.STREAM_INTERRUPTED
        if self._can_tell:
            self.downstream.write(self._farewell(error, tail))
        self.downstream.abort()

    def _farewell(self, error: ProxyError, tail: list[Event]) -> bytes:
        """Closes a half event, and tells the error, unless that very event does."""
        closing = b"\n\n" if tail else b""
        told = self._answer.error
        if told is None:
            return closing + error_event(self.exchange, error.body())
        if tail and tail[0].data is not None:
            return closing
        return closing + error_event(self.exchange, error_body(told.message, told.type or error.type, told.code))

    def _upstream(self) -> str:
        return f"upstream '{self.exchange.attempts[-1].target.upstream}'" if self.exchange.attempts else "the upstream"


class EventRelay(StreamRelay):
    """Runs each event through the stages in their order; taps see theirs after the one write."""

    def __init__(
        self,
        exchange: Exchange,
        downstream: Downstream,
        stages: Sequence[Placed],
        decoder: Decoder | None,
        answer: Answer,
    ) -> None:
        super().__init__(exchange, downstream, stages, decoder, answer)
        self._splitter = Reader()
        self._can_tell = True
        self._stages_read = False
        self._skips = _skipping(stages)

    @override
    def feed(self, chunk: bytes) -> None:
        if self._decoder is not None:
            chunk = self._decoded(chunk)
            if not self._is_readable:
                self._give_up(Interrupted(f"{self._upstream()} sent a body that does not fit its content-encoding"))
                return
        try:
            passes = self._skips is not None and (
                self._splitter.is_clear and chunk.endswith(b"\n\n") and self._skips(chunk)
            )
        except Exception:  # noqa: BLE001 - who cannot tell has to read, and is judged by that
            passes = False
        if passes:
            self.downstream.write(chunk)
        elif events := self._splitter.feed(chunk):
            self._run(events)
        self._unread.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > self._reads_at:
            self._read()

    @override
    def close(self, outcome: Outcome) -> None:
        if self.outcome is None:
            self._finish(outcome)
        super().close(outcome)

    @override
    def _read(self) -> None:
        """What came is decoded already, and the stages have had it."""
        self._look(self._taken())

    @override
    def _tail(self) -> list[Event]:
        self._read()
        self._see(self._reader.end())
        tail = self._splitter.end()
        self._run(tail)
        return tail

    @override
    def _end(self, trailers: Fields) -> None:
        if self._finish(self.outcome or OK):
            super()._end(trailers)

    @override
    def _break(self, error: ProxyError, tail: list[Event]) -> None:
        if self._finish(Outcome.STREAM_INTERRUPTED):
            super()._break(error, tail)

    def _finish(self, outcome: Outcome) -> bool:
        """Send what the filters hold; whether the stream is still in order after that."""
        for place, placed in enumerate(list(self._stages)):
            if isinstance(placed.stage, EventFilter):
                try:
                    held = placed.finish(outcome)
                except Exception as error:  # noqa: BLE001 - judged by the failure mode
                    held = self._filter_failed(placed, error, [])
                self._run(held, place + 1)
                if self._is_broken:
                    return False
        return True

    def _run(self, events: list[Event], after: int = 0) -> None:
        """One write for all that the stages from `after` on make of these events."""
        watched: list[tuple[Placed, list[Event]]] = []
        for placed in self._stages[after:] if after else self._stages:
            if placed.filters:
                events = self._filtered(placed, events) if events else events
            else:
                watched.append((placed, events))
        if events and not self._is_broken:
            self.downstream.write(_joined(events))
        for placed, seen in watched:
            self._tap(placed, seen, _joined(seen) if placed.taps_bytes else b"")

    def _filtered(self, placed: Placed, events: list[Event]) -> list[Event]:
        passed: list[Event] = []
        event, feed = events[0], placed.feed
        try:
            for event in events:
                passed += (event,) if event.data is None else feed(event)
        except Exception as error:  # noqa: BLE001 - judged by the failure mode
            return passed + self._filter_failed(placed, error, events[events.index(event) :])
        return passed

    def _filter_failed(self, placed: Placed, error: Exception, rest: list[Event]) -> list[Event]:
        """Open: the stream goes on without the filter. Closed: it ends here, and nothing unfiltered goes down."""
        placed.retire()
        refusal = self._chain.refusal(placed.plugin, error, self.exchange)
        if refusal is None:
            return rest
        self._give_up(refusal)
        return []

    def _give_up(self, error: ProxyError) -> None:
        self._is_broken = True
        self.outcome = Outcome.STREAM_INTERRUPTED
        self.exchange.error = error
        self.downstream.write(error_event(self.exchange, error.body()))
        self.downstream.abort()
        if self.downstream.source is not None:
            self.downstream.source.finish()


def error_event(exchange: Exchange, body: bytes) -> bytes:
    """An error in OpenAI's shape as an event that the app's SDK heeds: Anthropic's knows events by their names only."""
    if exchange.request.endpoint == "messages":
        return Event.of(b'{"type":"error",' + body[1:], "error").raw
    return Event.of(body).raw


def _skipping(stages: Sequence[Placed]) -> Callable[[bytes], bool] | None:
    """Whether whole events may pass unread by all stages; None where they never may."""
    filters = [placed.stage for placed in stages if isinstance(placed.stage, EventFilter)]
    if len(filters) < len(stages) or any(type(stage).skips is EventFilter.skips for stage in filters):
        return None
    if len(filters) == 1:
        return filters[0].skips
    return lambda chunk: all(stage.skips(chunk) for stage in filters)


def _joined(events: list[Event]) -> bytes:
    return events[0].raw if len(events) == 1 else b"".join([event.raw for event in events])
