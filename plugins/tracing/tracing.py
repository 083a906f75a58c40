"""The plugin: on the way of a request it only makes ids; spans are made of what is known when the exchange is over.

So an exchange that is not sampled costs a `traceparent`, and one that is costs nothing before its last byte.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from typing_extensions import override

from plugins.tracing import spans
from plugins.tracing.context import Parent, Trace, new_id, parent_of
from plugins.tracing.settings import TracingConfig
from proxy.plugin import FailureMode, Key, Outcome, Plugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proxy.plugin import Attempt, Exchange, Services

    Wall = Callable[[float], int]

NANO = 1_000_000_000


class Tracing(Plugin[TracingConfig]):
    Config = TracingConfig
    reads_usage = True
    sees_all = True
    failure_mode = FailureMode.OPEN

    def __init__(self, config: TracingConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._trace: Key[Trace] = Key(f"{name}: the trace")

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        from plugins.tracing.export import Pipeline, samples  # noqa: PLC0415 - the SDK

        self._samples = samples(self.config, os.environ)
        self._peers = spans.peers(services)
        self._ended = services.counter("weir_spans", "spans by what became of them", ("result",))
        self._pipeline = Pipeline(self.config, services)
        try:
            yield
        finally:
            await self._pipeline.close()

    @override
    def on_request(self, exchange: Exchange) -> None:
        exchange[self._trace] = Trace(parent_of(exchange.request), self._samples)

    @override
    def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        trace = exchange[self._trace]
        attempt.set_field(b"traceparent", trace.attempt(attempt.number))
        if trace.parent is None and "tracestate" in exchange.request.headers:
            attempt.headers.popall("tracestate", None)

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        trace = exchange.get(self._trace, None)
        if trace is not None:
            trace.ends[attempt.number] = time.monotonic()

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        trace = exchange.get(self._trace, None)
        if trace is None:  # it did not come this far
            trace = Trace(parent_of(exchange.request), self._samples)
        if not trace.is_sampled:
            return
        wall = _wall_clock()
        for attempt in exchange.attempts:
            self._add_attempt(exchange, attempt, trace, wall)
        self._pipeline.add(
            spans.exchange_name(exchange.request),
            trace.parent,
            (trace.trace_id, trace.span_id),
            (wall(exchange.started), wall(exchange.ended)),
            spans.exchange_attributes(exchange),
            is_client=False,
            is_failed=spans.is_failed(outcome),
        )
        self._ended.add(("ended",), 1 + len(exchange.attempts))

    def _add_attempt(self, exchange: Exchange, attempt: Attempt, trace: Trace, wall: Wall) -> None:
        state = "" if trace.parent is None else trace.parent.state
        token, is_served = exchange.first_token_at, attempt is exchange.served_by
        attributes = spans.attempt_attributes(exchange, attempt, self._peers[attempt.target.upstream])
        self._pipeline.add(
            spans.attempt_name(exchange, attempt),
            Parent(trace.trace_id, trace.span_id, is_sampled=True, state=state),
            (trace.trace_id, trace.attempts.get(attempt.number) or new_id(64)),  # none: refused before it came here
            (wall(attempt.started), wall(min(trace.ends.get(attempt.number, exchange.ended), exchange.ended))),
            attributes,
            is_client=True,
            events=[("first_token", wall(token))] if is_served and token is not None else [],
            is_failed="error.type" in attributes,
        )


def _wall_clock() -> Wall:
    """From the monotonic clock's seconds to nanoseconds since 1970, as clocks stand now."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda seconds: offset + int(seconds * NANO)
