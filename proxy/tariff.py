"""Who knows what tokens cost: what a plugin that prices exchanges gives to those that budget them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.exchange import Key

if TYPE_CHECKING:
    from decimal import Decimal

    from proxy.exchange import Exchange, Request, Target


class Tariff(Protocol):
    """US dollars, exact."""

    def estimate(self, request: Request, target: Target, given: int, made: int) -> Decimal | None:
        """What so many tokens of prompt and answer cost there; None: it has no price."""

    def spent(self, exchange: Exchange) -> Decimal:
        """For `on_complete`: what it came to, with what failed attempts wasted; what has no price adds nothing."""


TARIFF: Key[Tariff] = Key("prices")
"""Set in `on_request` by the plugin that prices this exchange."""
