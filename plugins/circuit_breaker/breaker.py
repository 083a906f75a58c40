"""One upstream's breaker: pybreaker's three states, with deadlines, leases and a failure rate of our own.

pybreaker is a state machine here and never around an await: it is told what an attempt came to by a call that returns
or raises at once. Its state object is the epoch: a result from another epoch says nothing of this one. pybreaker goes
by the wall's clock and lets everybody in while half-open, so when and whom to let in is decided here, on a monotonic
clock. All deadlines are absolute: whatever happens to an attempt, its upstream is tried again.
"""

from __future__ import annotations

import contextlib
import logging
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from plugins.circuit_breaker.machine import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, Machine
from plugins.circuit_breaker.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_COOLING = 300.0
"""Whatever an upstream asks for: it may have meant one caller, or milliseconds."""

LOOK_AGAIN = 0.5
"""When to ask again while trials are under way: nobody knows how long they take."""

CLOSED, HALF_OPEN, OPEN = range(3)
_LEVELS = {STATE_CLOSED: CLOSED, STATE_HALF_OPEN: HALF_OPEN, STATE_OPEN: OPEN}

log = logging.getLogger("weir.circuit_breaker")


class Rules(NamedTuple):
    """What opens it, and how it closes again; times in seconds, `failure_rate` a part of 1 or None: no such rule."""

    fail_max: int
    reset_timeout: float
    trial: int
    failure_rate: float | None
    window: float
    min_calls: int


class Lease:
    """An attempt's leave to go; a trial's counts until then."""

    __slots__ = ("epoch", "until")

    def __init__(self, epoch: object, until: float = math.inf) -> None:
        self.epoch = epoch
        self.until = until


class Breaker:
    """`acquire` before an attempt, and with its lease one of `succeed`, `fail`, `cool` and `free` after it."""

    def __init__(self, upstream: str, rules: Rules, clock: Callable[[], float], on_change: Callable[[], None]) -> None:
        self.upstream = upstream
        self._rules = rules
        self._failure_rate = rules.failure_rate
        self._clock = clock
        self._on_change = on_change
        self._machine = Machine(rules.fail_max, rules.reset_timeout, throw_new_error_on_trip=False)
        self._window = Window(rules.window)
        self._reason = ""
        self._trials: list[Lease] = []
        self._standing: Lease | None = None
        self._has_failed = False
        self._barred_until = self._cooling_until = -math.inf
        self.free_at = -math.inf
        """The clock's time from which on an attempt may go."""
        self._begin_epoch()

    @property
    def level(self) -> int:
        """0 closed, 1 half-open, 2 open."""
        return _LEVELS[self._machine.current_state]

    def seconds_left(self, now: float) -> float:
        """Until it is worth asking again."""
        left = self.free_at - now
        is_on_trial = self.level == HALF_OPEN and now >= self._cooling_until
        return min(left, LOOK_AGAIN) if is_on_trial else left

    def acquire(self) -> Lease | None:
        """None: not now. A cooling upstream lets in who comes all the same: he has waited as long as he was told."""
        if self._standing is not None:
            return self._standing
        now = self._clock()
        if now < self._barred_until:
            return None
        if self.level == OPEN:
            self._machine.half_open()
            self._changed("its time is up")
        lease = Lease(self._epoch, now + self._rules.reset_timeout)
        self._set_trials([*(trial for trial in self._trials if trial.until > now), lease])
        return lease

    def succeed(self, lease: Lease) -> None:
        if lease.epoch is not self._epoch:
            return
        if lease is not self._standing:
            self._machine.call(_nothing)
            self._changed("a trial succeeded")
            return
        if self._has_failed:
            self._has_failed = False
            self._machine.call(_nothing)
        if self._failure_rate is not None:
            self._window.add(self._clock(), failed=False)

    def fail(self, lease: Lease, why: str) -> None:
        if lease.epoch is not self._epoch:
            return
        self._has_failed = True
        with contextlib.suppress(_FailureError):
            self._machine.call(_raise)
        if self.level == OPEN:
            in_a_row = f"{self._rules.fail_max} in a row failed, the last one: {why}"
            self._changed(in_a_row if lease is self._standing else f"a trial failed: {why}")
        elif self._failure_rate is not None:
            self._judge_rate(self._failure_rate)

    def cool(self, lease: Lease, seconds: float) -> None:
        """The upstream asked for a pause. What others are told during it does not make it longer."""
        self.free(lease)
        now = self._clock()
        if lease.epoch is self._epoch and now >= self._cooling_until and seconds > 0:
            self._cooling_until = now + min(seconds, MOST_COOLING)
            self._bar(self._barred_until)
            log.info("upstream cools down", extra={"upstream": self.upstream, "until": self._at(self._cooling_until)})

    def free(self, lease: Lease) -> None:
        """The attempt says nothing of its upstream."""
        if lease in self._trials:
            self._set_trials([trial for trial in self._trials if trial is not lease])

    def described(self) -> dict[str, Any]:
        """For people; times are in UTC, None where they are over."""
        now = self._clock()
        return {
            "state": self._machine.current_state,
            "reason": self._reason or None,
            "until": self._at(self._barred_until) if self._barred_until > now else None,
            "cooling_until": self._at(self._cooling_until) if self._cooling_until > now else None,
            "failures_in_a_row": self._machine.fail_counter,
            "trials": len(self._trials),
        }

    def _judge_rate(self, most: float) -> None:
        self._window.add(self._clock(), failed=True)
        failures, calls = self._window.failures, self._window.calls
        if calls >= self._rules.min_calls and failures >= most * calls:
            self._machine.open()
            self._changed(f"{failures} of {calls} failed in {self._rules.window:g} s")

    def _set_trials(self, trials: list[Lease]) -> None:
        self._trials = trials
        is_full = len(trials) >= self._rules.trial
        self._bar(min(trial.until for trial in trials) if is_full else -math.inf)

    def _bar(self, until: float) -> None:
        self._barred_until = until
        self.free_at = max(until, self._cooling_until)

    def _begin_epoch(self) -> None:
        self._epoch = self._machine.state
        self._has_failed = False
        self._standing = Lease(self._epoch) if self.level == CLOSED else None
        self._set_trials([])

    def _changed(self, reason: str) -> None:
        self._begin_epoch()
        self._reason = reason
        extra = {"upstream": self.upstream, "reason": reason}
        if self.level == OPEN:
            self._bar(self._clock() + self._rules.reset_timeout)
            log.warning("breaker open", extra={**extra, "until": self._at(self._barred_until)})
        else:
            self._window = Window(self._rules.window)
            log.info("breaker %s", self._machine.current_state, extra=extra)
        self._on_change()

    def _at(self, moment: float) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=moment - self._clock())


class _FailureError(Exception):
    """What pybreaker is told of a failure."""


def _nothing() -> None:
    """What pybreaker is told of a success."""


def _raise() -> None:
    raise _FailureError
