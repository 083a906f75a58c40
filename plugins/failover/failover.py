"""The plugin: bounds and holds each attempt while another one could follow, and says what follows one that failed."""

from __future__ import annotations

import contextlib
import math
import random
from typing import TYPE_CHECKING

from typing_extensions import override

from plugins.failover.asking import HARMLESS, asks_for_stream, is_bound, keeps
from plugins.failover.budget import budget_of
from plugins.failover.policy import Failed, Policy
from plugins.failover.settings import FailoverConfig
from proxy.plugin import FailureMode, Fault, Hold, Key, Kind, Plugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from plugins.failover.policy import Turn
    from proxy.plugin import Attempt, Exchange, Request, Response, Services, Target

RESIGNED: Key[bool] = Key("no upstream is tried any more")
SOONEST = 0.001
"""Seconds that an attempt is given however late it is."""


class Failover(Plugin[FailoverConfig]):
    Config = FailoverConfig
    failure_mode = FailureMode.OPEN

    def __init__(self, config: FailoverConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._most, self._deadline, self._share = config.max_attempts, config.deadline, config.retry_budget
        self._policy = Policy(config.backoff.first, config.backoff.most, random.random)
        self._first_byte = math.inf if config.first_byte is None else config.first_byte
        self._first_token = math.inf if config.first_token is None else config.first_token
        self._is_whole = config.hold == "full"
        size = config.hold_full_bytes if self._is_whole else config.hold_bytes
        self._hold = Hold(size, self._first_token, self._is_whole, self._gives_way)
        self._hold_stream = self._hold._replace(silence=self._first_token)

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        self._clock = services.clock
        self._budget = budget_of(services)
        self._replay_safe = {name for name, upstream in services.upstreams.items() if upstream.replay_safe}
        self._passes_through = {name for name, up in services.upstreams.items() if up.auth == "passthrough"}
        yield

    @override
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        """What shall be sent again must be at hand; files are left to stream through."""
        request = exchange.request
        if request.at_hand is None and self._most > 1 and not keeps(request):
            return _read(request)
        return None

    @override
    def select_targets(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
        return _able(exchange, targets) if exchange.attempts else targets

    @override
    def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        request = exchange.request
        if attempt.number == 1:
            self._budget.earn(self._share)
            attempt.deadline = self._deadline
        else:
            attempt.deadline = max(self._left(exchange, attempt.started), SOONEST)
        attempt.first_byte = self._first_byte
        may_follow = attempt.number < self._most and request.is_buffered
        attempt.continues = self.config.continue_midstream and may_follow
        if may_follow and len(exchange.targets) > 1 and asks_for_stream(request):
            attempt.hold = self._hold_stream
        elif may_follow or self._is_whole:
            attempt.hold = self._hold

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        """What another plugin has said of its own wish stays. Of what has gone down only text may be gone on with."""
        fault = attempt.fault
        if fault is None:
            self._budget.serving.add(attempt.target.upstream)
            return
        if _fails(fault) and fault.kind not in _NO_NEWS:
            self._budget.serving.discard(attempt.target.upstream)
        is_down = exchange.response is not None and not attempt.continues
        if is_down or self._is_callers(attempt.target, fault):
            return
        others = _untried(exchange)
        turn = self._policy.turn(self._failed(exchange, attempt, fault, len(others)))
        if turn is not None and (self._is_free(turn, others) or self._budget.take()):
            attempt.retry, attempt.again, attempt.pause = True, turn.again, turn.pause
        elif _fails(fault) and any(map(_is_static, others)):
            exchange[RESIGNED] = attempt.retry = True

    @override
    def on_response(self, exchange: Exchange, response: Response) -> None:
        """That the next target serves is worth knowing before its last byte.

        This hook also makes answers come uncompressed, so that they can be looked at.
        """
        if len(exchange.attempts) > 1 and response.status < 400 and exchange.attempts[-1].fault is None:
            self._budget.serving.add(exchange.attempts[-1].target.upstream)

    def _is_callers(self, target: Target, fault: Fault) -> bool:
        """Whether the credential that was refused is the app's own."""
        return fault.kind is Kind.REFUSED and target.upstream in self._passes_through

    def _left(self, exchange: Exchange, now: float) -> float:
        """Seconds; who goes on with an answer has the whole time again."""
        if exchange.response is not None:
            return self._deadline
        return self._deadline - (now - exchange.attempts[0].started)

    def _failed(self, exchange: Exchange, attempt: Attempt, fault: Fault, others: int) -> Failed:
        now, target, request = self._clock(), attempt.target, exchange.request
        return Failed(
            fault,
            tries=sum(tried.target is target for tried in exchange.attempts),
            took=now - attempt.started,
            left=self._left(exchange, now),
            attempts=self._most - attempt.number if request.is_buffered else 0,
            others=others,
            may_repeat=request.method in HARMLESS or target.upstream in self._replay_safe,
            is_ample=self._budget.is_ample,
        )

    def _gives_way(self, exchange: Exchange, attempt: Attempt) -> bool:
        """Whether another target takes over from a stream without a token so far."""
        others = _untried(exchange)
        turn = self._policy.turn(self._failed(exchange, attempt, Fault(Kind.SLOW), len(others)))
        return turn is not None and (self._is_free(turn, others) or not self._budget.is_spent)

    def _is_free(self, turn: Turn, others: Sequence[Target]) -> bool:
        """A move to what serves, or needs nobody to serve it."""
        return not turn.again and (_is_static(others[0]) or others[0].upstream in self._budget.serving)


async def _read(request: Request) -> None:
    await request.body()


def _untried(exchange: Exchange) -> Sequence[Target]:
    """The targets that could be moved to now, in order."""
    if is_bound(exchange.request):
        return ()
    tried = [attempt.target for attempt in exchange.attempts]
    return [target for target in exchange.others if target not in tried]


_NO_NEWS = frozenset({Kind.CONTEXT_LENGTH, Kind.LATE})
"""After these an upstream is what it was before."""


def _fails(fault: Fault) -> bool:
    """Whether it is the target that did not serve: not what the app asked for, nor that it left."""
    return fault.kind.may_move or fault.kind is Kind.DROPPED


def _is_static(target: Target) -> bool:
    return target.static is not None


def _able(exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
    """Those worth a try: of a prompt that was too long for one, the targets that are known to take more."""
    if exchange.get(RESIGNED, False):
        return [target for target in targets if _is_static(target)]
    tries = exchange.attempts
    short = [tried.target for tried in tries if tried.fault and tried.fault.kind is Kind.CONTEXT_LENGTH]
    if not short:
        return targets
    window = max(target.context_window or 0 for target in short)
    return [target for target in targets if (target.context_window or 0) > window]
