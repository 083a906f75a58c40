"""Who knows what tokens cost: what a plugin that prices exchanges gives to those that budget them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.exchange import Key

if TYPE_CHECKING:
    from decimal import Decimal

    from proxy.exchange import Exchange


class Tariff(Protocol):
    def rates(self, upstream: str, model: str | None) -> tuple[int, int] | None:
        """What a token of the prompt and one of the answer cost there, in femto-dollars; None: it has no price."""

    def spent(self, exchange: Exchange) -> Decimal:
        """For `on_complete`: the US dollars that it came to, with what failed attempts wasted, exact.

        What has no price adds nothing.
        """


FEMTO = 10**15
"""As many are a dollar: each price of a token is a whole number of them."""

TARIFF: Key[Tariff] = Key("prices")
"""Set in `on_request` by the plugin that prices this exchange."""
