"""The store of one process: nothing is shared, nothing waits. Bounded: what is idle is forgotten, and of values those
that nobody has asked for the longest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from proxy.store.claims import Claim, Store, Taken
from proxy.store.counts import Slots, Total, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from proxy.exchange import Exchange

    Count = Window | Total | Slots

MAX_COUNTS = 100_000
SWEEP_AT = 4096
MAX_VALUES = 10_000
MAX_VALUE_BYTES = 64 * 2**20


class Memory(Store):
    def __init__(
        self,
        clock: Callable[[], float],
        *,
        max_counts: int = MAX_COUNTS,
        max_values: int = MAX_VALUES,
        max_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        self.clock = clock
        self._max_counts = max_counts
        self._counts: dict[tuple[str, str], Count] = {}
        self._sweep_at = min(SWEEP_AT, max_counts)
        self.values = Values(clock, max_values, max_bytes)

    @override
    async def take(self, identity: str, claims: Sequence[Claim]) -> Taken:
        return self.take_now(identity, claims)

    @override
    def take_now(self, identity: str, claims: Sequence[Claim]) -> Taken:
        """Nearly all fit, so they are counted at once; where one does not, all are taken back."""
        now = self.clock()
        if len(self._counts) >= self._sweep_at:
            self._sweep(now)
        known, remaining = self._counts, []
        for claim in claims:
            _, subject, key, limit, amount, _, _ = claim
            count = known.get((subject, key)) or self._new(claim)
            if now >= count.until:
                count.roll(now)
            count.taken = taken = count.taken + amount
            remaining.append(limit - taken)
        if remaining and min(remaining) < 0:
            return self._refused(identity, claims, remaining, now)
        return Taken(identity, claims, remaining, now)

    def note(self, claims: Sequence[Claim]) -> float:
        """Count along what another store has decided; when."""
        now = self.clock()
        for claim in claims:
            self._count(claim).add(now, claim.amount)
        return now

    @override
    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        self.correct(taken.claims, taken.at, amounts)

    def correct(self, claims: Sequence[Claim], at: float, amounts: Sequence[int]) -> None:
        now = self.clock()
        for claim, amount in zip(claims, amounts, strict=True):
            more = amount - claim.amount
            if more and claim.kind != "slot":
                self._count(claim).correct(at, now, more)

    @override
    def free(self, taken: Taken) -> None:
        if not taken.is_freed:
            taken.is_freed = True
            self.give_back(taken.claims)

    def give_back(self, claims: Sequence[Claim]) -> None:
        """Their slots."""
        for claim in claims:
            if claim.kind == "slot":
                count = self._counts.get((claim.subject, claim.key))
                if isinstance(count, Slots):
                    count.give_back(claim.amount)

    @override
    def bound(self, values: int, size: int) -> None:
        self.values.bound(values, size)

    @override
    def find(self, key: str, exchange: Exchange) -> bytes | None:
        """There is never anything to wait for here: what is claimed is taken at once, too."""
        if exchange.admission is not None:
            exchange.admission.decide(exchange)
        return self.values.get(key)

    @override
    def look_up(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        return _known(self.values.get(key))

    @override
    def put(self, key: str, value: bytes, seconds: float) -> None:
        self.values.put(key, value, seconds)

    @override
    def state(self) -> Mapping[str, Any]:
        return {"kind": "memory", "counts": len(self._counts), "values": len(self.values)}

    def _count(self, claim: Claim) -> Count:
        return self._counts.get((claim.subject, claim.key)) or self._new(claim)

    def _new(self, claim: Claim) -> Count:
        count: Count
        if claim.kind == "window":
            count = Window(claim.seconds)
        else:
            count = Slots() if claim.kind == "slot" else Total(claim.seconds)
        self._counts[claim.subject, claim.key] = count
        return count

    def _refused(self, identity: str, claims: Sequence[Claim], missing: Sequence[int], now: float) -> Taken:
        """How the limits stand without the claims, and which of those that do not fit has to wait longest.

        `missing`: below 0 for these.
        """
        counts = [self._count(claim) for claim in claims]
        for claim, count in zip(claims, counts, strict=True):
            count.taken -= claim.amount
        waits = [
            (count.seconds_until(claim.limit - claim.amount, now), -place)
            for place, (claim, count) in enumerate(zip(claims, counts, strict=True))
            if missing[place] < 0
        ]
        wait, place = max(waits)
        remaining = [max(claim.limit - count.taken, 0) for claim, count in zip(claims, counts, strict=True)]
        return Taken(identity, claims, remaining, now, refused=-place, wait=wait)

    def _sweep(self, now: float) -> None:
        """Let go of what is idle, and where that is not enough of what would be so first: a slot in use never is."""
        kept = [item for item in self._counts.items() if item[1].idle_at() > now]
        if len(kept) > self._max_counts // 2:
            kept.sort(key=lambda item: item[1].idle_at())
            del kept[: -(self._max_counts // 2)]
        self._counts = dict(kept)
        self._sweep_at = min(max(2 * len(kept), SWEEP_AT), self._max_counts)


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


async def _known(value: bytes | None) -> bytes | None:
    return value
