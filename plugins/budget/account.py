"""What one subject may spend, and has: a purse per amount, each with the period that it is for.

Counters are whole micro-dollars. What an exchange cost beyond them is carried to the next, so that sums stay true.
An account lasts until the first of its periods ends. What it shows as spent is what the store has counted when somebody
looked, without this process's reservations, and what was settled here since.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from plugins.budget.period import period_at
from plugins.budget.settings import MICRO
from proxy.plugin import OTHER, Claim

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from plugins.budget.period import Period
    from plugins.budget.settings import Amount
    from plugins.budget.usual import Habit
    from proxy.plugin import Grant, Store, WhenDown

UNLIMITED = 2**53
"""For what costs nothing, or nobody knows what: it is counted, and never refused."""

LONGEST = 128
"""Characters of a subject: some are what apps write."""

_NOTHING = Decimal(0)


class Purse:
    """`seen` is what was spent of it when somebody looked; `levels` are those not reached yet."""

    __slots__ = ("amount", "key", "levels", "limit", "period", "seconds", "seen")

    def __init__(self, amount: Amount, period: Period, key: str, seconds: float, levels: Sequence[float]) -> None:
        self.amount = amount
        self.period = period
        self.key = key
        self.seconds = seconds
        self.limit = amount.micro
        self.levels = sorted(levels)
        self.seen = 0

    def reached(self, used: int) -> list[float]:
        """The levels that it has come to since they were last asked for."""
        if not self.levels or used < self.levels[0] * self.limit:
            return []
        reached = [level for level in self.levels if used >= level * self.limit]
        self.levels = self.levels[len(reached) :]
        return reached


@dataclass(slots=True)
class Held:
    """What an exchange has reserved. `habit`: whose answers it was taken to be as long as, where it sets no limit."""

    grant: Grant
    account: Account
    micro: int
    habit: Habit | None = None


class Account:
    __slots__ = ("_carry", "_reserved", "_settled", "ends", "ends_at", "metric", "purses", "subject", "tag")

    def __init__(
        self,
        name: str,
        subject: str,
        amounts: Sequence[Amount],
        now: dt.datetime,
        zone: ZoneInfo,
        levels: Sequence[float] = (),
        metric: str = OTHER,
    ) -> None:
        """`name` is the budget's: those of one name count together. `metric` is what metrics call the subject."""
        self.subject = subject
        self.metric = metric
        self.tag = subject[:LONGEST]
        self._carry = _NOTHING
        self._reserved = self._settled = 0
        self.purses = [self._purse(name, amount, now, zone, levels) for amount in amounts]
        self.ends = min(purse.period.ends for purse in self.purses)
        self.ends_at = self.ends.timestamp()

    def claims(self, micro: int, when_down: WhenDown) -> list[Claim]:
        return [
            Claim("total", self.tag, p.key, p.limit if micro else UNLIMITED, micro, p.seconds, when_down)
            for p in self.purses
        ]

    def hold(self, grant: Grant, micro: int, habit: Habit | None = None) -> Held:
        self._reserved += micro
        return Held(grant, self, micro, habit)

    def release(self, held: Held) -> None:
        """Called again, it changes nothing."""
        self._reserved -= held.micro
        held.micro = 0

    def settle(self, held: Held, usd: Decimal) -> None:
        """What it came to."""
        exact = usd * MICRO + self._carry
        micro = int(exact)
        self._carry = exact - micro
        self._settled += micro
        held.grant.settle([micro] * len(self.purses))

    def used(self, purse: Purse) -> int:
        return purse.seen + self._settled

    async def look(self, store: Store) -> None:
        """What the store has counted by now, other replicas' reservations too.

        While a shared store is away, only what is settled here is known.
        """
        reserved = self._reserved
        taken = await store.take(secrets.token_hex(8), self.claims(0, "open"))
        store.settle(taken, [0] * len(self.purses))
        if taken.is_local:
            return
        for purse, remaining in zip(self.purses, taken.remaining, strict=True):
            purse.seen = max(UNLIMITED - remaining - reserved, 0)
        self._settled = 0

    def _purse(self, name: str, amount: Amount, now: dt.datetime, zone: ZoneInfo, levels: Sequence[float]) -> Purse:
        period = period_at(amount.period, now, zone)
        key = f"{name}:{self.tag}:usd:{period.name}"
        return Purse(amount, period, key, (period.ends - now).total_seconds(), levels)
