"""Targets, attempts, one upstream response: the only loop, and never after a byte has gone down.

An attempt that fails is over at once; one that serves is over after its last byte (`finish`). Whether the next target
is tried is what the plugins' `on_attempt_end` left in `attempt.retry`.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from proxy import refusals, static
from proxy.attempt import Attempt
from proxy.balance import note_end
from proxy.body import replace_multipart_field, replace_value
from proxy.encoding import is_plain
from proxy.errors import OK, Outcome, OutOfTime, PassedOver, ProxyError, Unavailable, UpstreamTimeout
from proxy.fault import Fault, Kind, fault_in_band, fault_of_end, fault_of_error, fault_of_response, outcome_of
from proxy.preview import looked_at, serves_at_once
from proxy.response import Response
from proxy.routing import read_model
from proxy.splice import Splice, can_be_continued, continuing
from proxy.upstream.warming import first_ready
from proxy.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.attempt import Hold, Target
    from proxy.downstream import Downstream
    from proxy.exchange import Exchange
    from proxy.metrics import Metrics
    from proxy.queue import Queue
    from proxy.request import Request
    from proxy.routing import Route
    from proxy.upstream.incoming import Incoming
    from proxy.upstream.openai import OpenAI

SMALL_BODY = 64 * 1024
"""A body up to this is read whole before the upstream is asked: one write, and it can be sent again."""

MAX_ATTEMPTS = 32
MAX_WAITS = 3
"""Whatever plugins ask for."""


@dataclass(slots=True)
class _Way:
    """An exchange's way to its answer; `text` is what another upstream has answered already."""

    exchange: Exchange
    route: Route
    downstream: Downstream
    text: str = ""


class Attempts:
    def __init__(self, upstreams: Mapping[str, OpenAI], metrics: Metrics) -> None:
        self._upstreams = upstreams
        self._metrics = metrics

    async def run(self, exchange: Exchange, route: Route, downstream: Downstream) -> Response:
        """The response of the first target that serves, or of the last that was tried; raises ProxyError."""
        if exchange.request.at_hand is None:
            wants_body = route.needs_body and exchange.request.generates
            await (exchange.request.body() if wants_body else _read_small(exchange.request))
        exchange.targets = route.ordered(exchange)
        way = _Way(exchange, route, downstream)
        if route.queue is None or exchange.request.method != "POST":  # what only asks is no work for a GPU
            response = await self._served(way, await self._first(way))
        else:
            response = await self._queued(way, route.queue)
        tries = exchange.attempts
        goes_on = tries and tries[-1].continues and _is_text_stream(response)
        if goes_on and can_be_continued(exchange.request.glimpse()):
            response.incoming = Splice(cast("Incoming", response.incoming), functools.partial(self._go_on, way))
        return response

    async def _queued(self, way: _Way, queue: Queue) -> Response:
        """The same, when its turn has come."""
        try:
            if await queue.turn(way.exchange):
                way.exchange.targets = way.route.ordered(way.exchange)
            return await self._served(way, await self._first(way))
        finally:
            queue.leave(way.exchange)

    async def _served(self, way: _Way, target: Target) -> Response:
        refusal: Response | None = None
        left = way.exchange.targets
        while True:
            if target.static is not None:
                return await _static(way.exchange, target.static)
            try:
                attempt, response = await self._try(way, target)
            except PassedOver:
                left.remove(target)
                if left:
                    target = await self._first(way)
                    continue
                if refusal is None:
                    raise
                return refusal
            only_loads = attempt.is_over and self._only_loads(way, attempt)
            following = await self._first(way) if only_loads else self._following(way, attempt)
            if following is None:
                break
            target = following
            refusal = response if response is not None and response.incoming is None else None
            _abandon(response)
            if attempt.pause and not only_loads:
                await asyncio.sleep(attempt.pause)
        if response is None:
            assert attempt.error is not None
            raise attempt.error
        return response

    def _following(self, way: _Way, attempt: Attempt) -> Target | None:
        if not (attempt.again and attempt.number < MAX_ATTEMPTS):
            way.exchange.targets.remove(attempt.target)
        return self._next(way, attempt)

    async def _go_on(self, way: _Way, broken: ProxyError, text: str) -> Incoming | None:
        """Another upstream's answer from where this one broke off, if the plugins want that and one can."""
        exchange = way.exchange
        attempt, way.text = exchange.attempts[-1], text
        exchange.targets = [target for target in exchange.targets if target.static is None]
        attempt.fault = fault_of_error(broken)
        self.finish(exchange, attempt, Outcome.STREAM_INTERRUPTED)
        if attempt.again and attempt.number < MAX_ATTEMPTS:
            exchange.targets.insert(0, attempt.target)
        target = self._next(way, attempt)
        try:
            response = await self._served(way, target) if target is not None else None
        except ProxyError:
            return None
        if response is None or not _is_text_stream(response) or exchange.attempts[-1].is_over:
            _abandon(response)
            return None
        return cast("Incoming", response.incoming)

    async def _first(self, way: _Way) -> Target:
        """Waits where a plugin says that it is worth it, a few times; raises Unavailable."""
        waits = MAX_WAITS
        while True:
            try:
                targets: Sequence[Target] = way.exchange.chain.select_targets(way.exchange, way.exchange.targets)
                if targets and way.route.may_load:
                    return await self._loaded(way, targets)
                if targets:
                    return targets[0]
                break
            except Unavailable as error:
                if error.wait is None or not waits:
                    raise
                waits -= 1
                await asyncio.sleep(error.wait)
        raise Unavailable(f"no target of route '{way.route.name}' can serve now")

    async def _loaded(self, way: _Way, targets: Sequence[Target]) -> Target:
        """The first whose model is loaded; waits for one where all are still loading. Raises Unavailable."""
        for target in targets:
            upstream = self._upstreams.get(target.upstream)
            if upstream is None or not upstream.is_loading:
                return target
        exchange, began = way.exchange, time.monotonic()
        last = exchange.attempts[-1] if exchange.attempts else None
        left = math.inf if last is None else last.started + last.deadline - began
        loading = [warming for target in targets if (warming := self._upstreams[target.upstream].warming) is not None]
        try:
            ready = await first_ready(loading, left)
        finally:
            if last is None:
                exchange.request.waited += time.monotonic() - began
        return targets[loading.index(ready)]

    def _only_loads(self, way: _Way, attempt: Attempt) -> bool:
        """Whether an attempt failed because its upstream is still loading, which has time for that."""
        if attempt.fault is None or attempt.fault.kind is not Kind.LOADING:
            return False
        is_waited_for = self._upstreams[attempt.target.upstream].is_loading
        return is_waited_for and way.exchange.request.is_buffered and attempt.number < MAX_ATTEMPTS

    def _next(self, way: _Way, attempt: Attempt) -> Target | None:
        """The target that is tried after this attempt, if any: plugins are asked once more which can serve."""
        left = way.exchange.targets
        if not (attempt.is_over and attempt.retry and left and way.exchange.request.is_buffered):
            return None
        if attempt.again:
            return attempt.target
        try:
            targets = way.route.chain.select_targets(way.exchange, left)
        except Unavailable:
            return None
        return targets[0] if targets else None

    def finish(self, exchange: Exchange, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt is over; called again, it changes nothing."""
        if attempt.is_over:
            return
        attempt.outcome = outcome
        if attempt.fault is None and outcome is not OK:
            told = exchange.told
            attempt.fault = fault_of_end(outcome, exchange.error) if told is None else fault_in_band(told)
        if attempt.fault is not None and (exchange.response is None or attempt.continues):
            exchange.others = _others(exchange, attempt)
        self._upstreams[attempt.target.upstream].end(attempt)
        self._metrics.attempt_ended(attempt)
        if attempt.pace is not None or attempt.work is not None:
            note_end(exchange, attempt)
        exchange.chain.on_attempt_end(exchange, attempt)

    async def _try(self, way: _Way, target: Target) -> tuple[Attempt, Response | None]:
        """Raises PassedOver where a plugin does not want this target."""
        exchange = way.exchange
        if target.model is not None:
            await exchange.request.body()
        elif self._upstreams[target.upstream].asks_model(exchange.request):
            await read_model(exchange.request)
        attempt = self._begin(exchange, target)
        if way.text:
            _continue(attempt, exchange.request, way.text)
        if exchange.chain.sees_attempts:
            await self._prepare(exchange, attempt)
        response = await self._send(exchange, attempt, way.downstream)
        if attempt.hold is not None and response is not None and attempt.status == 200 and not serves_at_once(response):
            response = await self._looked_at(way, attempt, attempt.hold, response)
        return attempt, response

    def _begin(self, exchange: Exchange, target: Target) -> Attempt:
        upstream, request = self._upstreams[target.upstream], exchange.request
        fields = upstream.request_fields(request, readable=exchange.chain.reads_bodies)
        attempt = Attempt(len(exchange.attempts) + 1, target, fields, request.at_hand)
        attempt.pace = upstream.pace
        if request.expects_continue and request.is_buffered:  # the app has been asked for its body already
            attempt.headers.popall("expect", None)
        if request.is_upgrade and exchange.chain.reads_usage:
            attempt.headers.popall("sec-websocket-extensions", None)  # they compress
        if target.model is not None:
            attempt.body = _with_model(request, attempt.body, target.model)
        if attempt.body is not None and (request.is_replaced or target.model is not None):
            _fit_length(attempt)
        exchange.attempts.append(attempt)
        upstream.begin(attempt)
        return attempt

    async def _prepare(self, exchange: Exchange, attempt: Attempt) -> None:
        before = attempt.body
        try:
            await exchange.chain.on_attempt(exchange, attempt)
        except PassedOver:
            exchange.attempts.remove(attempt)
            self._upstreams[attempt.target.upstream].end(attempt)
            attempt.outcome, attempt.fault = Outcome.REJECTED, Fault(Kind.OURS)
            exchange.chain.on_attempt_end(exchange, attempt)  # plugins that have let it in let it out
            raise
        except ProxyError:
            self.finish(exchange, attempt, Outcome.REJECTED)
            raise
        if attempt.is_header_seen or attempt.body is not before:
            _fit_length(attempt)

    async def _send(self, exchange: Exchange, attempt: Attempt, downstream: Downstream) -> Response | None:
        upstream = self._upstreams[attempt.target.upstream]
        try:
            incoming = await self._begun(exchange, attempt, upstream, downstream)
        except ProxyError as error:
            attempt.error, attempt.fault = error, fault_of_error(error)
            if upstream.warming is not None:
                attempt.fault = upstream.warming.judged(attempt.fault)
            self.finish(exchange, attempt, error.outcome)
            return None
        attempt.status = incoming.status
        response = Response.of_incoming(incoming, upstream.response_fields(incoming))
        if upstream.warming is not None and incoming.status < 400:
            upstream.warming.served()
        return response if incoming.status < 400 else await self._refused(exchange, attempt, response, upstream)

    async def _begun(self, exchange: Exchange, attempt: Attempt, upstream: OpenAI, downstream: Downstream) -> Incoming:
        """The upstream's answer from its head on, unless it is silent and another target shall take over."""
        hold = attempt.hold
        if hold is None or hold.silence == math.inf:
            return await upstream.send(exchange.request, attempt, downstream.interim)
        loop, patience = asyncio.get_running_loop(), asyncio.timeout(None)

        def look() -> None:
            if _gives_way(exchange, attempt, hold):
                patience.reschedule(loop.time())

        looking = loop.call_later(hold.silence, look)
        try:
            async with patience:
                return await upstream.send(exchange.request, attempt, downstream.interim)
        except TimeoutError:
            raise UpstreamTimeout(f"upstream '{upstream.name}' did not begin its answer in time") from None
        finally:
            looking.cancel()

    async def _refused(self, exchange: Exchange, attempt: Attempt, response: Response, upstream: OpenAI) -> Response:
        """What the upstream said instead of an answer, with its whole body."""
        if exchange.request.method != "HEAD":
            response = await refusals.held(response, upstream)
        attempt.fault = fault_of_response(response)
        if upstream.warming is not None:
            attempt.fault = upstream.warming.judged(attempt.fault, response.status)
        outcome = Outcome.UPSTREAM_ERROR if response.status >= 500 else Outcome.CLIENT_ERROR
        self.finish(exchange, attempt, outcome)
        return response

    async def _looked_at(self, way: _Way, attempt: Attempt, hold: Hold, response: Response) -> Response | None:
        """The answer once it is known whether it serves, or None where it has not in time."""
        request = way.exchange.request
        fault = await looked_at(
            response, attempt, hold, expects_terminal=request.generates, only_reads=request.only_reads
        )
        if fault is None or (fault.kind is Kind.SLOW and not _gives_way(way.exchange, attempt, hold)):
            return response
        attempt.fault = fault
        if fault.kind in _TOO_LATE:
            _abandon(response)
            attempt.error = _TOO_LATE[fault.kind](f"upstream '{attempt.target.upstream}' sent no token in time")
            self.finish(way.exchange, attempt, attempt.error.outcome)
            return None
        self.finish(way.exchange, attempt, outcome_of(fault))
        return response


_TOO_LATE = {Kind.SLOW: UpstreamTimeout, Kind.LATE: OutOfTime}


def _others(exchange: Exchange, attempt: Attempt) -> Sequence[Target]:
    """The targets that could be tried now instead of this attempt's."""
    others = [target for target in exchange.targets if target is not attempt.target]
    try:
        return exchange.chain.select_targets(exchange, others) if others else ()
    except ProxyError:
        return ()


def _gives_way(exchange: Exchange, attempt: Attempt, hold: Hold) -> bool:
    """Whether another target shall take over from a slow answer; asked while the attempt is not over yet."""
    others = exchange.others = _others(exchange, attempt)
    return bool(others) and (hold.gives_way is None or hold.gives_way(exchange, attempt))


async def _static(exchange: Exchange, text: str) -> Response:
    """No attempt, and no tokens."""
    await exchange.request.body()
    exchange.is_static, exchange.usage = True, Usage()
    return static.answer(exchange, text)


async def _read_small(request: Request) -> None:
    if not request.is_buffered and not request.expects_continue:
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) <= SMALL_BODY:
            await request.body()


def _with_model(request: Request, body: bytes | None, model: str | None) -> bytes | None:
    """The body with the target's own model name in it, where it names one."""
    if not body or model is None:
        return body
    if request.content_type == "multipart/form-data":
        return replace_multipart_field(body, request.headers.get("content-type", ""), "model", model)
    return replace_value(body, "model", model) if request.names_model() else body


def _continue(attempt: Attempt, request: Request, text: str) -> None:
    key, prompt = continuing(request.glimpse(), text)
    attempt.body = replace_value(attempt.body or b"", key, prompt)
    _fit_length(attempt)


def _is_text_stream(response: Response) -> bool:
    """Of an upstream, which a static answer is not."""
    is_stream = response.incoming is not None and response.status == 200 and response.is_event_stream
    return is_stream and is_plain(response.field(b"content-encoding"))


def _abandon(response: Response | None) -> None:
    if response is not None and response.incoming is not None:
        response.incoming.cancel()


def _fit_length(attempt: Attempt) -> None:
    """A body that was changed has a length of its own."""
    if attempt.body is not None:
        attempt.replace_field(b"content-length", b"%d" % len(attempt.body))
