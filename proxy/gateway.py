"""An exchange's way through the house: routing, chain, attempts, relay, completion; each room is entered once.

Whatever happens on the way, `serve` leaves at most one answer and exactly one completion.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from proxy.errors import Outcome, ProxyError
from proxy.exchange import EARLY
from proxy.logs import access_line
from proxy.pulse import Pulse
from proxy.response import Response
from proxy.responses import begin_early, send
from proxy.routing import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.attempts import Attempts
    from proxy.chain import Chain, Placed
    from proxy.downstream import Downstream
    from proxy.exchange import Exchange
    from proxy.lines import Lines
    from proxy.metrics import Metrics
    from proxy.routing import Route, Router
    from proxy.services import Tasks
    from proxy.upstream.openai import OpenAI

MAX_DRAINS = 64
DRAIN_SECONDS = 60.0
"""Bounds of `on_disconnect: drain`: how many answers are read to their end for nobody, and for how long each."""

SETTLE_SECONDS = 0.01
MANY = 64
"""How soon ended exchanges are counted and logged, and how many wait for that at most."""

_NO_STAGES: list[Placed] = []

log = logging.getLogger("weir.gateway")


class Gateway:
    """One config, built: what a reload replaces as a whole."""

    def __init__(
        self,
        router: Router,
        lost: Route,
        gate: Chain,
        upstreams: Mapping[str, OpenAI],
        attempts: Attempts,
        metrics: Metrics,
        access_log: Lines,
        tasks: Tasks,
    ) -> None:
        """`lost` is the way of requests that no route takes, `gate` has the plugins that all routes share."""
        self.router = router
        self.upstreams = upstreams
        self._attempts = attempts
        self._metrics = metrics
        self._access_log = access_log
        self._tasks = tasks
        self._lost = lost
        self._gate = gate
        self._drains: dict[Exchange, asyncio.TimerHandle] = {}
        self._ended: list[Exchange] = []
        self._settling: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._idle = asyncio.Event()

    async def serve(self, exchange: Exchange, downstream: Downstream) -> None:
        """Answer one exchange; cancelled when the app goes and nobody holds the exchange."""
        exchange.chain = self._lost.chain
        self._under_way += 1
        try:
            if exchange.error is None:
                route = await self._route(exchange)
                exchange.route, exchange.offered, exchange.chain = route.name, route.targets, route.chain
                exchange.entered = len(route.chain.plugins)
                if route.drains and not exchange.request.is_upgrade:
                    exchange.on_leave = self._drain
                await self._pass(exchange, route, downstream)
            else:  # the edge refuses it: what is ambiguous meets no plugin
                await send(exchange, Response.of_error(exchange.error), [], downstream)
        finally:  # also where the relay had to cut the connection: then the outcome is known
            self._complete(exchange, downstream)
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def finished(self) -> None:
        """Wait until no exchange that began here is under way."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()

    async def _route(self, exchange: Exchange) -> Route:
        """The first that matches. Where none can, the chain still judges who asks, before `exchange.error` is told."""
        request = exchange.request
        try:
            route = self.router.find(request)
            if route is None:
                if not request.is_buffered:
                    await self._gate.on_head(exchange)
                await read_model(request)
                route = self.router.find(request)
                assert route is not None
        except ProxyError as error:
            exchange.error = error
            return self._lost
        self._metrics.entered(route.name)
        return route

    async def _pass(self, exchange: Exchange, route: Route, downstream: Downstream) -> None:
        response, stages = await self._answer(exchange, route, downstream), _NO_STAGES
        try:
            if route.chain.sees_responses:
                response, stages = await route.chain.on_response(exchange, response)
            await send(exchange, response, stages, downstream)
        except Exception as error:  # noqa: BLE001 - the error boundary
            _abandon(response)
            await self._stumble(exchange, error, downstream)
        except BaseException:
            _abandon(response)
            raise

    async def _answer(self, exchange: Exchange, route: Route, downstream: Downstream) -> Response:
        chain, response = route.chain, None
        try:
            if chain.sees_requests:
                response = await chain.on_request(exchange)
            if response is not None:
                return response
            if exchange.error is not None:
                return Response.of_error(exchange.error)
            if exchange.detour:
                route = self.router.named[exchange.detour]
            if EARLY in exchange:
                return await self._impatient(exchange, route, downstream)
            return await self._attempts.run(exchange, route, downstream)
        except ProxyError as error:
            return Response.of_error(error)
        except Exception as error:  # noqa: BLE001 - the error boundary
            return Response.of_error(self._unforeseen(exchange, error))

    async def _impatient(self, exchange: Exchange, route: Route, downstream: Downstream) -> Response:
        """The app hears something while the upstream is silent, at the price of the answer's status and header."""
        pulse = Pulse(downstream, exchange[EARLY], lambda: begin_early(exchange, downstream))
        try:
            return await self._attempts.run(exchange, route, downstream)
        finally:
            pulse.stop()

    def _unforeseen(self, exchange: Exchange, error: Exception) -> ProxyError:
        log.error("exchange failed", extra={"request_id": exchange.id}, exc_info=error)
        return ProxyError("an error inside Weir; its log has the details under this request id")

    async def _stumble(self, exchange: Exchange, error: Exception, downstream: Downstream) -> None:
        """What nobody foresaw: an honest 500, or a cut where bytes have gone down."""
        if not isinstance(error, ProxyError):
            error = self._unforeseen(exchange, error)
        if downstream.is_started and not downstream.is_early:
            exchange.error, exchange.outcome = error, Outcome.STREAM_INTERRUPTED
            downstream.abort()
        else:
            await send(exchange, Response.of_error(error), [], downstream)

    def _drain(self, exchange: Exchange) -> None:
        """`on_disconnect: drain`: when the app goes, the upstream's answer is still read, for its usage; bounded."""
        if exchange.attempts and len(self._drains) < MAX_DRAINS:
            upstream = self.upstreams.get(exchange.attempts[-1].target.upstream)
            if upstream is not None and upstream.drains:
                exchange.hold()
                later = asyncio.get_running_loop().call_later
                self._drains[exchange] = later(DRAIN_SECONDS, exchange.release)

    def _complete(self, exchange: Exchange, downstream: Downstream) -> None:
        """Once per exchange, after the last byte; what plugins do now runs on a task that nobody can cancel."""
        if exchange.outcome is None or (exchange.goes_on and not downstream.is_cut):
            exchange.outcome = Outcome.CLIENT_ABORT
        if self._drains and exchange in self._drains:
            self._drains.pop(exchange).cancel()
        exchange.ended = time.monotonic()
        if exchange.stages:
            exchange.chain.finish(exchange, exchange.outcome)
        for attempt in exchange.attempts:
            self._attempts.finish(exchange, attempt, exchange.outcome)
        if exchange.admission is not None:
            exchange.admission.free()
        exchange.response_bytes = downstream.sent
        if exchange.chain.completes_on_task:
            self._tasks.start(exchange.chain.on_complete(exchange, exchange.outcome), "on_complete")
        self._ended.append(exchange)
        if len(self._ended) >= MANY:
            self.settle()
        elif self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self.settle)

    def settle_taken(self) -> bool:
        """Settle now, if what has ended still holds claims; whether it did."""
        if not any(exchange.admission is not None and exchange.admission.has_taken for exchange in self._ended):
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Count and log what has ended: a dozen in one go costs half of what each does alone, with cold caches."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        ended, self._ended = self._ended, []
        for exchange in ended:
            self._metrics.exchange_ended(exchange)
            self._access_log.write(access_line(exchange))
            exchange.chain.complete(exchange)
            if exchange.admission is not None:
                exchange.admission.settle()


def _abandon(response: Response) -> None:
    if response.incoming is not None:
        response.incoming.cancel()
