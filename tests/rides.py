"""One answer through one relay, driven by hand, onto a transport that records each write; and taps that record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from proxy import testing
from proxy.answer import Answer
from proxy.chain import Placed
from proxy.downstream import Downstream
from proxy.encoding import decoder_for
from proxy.errors import Outcome
from proxy.plugin import Event, EventTap, FailureMode, Plugin, Stage, Tap
from proxy.relay import Pipe, StreamRelay, TapRelay
from tests.recording import chain_of, idle

if TYPE_CHECKING:
    from collections.abc import Iterable


class Recorder(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    @override
    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    @override
    def is_closing(self) -> bool:
        return self.is_closed

    @override
    def close(self) -> None:
        self.is_closed = True

    @override
    def abort(self) -> None:
        self.is_closed = True


class Ride:
    """One answer through a relay of `kind` with these stages, all of a plugin in that `mode`."""

    def __init__(
        self, kind: type[Pipe], *stages: Stage, mode: FailureMode = FailureMode.CLOSED, gzipped: bool = False
    ) -> None:
        self.transport = Recorder()
        self.downstream = Downstream(self.transport, "POST", is_http11=False, keep_alive=True)
        self.downstream.start(200, b"OK", [], b"", is_framed=False)
        self.downstream.flush()
        self.transport.writes.clear()
        self.failures: list[str] = []
        self.exchange = testing.exchange()
        plugins: list[Plugin[Any]] = [idle(f"p{place}", mode) for place in range(len(stages))]
        self.exchange.chain = chain_of(*plugins, failures=self.failures)
        self.placed = [Placed(plugin, stage) for plugin, stage in zip(plugins, stages, strict=True)]
        self.relay = self._relay(kind, decoder_for(b"gzip") if gzipped else None)

    def _relay(self, kind: type[Pipe], decoder: Any) -> Pipe:
        if issubclass(kind, StreamRelay):
            return kind(self.exchange, self.downstream, self.placed, decoder, Answer(expected=True))
        if issubclass(kind, TapRelay):
            return kind(self.exchange, self.downstream, self.placed, decoder)
        return kind(self.exchange, self.downstream)

    def feed(self, chunks: Iterable[bytes]) -> Ride:
        for chunk in chunks:
            self.relay.feed(chunk)
        return self

    def end(self) -> Ride:
        self.relay.end([])
        self.relay.close(self.relay.outcome or Outcome.CLIENT_ABORT)
        return self

    @property
    def body(self) -> bytes:
        return b"".join(self.transport.writes)

    @property
    def is_cut(self) -> bool:
        return self.transport.is_closed


class Seen(Tap):
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.outcomes: list[Outcome] = []

    @override
    def feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    @override
    def finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class SeenEvents(EventTap):
    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.outcomes: list[Outcome] = []

    @override
    def feed(self, event: Event) -> None:
        assert event.data is not None
        self.events.append(event.data)

    @override
    def finish(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
