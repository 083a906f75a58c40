"""What an exchange claims of limits: collected from its plugins, taken together or not at all, and given back.

So a refusal by one limit uses nothing of another, and a shared store is asked once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.errors import ProxyError
    from proxy.exchange import Exchange
    from proxy.store.claims import Claim, Standing, Store, Taken

    Refuse = Callable[[Exchange, Claim, Standing], ProxyError | None]


class Grant:
    """One plugin's claims. Once they were asked for, `standings` says how their limits stand, and `is_taken` whether
    they count.
    """

    __slots__ = ("amounts", "claims", "is_taken", "refuse", "standings")

    def __init__(self, claims: Sequence[Claim], refuse: Refuse) -> None:
        self.claims = claims
        self.refuse = refuse
        self.standings: Sequence[Standing] = ()
        self.amounts: Sequence[int] | None = None
        self.is_taken = False

    def settle(self, amounts: Sequence[int]) -> None:
        """For a plain `on_complete`: what was really used, claim by claim."""
        self.amounts = amounts


class Admission:
    __slots__ = ("_exchange", "_pending", "_rounds", "_store")

    def __init__(self, store: Store, exchange: Exchange) -> None:
        self._store = store
        self._exchange = exchange
        self._pending: list[Grant] = []
        self._rounds: list[tuple[Taken, list[Grant]]] = []

    def add(self, claims: Sequence[Claim], refuse: Refuse) -> Grant:
        grant = Grant(claims, refuse)
        self._pending.append(grant)
        return grant

    async def decided(self) -> None:
        """Take what is claimed and was not asked for yet. Raises the refusal, and then nothing counts."""
        while self._pending:
            grants, claims = self._pending, _claims(self._pending)
            taken = await self._store.take(self._identity(), claims)
            refusing = _told(grants, taken)
            if refusing is None:
                self._rounds.append((taken, grants))
                self._pending = []
                return
            assert taken.refused is not None
            error = refusing.refuse(self._exchange, claims[taken.refused], taken.standings[taken.refused])
            if error is not None:
                self._give_back()
                raise error
            self._pending = [grant for grant in grants if grant is not refusing]

    def free(self) -> None:
        """The exchange has ended: its slots are the next one's, whatever is still to be counted."""
        for taken, _ in self._rounds:
            self._store.free(taken)

    def settle(self) -> None:
        """The exchange is counted: where a plugin has not said what was used, it was what was claimed."""
        for taken, grants in self._rounds:
            used: list[int] = []
            for grant in grants:
                used += [claim.amount for claim in grant.claims] if grant.amounts is None else grant.amounts
            self._store.settle(taken, used)
        self._rounds = []

    def _identity(self) -> str:
        return f"{self._exchange.id}.{len(self._rounds)}" if self._rounds else self._exchange.id

    def _give_back(self) -> None:
        self.free()
        for taken, grants in self._rounds:
            self._store.settle(taken, [0] * len(taken.claims))
            for grant in grants:
                grant.is_taken = False
        self._pending, self._rounds = [], []


def _claims(grants: Sequence[Grant]) -> Sequence[Claim]:
    return grants[0].claims if len(grants) == 1 else [claim for grant in grants for claim in grant.claims]


def _told(grants: Sequence[Grant], taken: Taken) -> Grant | None:
    """Each grant gets its standings; the one whose claim did not fit is returned."""
    begin, refusing = 0, None
    for grant in grants:
        end = begin + len(grant.claims)
        grant.standings = taken.standings[begin:end]
        grant.is_taken = taken.refused is None
        if taken.refused is not None and begin <= taken.refused < end:
            refusing = grant
        begin = end
    return refusing
