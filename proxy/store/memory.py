"""The store of one process: nothing is shared, nothing waits. Bounded: what is idle is forgotten, and of values those
that nobody has asked for the longest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from typing_extensions import override

from proxy.store.claims import Claim, Standing, Store, Taken
from proxy.store.counts import Slots, Total, Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Count = Window | Total | Slots

MAX_COUNTS = 200_000
SWEEP_AT = 4096
MAX_VALUES = 10_000
MAX_VALUE_BYTES = 64 * 2**20


class Memory(Store):
    def __init__(
        self, clock: Callable[[], float], *, max_values: int = MAX_VALUES, max_bytes: int = MAX_VALUE_BYTES
    ) -> None:
        self._clock = clock
        self._counts: dict[str, Count] = {}
        self._sweep_at = SWEEP_AT
        self.values = Values(clock, max_values, max_bytes)

    @override
    async def take(self, identity: str, claims: Sequence[Claim]) -> Taken:
        return self.take_now(identity, claims)

    def take_now(self, identity: str, claims: Sequence[Claim]) -> Taken:
        now, used, counts = self._clock(), [], []
        refused = None
        for place, claim in enumerate(claims):
            count = self._counts.get(claim.key) or self._new(claim, now)
            counts.append(count)
            used.append(count.used(now))
            if used[-1] + claim.amount > claim.limit and refused is None:
                refused = place
        if refused is not None:
            standings = _refused(claims, counts, used, now)
            return Taken(identity, claims, standings, refused=refused, at=now)
        for claim, count in zip(claims, counts, strict=True):
            count.add(now, claim.amount)
        standings = [Standing(c.limit - u - c.amount, c.seconds) for c, u in zip(claims, used, strict=True)]
        return Taken(identity, claims, standings, refused=None, at=now)

    def note(self, identity: str, claims: Sequence[Claim]) -> Taken:
        """Count along what another store has decided."""
        now = self._clock()
        for claim in claims:
            self._count_of(claim).add(now, claim.amount)
        return Taken(identity, claims, (), refused=None, at=now)

    @override
    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        for claim, amount in zip(taken.claims, amounts, strict=True):
            if amount != claim.amount and claim.kind != "slot":
                self._count_of(claim).correct(taken.at, self._clock(), amount - claim.amount)

    @override
    def free(self, taken: Taken) -> None:
        if taken.is_freed:
            return
        taken.is_freed = True
        for claim in taken.claims:
            if claim.kind == "slot" and isinstance(count := self._counts.get(claim.key), Slots):
                count.give_back(claim.amount)

    @override
    def bound(self, values: int, size: int) -> None:
        self.values.bound(values, size)

    @override
    def look_up(self, key: str) -> Awaitable[bytes | None]:
        return _known(self.values.get(key))

    @override
    def put(self, key: str, value: bytes, seconds: float) -> None:
        self.values.put(key, value, seconds)

    def _count_of(self, claim: Claim) -> Count:
        return self._counts.get(claim.key) or self._new(claim, self._clock())

    def _new(self, claim: Claim, now: float) -> Count:
        if len(self._counts) >= self._sweep_at:
            self._sweep(now)
        count: Count
        if claim.kind == "window":
            count = Window(claim.seconds)
        else:
            count = Slots() if claim.kind == "slot" else Total(claim.seconds, now)
        self._counts[claim.key] = count
        return count

    def _sweep(self, now: float) -> None:
        """So that keys which nobody uses any more do not add up. Where that does not help, the oldest are let go."""
        kept = {key: count for key, count in self._counts.items() if not count.is_idle(now)}
        for key in list(kept)[: max(len(kept) - MAX_COUNTS // 2, 0)] if len(kept) >= MAX_COUNTS else ():
            del kept[key]
        self._counts = kept
        self._sweep_at = max(2 * len(kept), SWEEP_AT)


class Values:
    """By key, least recently used first out; bounded in number and in bytes."""

    def __init__(self, clock: Callable[[], float], most: int, most_bytes: int) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._is_bound = False
        self.size = 0

    def bound(self, most: int, most_bytes: int) -> None:
        if self._is_bound:
            most, most_bytes = max(most, self._most), max(most_bytes, self._most_bytes)
        self._most, self._most_bytes, self._is_bound = most, most_bytes, True

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> bytes | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: str, value: bytes, seconds: float) -> None:
        self._drop(key)
        if len(value) > self._most_bytes:
            return
        self._kept[key] = (self._clock() + seconds, value)
        self.size += len(value)
        while len(self._kept) > self._most or self.size > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.size -= len(found[1])


def _refused(claims: Sequence[Claim], counts: Sequence[Count], used: Sequence[int], now: float) -> list[Standing]:
    """How they stand without the claims."""
    return [
        Standing(max(claim.limit - now_used, 0), count.seconds_until(claim.limit - claim.amount, now))
        for claim, count, now_used in zip(claims, counts, used, strict=True)
    ]


async def _known(value: bytes | None) -> bytes | None:
    return value
