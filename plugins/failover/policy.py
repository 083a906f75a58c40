"""What to do after an attempt that failed: nothing here waits, counts or knows an exchange.

A target that is silent is never asked again: that only multiplies the wait. One that says no at once may say yes the
next time, but while others wait for their turn it is asked again only once, and only where each of them can still
have one. What the upstream said of when to come back is kept to, or, where that is too long, it is left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxy.plugin import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.plugin import Fault


class Failed(NamedTuple):
    """An attempt that failed, and what is left to its request.

    `tries`: how often this target was asked; `took`: how long this try lasted; `left`: of the deadline, in seconds;
    `attempts`: how many may follow; `others`: how many targets there are beside this one; `may_repeat`: whether it
    does no harm to send it again although it may have been carried out; `is_ample`: whether a try can be spared.
    """

    fault: Fault
    tries: int
    took: float
    left: float
    attempts: int
    others: int
    may_repeat: bool
    is_ample: bool


class Turn(NamedTuple):
    """Another try: of the same target (`again`), after so many seconds, or of the next one."""

    again: bool
    pause: float = 0.0


class Policy:
    def __init__(self, first: float, most: float, random: Callable[[], float]) -> None:
        """`first` and `most`: the backoff, in seconds; `random` gives numbers from 0 to 1."""
        self._first = first
        self._most = most
        self._random = random

    def turn(self, failed: Failed) -> Turn | None:
        """None: the failure is the answer."""
        if failed.attempts <= 0 or failed.left <= 0:
            return None
        kind = failed.fault.kind
        may_repeat = kind is Kind.DROPPED and failed.may_repeat
        if may_repeat or _may_be_asked_again(failed.fault):
            pause = self._pause(failed)
            if pause < failed.left and (not failed.others or self._is_worth_it(failed)):
                return Turn(again=True, pause=pause)
        return Turn(again=False) if failed.others and (kind.may_move or may_repeat) else None

    def _pause(self, failed: Failed) -> float:
        """Seconds; at random, so that those who failed together do not come back together."""
        told = failed.fault.retry_after
        if told is not None:
            return told + self._random() * self._first
        return self._random() * min(self._most, self._first * 2.0 ** (failed.tries - 1))

    def _is_worth_it(self, failed: Failed) -> bool:
        """The same once more although others wait."""
        fault, told = failed.fault, failed.fault.retry_after
        is_near = told <= self._most if told is not None else fault.should_retry or fault.kind is Kind.SERVER_ERROR
        is_quick = failed.tries == 1 and failed.took <= self._most
        return bool(is_near) and is_quick and failed.is_ample and failed.attempts > failed.others


def _may_be_asked_again(fault: Fault) -> bool:
    """Who answered knows best whether the same request may succeed."""
    return fault.kind.is_transient if fault.should_retry is None else fault.should_retry
