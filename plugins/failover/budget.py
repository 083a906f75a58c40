"""How many further tries all requests of a process may make: when everything is down, retries must not add to it.

Each request earns its share of a token, and each further try takes one. A reserve that time fills up lets the few
requests of a quiet hour try again, too. A move to an upstream that serves adds nothing to an outage, so it is free.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.plugin import Services

RESERVE = 10.0
REFILL = 1.0  # tokens per second, up to the reserve
MOST = 50.0
"""However long nothing has failed."""

log = logging.getLogger("weir.failover")


class Budget:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tokens = RESERVE
        self._filled_at = clock()
        self._is_told = False
        self.serving: set[str] = set()
        """Upstreams whose latest answer was one."""

    @property
    def is_ample(self) -> bool:
        """Whether there is more than what moves to other targets may need next."""
        self._fill()
        return self._tokens >= RESERVE / 2

    @property
    def is_spent(self) -> bool:
        self._fill()
        return self._tokens < 1

    def earn(self, share: float) -> None:
        if self._tokens < MOST:
            self._tokens += share

    def take(self) -> bool:
        """Whether there was a token."""
        if self.is_spent:
            self._tell()
            return False
        self._tokens -= 1
        self._is_told = False
        return True

    def _fill(self) -> None:
        now = self._clock()
        if self._tokens < RESERVE:
            self._tokens = min(RESERVE, self._tokens + (now - self._filled_at) * REFILL)
        self._filled_at = now

    def _tell(self) -> None:
        """Once, until there is a token again."""
        if not self._is_told:
            self._is_told = True
            log.warning("the retry budget is spent: failures are passed on, nothing else is tried")


def budget_of(services: Services) -> Budget:
    """One for all instances of the plugin."""
    return services.kept(Budget, lambda: Budget(services.clock))
