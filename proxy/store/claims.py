"""What policies ask of a store: to claim a part of a limit, to correct it later, and to keep a value for a while.

Claims that are taken together are taken all or not at all. There are three ways of counting:

window  at most `limit` in any `seconds`: no edge at which twice as much passes
total   at most `limit` under this key, which is forgotten after `seconds`: for periods of a calendar
slot    at most `limit` at the same time; it comes back when its exchange ends, or when its process has died
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from proxy.admission import Admission, Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from proxy.admission import Refuse
    from proxy.exchange import Exchange

WhenDown = Literal["local", "open", "closed"]


class Claim(NamedTuple):
    """`amount` of a limit: `subject` says whose and `key` which; a Redis Cluster keeps what is one subject's together.

    One subject's key always has the same kind and the same seconds. More than the limit never fits; of a slot there
    is one. `when_down`: where a shared store does not answer, `local` claims a part of this process's share of the
    limit, `open` passes, and `closed` refuses.
    """

    kind: Literal["window", "total", "slot"]
    subject: str
    key: str
    limit: int
    amount: int = 1
    seconds: float = 0.0
    when_down: WhenDown = "local"


class Taken:
    """What came of claims, with what then remains of each limit.

    `refused` is the place of the claim that does not fit, of several the one that has to wait longest; then none is
    taken, and `wait` is in seconds.
    """

    __slots__ = ("at", "claims", "identity", "is_freed", "is_local", "mirror", "refused", "remaining", "wait")

    def __init__(
        self,
        identity: str,
        claims: Sequence[Claim],
        remaining: Sequence[int],
        at: float,
        *,
        refused: int | None = None,
        wait: float = 0.0,
    ) -> None:
        """`at`: when it was taken, by the clock of this process.

        `is_local`: a shared store did not decide it; `mirror`: the claims as the memory has them that counts along.
        """
        self.identity = identity
        self.claims = claims
        self.remaining = remaining
        self.refused = refused
        self.wait = wait
        self.at = at
        self.is_local = self.is_freed = False
        self.mirror: Sequence[Claim] = ()


class Store(ABC):
    parts: int = 1
    """Into how many a limit is divided, of which this store has one."""
    settle_ended: Callable[[], bool] = staticmethod(lambda: False)
    """Settles what has ended and is not counted yet; whether there was any. Asked before anybody is refused."""

    def claim(self, exchange: Exchange, claims: Sequence[Claim], refuse: Refuse) -> Grant:
        """For `on_request`: the claims are taken once all plugins have claimed theirs, in one step.

        Where the store says no, `refuse` says what the app gets; None: the exchange goes on without these claims.
        """
        if exchange.admission is None:
            exchange.admission = Admission(self)
        grant = Grant(claims, refuse)
        exchange.admission.pending.append(grant)
        return grant

    async def get(self, key: str, exchange: Exchange) -> bytes | None:
        """The value, if there is one; what the exchange claims is taken in the same step. Raises its refusal."""
        found = self.look_up(key)
        try:
            if exchange.admission is not None:
                await exchange.admission.decided(exchange)
        except BaseException:
            found.close()
            raise
        return await found

    def find(self, key: str, exchange: Exchange) -> Awaitable[bytes | None] | bytes | None:
        """As `get`, but at once where there is nothing to wait for."""
        return self.get(key, exchange)

    @abstractmethod
    def bound(self, values: int, size: int) -> None:
        """Of what is kept in this process: so many values, of so many bytes; where several say so, the most counts."""

    @abstractmethod
    def look_up(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        """Asked for at once; never raises: a store that does not answer knows nothing."""

    @abstractmethod
    def put(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value, for `seconds` at most; nobody waits for it."""

    @abstractmethod
    def take_now(self, identity: str, claims: Sequence[Claim]) -> Taken | None:
        """As `take`, where nobody has to be waited for; else None, and nothing was asked."""

    @abstractmethod
    async def take(self, identity: str, claims: Sequence[Claim]) -> Taken:
        """All of the claims, or none. Raises StoreDown where one of them is to be refused without the store."""

    @abstractmethod
    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        """What was really used, claim by claim; once. Nobody waits for it."""

    @abstractmethod
    def free(self, taken: Taken) -> None:
        """Give its slots back, at once; again changes nothing."""

    @abstractmethod
    def state(self) -> Mapping[str, Any]:
        """What the admin's `/state` shows of it."""
