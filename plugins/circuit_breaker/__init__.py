"""Leaves alone an upstream that fails, until a few trials show that it serves again.

What an attempt came to is known when its last byte is here, so nothing is recorded before. Only what is the upstream's
fault counts: not what the app asked for, nor that it left, nor a rate limit: of that an upstream rests as long as it
asked for, and no longer.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from typing_extensions import override

from plugins.circuit_breaker.board import board_of
from plugins.circuit_breaker.breaker import Rules
from proxy.plugin import (
    Duration,
    FailureMode,
    Key,
    Kind,
    PassedOver,
    Plugin,
    PluginConfig,
    Unavailable,
    fault,
    written,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from plugins.circuit_breaker.breaker import Breaker, Lease
    from proxy.plugin import Attempt, Exchange, Services, Target

SHORTEST = 0.1
NEVER_OUT = -math.inf


def _some(seconds: float) -> float:
    if seconds < SHORTEST:
        raise fault("is too short", f"write at least {SHORTEST * 1000:.0f}ms")
    return seconds


Span = Annotated[Duration, AfterValidator(_some)]


class BreakerConfig(PluginConfig):
    fail_max: int = Field(default=5, ge=1, description="failures in a row that take an upstream out")
    reset_timeout: Span = written("30s", "how long it stays out before it is tried again")
    trial: int = Field(default=1, ge=1, description="requests at a time that try it then, until one has succeeded")
    failure_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="up to 1: the part of the calls in `window` whose failure takes it out too",
    )
    window: Span = written("30s", "how far back `failure_rate` looks")
    min_calls: int = Field(default=10, ge=1, description="calls in `window` below which `failure_rate` says nothing")
    slow_first_token: Span | None = Field(
        default=None, description="a stream whose first token comes later is a failure"
    )
    max_wait: Duration = written("2s", "how old a request may get by waiting, when every target is out")


class CircuitBreaker(Plugin[BreakerConfig]):
    Config = BreakerConfig
    failure_mode = FailureMode.OPEN

    def __init__(self, config: BreakerConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._lease: Key[Lease] = Key(f"{name}: the attempt's lease")
        self._breakers: Mapping[str, Breaker] = {}
        self._our_key = frozenset[str]()
        self._slow = config.slow_first_token

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        rules = Rules(**self.config.model_dump(include=set(Rules._fields)))
        self._clock = services.clock
        self._board = board_of(services)
        self._our_key = frozenset(name for name, upstream in services.upstreams.items() if upstream.auth == "replace")
        addresses = {name: upstream.base_url for name, upstream in services.upstreams.items()}
        with self._board.breakers(addresses, self.name, rules) as self._breakers:
            yield

    @override
    def state(self) -> Mapping[str, Any]:
        return self._board.described()

    @override
    def select_targets(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
        """A target without an upstream is never out."""
        for target in targets:
            breaker = self._breakers.get(target.upstream)
            if breaker is not None and breaker.free_at > NEVER_OUT:
                return self._free(exchange, targets)
        return targets

    def _free(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
        now, free = self._clock(), []
        for target in targets:
            breaker = self._breakers.get(target.upstream)
            if breaker is None or breaker.free_at <= now:
                free.append(target)
        if not free:
            raise self._all_out(exchange, targets, now)
        return free

    @override
    def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        breaker = self._breakers.get(attempt.target.upstream)
        if breaker is None:
            return
        lease = breaker.acquire()
        if lease is None:
            raise PassedOver(f"upstream '{attempt.target.upstream}' is out for now")
        exchange.facts[self._lease] = lease

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        lease: Lease | None = exchange.facts.pop(self._lease, None)
        if lease is None:
            return
        breaker, fault_ = self._breakers[attempt.target.upstream], attempt.fault
        if fault_ is None and (self._slow is None or not self._is_slow(exchange, attempt, self._slow)):
            breaker.succeed(lease)
        elif fault_ is None:
            breaker.fail(lease, "slow first token")
        elif fault_.kind.is_upstreams:
            breaker.fail(lease, fault_.kind)
            self._spare(breaker, attempt)
        elif fault_.kind is Kind.RATE_LIMITED and attempt.target.upstream in self._our_key:
            breaker.cool(lease, fault_.retry_after or 0.0)
        else:
            breaker.free(lease)

    def _is_slow(self, exchange: Exchange, attempt: Attempt, most: float) -> bool:
        """Of a stream: a WebSocket's first token comes when the app asks for one."""
        came = exchange.first_token_at
        return came is not None and attempt.status == 200 and came - attempt.started > most

    def _spare(self, breaker: Breaker, attempt: Attempt) -> None:
        """An upstream that is out now is not asked once more, whatever a plugin before this one wanted."""
        if attempt.again and breaker.free_at > self._clock():
            attempt.again, attempt.pause = False, 0.0

    def _all_out(self, exchange: Exchange, targets: Sequence[Target], now: float) -> Unavailable:
        seconds = min(self._breakers[target.upstream].seconds_left(now) for target in targets)
        error = Unavailable(
            "every upstream that could serve this is out for now; try again later",
            headers={"retry-after": str(max(math.ceil(seconds), 1))},
        )
        if now + seconds - exchange.started <= self.config.max_wait:
            error.wait = seconds
        return error
