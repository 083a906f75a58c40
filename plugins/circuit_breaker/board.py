"""All breakers of a running Weir: plugin instances that would judge an upstream alike judge it together.

That holds for those of an old config and a new one, too. A breaker is forgotten with the last that uses it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from plugins.circuit_breaker.breaker import Breaker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from plugins.circuit_breaker.breaker import Rules
    from proxy.plugin import Services

    Use = tuple[str, str, Rules]


class Board:
    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._gauge = services.gauge(
            "weir_breaker_state",
            "0 closed, 1 half-open, 2 open; the worst where routes have rules of their own",
            ("upstream",),
            "max",
        )
        self._breakers: dict[str, dict[Use, Breaker]] = {}
        self._users: Counter[tuple[str, Use]] = Counter()

    @contextlib.contextmanager
    def breakers(self, upstreams: Mapping[str, str], plugin: str, rules: Rules) -> Iterator[Mapping[str, Breaker]]:
        """By upstream, of which `upstreams` has the address: another address is another one.

        Plugins of other names would take each other's trials.
        """
        uses = {name: (address, plugin, rules) for name, address in upstreams.items()}
        try:
            yield {name: self._use(name, use) for name, use in uses.items()}
        finally:
            for name, use in uses.items():
                self._leave(name, use)

    def described(self) -> dict[str, Any]:
        """By upstream, as `/state` shows it there."""
        return {"upstreams": {name: {"breaker": self._worst(name).described()} for name in self._breakers}}

    def _use(self, upstream: str, use: Use) -> Breaker:
        of_upstream = self._breakers.setdefault(upstream, {})
        self._users[upstream, use] += 1
        if use not in of_upstream:
            of_upstream[use] = Breaker(upstream, use[-1], self._clock, lambda: self._show(upstream))
            self._show(upstream)
        return of_upstream[use]

    def _leave(self, upstream: str, use: Use) -> None:
        self._users[upstream, use] -= 1
        if self._users[upstream, use]:
            return
        del self._users[upstream, use], self._breakers[upstream][use]
        self._show(upstream)

    def _show(self, upstream: str) -> None:
        if self._breakers.get(upstream):
            self._gauge.set((upstream,), self._worst(upstream).level)
        else:
            self._breakers.pop(upstream, None)
            self._gauge.values.pop((upstream,), None)

    def _worst(self, upstream: str) -> Breaker:
        return max(self._breakers[upstream].values(), key=lambda breaker: breaker.level)


def board_of(services: Services) -> Board:
    return services.kept(Board, lambda: Board(services))
