"""What is paid by the hour: each request its part of the upstream's time, to the femto-dollar.

The time of an upstream is shared in equal parts by all that are under way in it, so that what they cost together is
what the time cost in which it was busy. Requests that are decoded side by side get their tokens at the same pace: their
parts are as their tokens are. What a token will cost is thus known of those before it.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Final

from proxy.plugin import FEMTO

FIRST_GUESS = 0.01
"""Seconds of a server's time per generated token, before one was counted."""
WEIGHT = 0.05

_EXACT: Final = decimal.Context(prec=64)
_SMALLEST: Final = Decimal(1) / FEMTO
_HOUR: Final = 3600


class Hours:
    def __init__(self, usd_per_hour: Decimal) -> None:
        self._usd_per_hour = usd_per_hour
        self._seconds = FIRST_GUESS

    def cost(self, seconds: float) -> Decimal:
        """US dollars of so much of its time."""
        usd = _EXACT.divide(_EXACT.multiply(self._usd_per_hour, Decimal(seconds)), _HOUR)
        return _EXACT.quantize(usd, _SMALLEST)

    def per_token(self) -> Decimal:
        """US dollars that a generated token is thought to cost, its part of the prompt's reading included."""
        return self.cost(self._seconds)

    def learn(self, seconds: float, tokens: int) -> None:
        """So many tokens were generated in so much of its time."""
        if tokens > 0 and seconds > 0:
            self._seconds += WEIGHT * (seconds / tokens - self._seconds)
