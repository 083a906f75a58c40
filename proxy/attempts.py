"""Targets, attempts, one upstream response: the only loop, and never after a byte has gone down.

An attempt that fails is over at once; one that serves is over after its last byte (`finish`). Whether the next target
is tried is what the plugins' `on_attempt_end` left in `attempt.retry`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxy import refusals
from proxy.body import replace_multipart_field, replace_value
from proxy.errors import Outcome, ProxyError, Unavailable
from proxy.exchange import Attempt, Response
from proxy.routing import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.downstream import Downstream
    from proxy.exchange import Exchange, Request, Target
    from proxy.metrics import Metrics
    from proxy.routing import Route
    from proxy.upstream.openai import OpenAI

SMALL_BODY = 64 * 1024
"""A body up to this is read whole before the upstream is asked: one write, and it can be sent again."""

MAX_ATTEMPTS = 32
"""Whatever plugins ask for."""


class Attempts:
    def __init__(self, upstreams: Mapping[str, OpenAI], metrics: Metrics) -> None:
        self._upstreams = upstreams
        self._metrics = metrics

    async def run(self, exchange: Exchange, route: Route, downstream: Downstream) -> Response:
        """The response of the first target that serves, or of the last that was tried; raises ProxyError."""
        request, chain = exchange.request, route.chain
        if not request.is_buffered:
            await _read_small(request)
        targets = chain.select_targets(exchange, route.targets)
        if not targets:
            raise Unavailable(f"no target of route '{route.name}' can serve now")
        waiting = deque(targets)
        while True:
            attempt, response = await self._try(exchange, waiting.popleft(), downstream)
            if attempt.again and attempt.number < MAX_ATTEMPTS:
                waiting.appendleft(attempt.target)
            if not (waiting and attempt.is_over and attempt.retry and request.is_buffered):
                break
            if response is not None and response.incoming is not None:
                response.incoming.cancel()
        if response is None:
            assert attempt.error is not None
            raise attempt.error
        if response.status >= 400 and request.method != "HEAD":
            return await refusals.held(response, self._upstreams[attempt.target.upstream])
        return response

    def finish(self, exchange: Exchange, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt is over; called again, it changes nothing."""
        if attempt.is_over:
            return
        attempt.outcome = outcome
        self._upstreams[attempt.target.upstream].in_flight -= 1
        self._metrics.attempt_ended(attempt)
        exchange.chain.on_attempt_end(exchange, attempt)

    async def _try(self, exchange: Exchange, target: Target, downstream: Downstream) -> tuple[Attempt, Response | None]:
        if target.model is not None:
            await exchange.request.body()
        elif self._upstreams[target.upstream].asks_model(exchange.request):
            await read_model(exchange.request)
        attempt = self._begin(exchange, target)
        if exchange.chain.sees_attempts:
            await self._prepare(exchange, attempt)
        return attempt, await self._send(exchange, attempt, downstream)

    def _begin(self, exchange: Exchange, target: Target) -> Attempt:
        upstream, request = self._upstreams[target.upstream], exchange.request
        attempt = Attempt(len(exchange.attempts) + 1, target, upstream.request_fields(request), request.at_hand)
        if request.expects_continue and request.is_buffered:  # the app has been asked for its body already
            attempt.headers.popall("expect", None)
        if exchange.chain.reads_bodies and "accept-encoding" in request.headers:
            attempt.replace_field(b"accept-encoding", b"identity")
        if request.is_upgrade and exchange.chain.reads_usage:
            attempt.headers.popall("sec-websocket-extensions", None)  # they compress
        if target.model is not None:
            attempt.body = _with_model(request, attempt.body, target.model)
        if attempt.body is not None and (request.is_replaced or target.model is not None):
            _fit_length(attempt)
        exchange.attempts.append(attempt)
        upstream.in_flight += 1
        return attempt

    async def _prepare(self, exchange: Exchange, attempt: Attempt) -> None:
        before = attempt.body
        try:
            await exchange.chain.on_attempt(exchange, attempt)
        except ProxyError:
            self.finish(exchange, attempt, Outcome.REJECTED)
            raise
        if attempt.is_header_seen or attempt.body is not before:
            _fit_length(attempt)

    async def _send(self, exchange: Exchange, attempt: Attempt, downstream: Downstream) -> Response | None:
        upstream = self._upstreams[attempt.target.upstream]
        try:
            incoming = await upstream.send(exchange.request, attempt, downstream.interim)
        except ProxyError as error:
            attempt.error = error
            self.finish(exchange, attempt, error.outcome)
            return None
        attempt.status = incoming.status
        if incoming.status >= 400:
            self.finish(exchange, attempt, Outcome.UPSTREAM_ERROR if incoming.status >= 500 else Outcome.CLIENT_ERROR)
        return Response.of_incoming(incoming, upstream.response_fields(incoming))


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


def _fit_length(attempt: Attempt) -> None:
    """A body that was changed has a length of its own."""
    if attempt.body is not None:
        attempt.replace_field(b"content-length", b"%d" % len(attempt.body))
