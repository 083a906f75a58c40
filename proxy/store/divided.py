"""The store of one of several workers that share nothing: each has its part of every limit, and one at least.

What may hold more than its part in one go, as a long prompt does of tokens, takes all of the part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from proxy.store.memory import MAX_VALUE_BYTES, MAX_VALUES, Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.store.claims import Claim, Taken

UNLIMITED = 2**53
"""From here on a limit is none."""


class Divided(Memory):
    def __init__(self, clock: Callable[[], float], parts: int) -> None:
        super().__init__(clock, max_values=MAX_VALUES // parts, max_bytes=MAX_VALUE_BYTES // parts)
        self.parts = parts

    @override
    def take_now(self, identity: str, claims: Sequence[Claim]) -> Taken:
        return super().take_now(identity, [self._part(claim) for claim in claims])

    @override
    def bound(self, values: int, size: int) -> None:
        super().bound(max(values // self.parts, 1), max(size // self.parts, 1))

    def _part(self, claim: Claim) -> Claim:
        if claim.limit >= UNLIMITED:
            return claim
        limit = max(claim.limit // self.parts, min(claim.limit, 1))
        amount = claim.amount if claim.amount > claim.limit else min(claim.amount, limit)
        return claim._replace(limit=limit, amount=amount)
