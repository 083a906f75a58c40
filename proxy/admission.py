"""What an exchange claims of limits: collected from its plugins, taken together or not at all, and given back.

So a refusal by one limit uses nothing of another, and a shared store is asked once for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from proxy.errors import ProxyError
    from proxy.exchange import Exchange
    from proxy.store.claims import Claim, Store, Taken

    Refuse = Callable[[Exchange, Claim, "Standing"], ProxyError | None]


class Standing(NamedTuple):
    """Of a claim that was refused: what remains of its limit, and the seconds until it fits (0: nobody knows)."""

    remaining: int
    seconds: float


class Grant:
    """One plugin's claims. Once they were asked for, `remaining` says what is left of each limit, `is_taken` whether
    they count, and `is_local` that a shared store has not decided it, so that they stand in this process's part alone.
    """

    __slots__ = ("amounts", "claims", "is_local", "is_taken", "refuse", "remaining")

    def __init__(self, claims: Sequence[Claim], refuse: Refuse) -> None:
        self.claims = claims
        self.refuse = refuse
        self.remaining: Sequence[int] = ()
        self.amounts: Sequence[int] | None = None
        self.is_taken = self.is_local = False

    def settle(self, amounts: Sequence[int]) -> None:
        """For a plain `on_complete`: what was really used, claim by claim."""
        self.amounts = amounts

    def used(self) -> Sequence[int]:
        return [claim.amount for claim in self.claims] if self.amounts is None else self.amounts


class Admission:
    """`pending` are the grants that were not asked for yet.

    It does not know its exchange: a circle of the two would be left to the garbage collector.
    """

    __slots__ = ("_may_settle", "_rounds", "_store", "pending")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.pending: list[Grant] = []
        self._rounds: list[tuple[Taken, list[Grant]]] = []
        self._may_settle = True

    async def decided(self, exchange: Exchange) -> None:
        """Take what is claimed and was not asked for yet. Raises the refusal, and then nothing counts."""
        waiting = self.decide(exchange)
        if waiting is not None:
            await waiting

    def decide(self, exchange: Exchange) -> Awaitable[None] | None:
        """`decided`, at once where the store answers so."""
        while self.pending:
            identity, claims = self._asked(exchange)
            taken = self._store.take_now(identity, claims)
            if taken is None:
                return self._wait(exchange)
            self._hear(exchange, taken)
        return None

    async def _wait(self, exchange: Exchange) -> None:
        while self.pending:
            self._hear(exchange, await self._store.take(*self._asked(exchange)))

    def _asked(self, exchange: Exchange) -> tuple[str, Sequence[Claim]]:
        """Under which name, and for what."""
        claims: list[Claim] = []
        for grant in self.pending:
            claims += grant.claims
        return f"{exchange.id}.{len(self._rounds)}" if self._rounds else exchange.id, claims

    def _hear(self, exchange: Exchange, taken: Taken) -> None:
        """Exchanges that have just ended are settled before anybody is refused for what they had reserved."""
        grants = self.pending
        refusing = _told(grants, taken)
        if refusing is None:
            self._rounds.append((taken, grants))
            self.pending, self._may_settle = [], True
        elif self._may_settle and self._store.settle_ended():
            self._may_settle = False
        else:
            self._refuse(exchange, taken, refusing)
            self.pending = [grant for grant in grants if grant is not refusing]

    @property
    def has_taken(self) -> bool:
        return bool(self._rounds)

    def free(self) -> None:
        """The exchange has ended: its slots are the next one's, whatever is still to be counted."""
        for taken, _ in self._rounds:
            self._store.free(taken)

    def settle(self) -> None:
        """The exchange is counted: where a plugin has not said what was used, it was what was claimed."""
        for taken, grants in self._rounds:
            self._store.settle(taken, _used(grants))
        self._rounds = []

    def _refuse(self, exchange: Exchange, taken: Taken, refusing: Grant) -> None:
        """Raises, where its plugin does not let the exchange go on without."""
        place = taken.refused or 0
        standing = Standing(taken.remaining[place], taken.wait)
        error = refusing.refuse(exchange, taken.claims[place], standing)
        if error is not None:
            self._give_back()
            raise error

    def _give_back(self) -> None:
        self.free()
        for taken, grants in self._rounds:
            self._store.settle(taken, [0] * len(taken.claims))
            for grant in grants:
                grant.is_taken = False
        self.pending, self._rounds = [], []


def _used(grants: Sequence[Grant]) -> Sequence[int]:
    used: list[int] = []
    for grant in grants:
        used += grant.used()
    return used


def _told(grants: Sequence[Grant], taken: Taken) -> Grant | None:
    """Each grant gets what remains of its limits; the one whose claim did not fit is returned."""
    begin, refused, refusing = 0, taken.refused, None
    for grant in grants:
        end = begin + len(grant.claims)
        grant.remaining = taken.remaining[begin:end]
        grant.is_taken = refused is None
        grant.is_local = taken.is_local
        if refused is not None and begin <= refused < end:
            refusing = grant
        begin = end
    return refusing
