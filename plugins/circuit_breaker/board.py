"""All breakers of a running Weir: plugin instances that would judge an upstream alike judge it together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from plugins.circuit_breaker.breaker import Breaker

if TYPE_CHECKING:
    from plugins.circuit_breaker.breaker import Rules
    from proxy.plugin import Services


class Board:
    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._gauge = services.gauge(
            "weir_breaker_state",
            "0 closed, 1 half-open, 2 open; the worst where routes have rules of their own",
            ("upstream",),
        )
        self._breakers: dict[str, dict[tuple[str, Rules], Breaker]] = {}

    def breaker(self, upstream: str, plugin: str, rules: Rules) -> Breaker:
        """The same for the same three; plugins of other names would take each other's trials."""
        of_upstream = self._breakers.setdefault(upstream, {})
        key = (plugin, rules)
        if key not in of_upstream:
            of_upstream[key] = Breaker(upstream, rules, self._clock, lambda: self._show(upstream))
            self._show(upstream)
        return of_upstream[key]

    def described(self) -> dict[str, Any]:
        """By upstream, as `/state` shows it there."""
        return {"upstreams": {name: {"breaker": self._worst(name).described()} for name in self._breakers}}

    def _show(self, upstream: str) -> None:
        self._gauge.set((upstream,), self._worst(upstream).level)

    def _worst(self, upstream: str) -> Breaker:
        return max(self._breakers[upstream].values(), key=lambda breaker: breaker.level)


_BOARDS: WeakKeyDictionary[Services, Board] = WeakKeyDictionary()


def board_of(services: Services) -> Board:
    if services not in _BOARDS:
        _BOARDS[services] = Board(services)
    return _BOARDS[services]
