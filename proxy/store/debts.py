"""What exchanges have used, as the shared store is told: at once, or when it is back. Nobody waits for it.

Settling twice changes nothing, so what was not answered is told again. How long ago it was is told with it: a window
that has passed meanwhile is nobody's any more.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import hiredis

from proxy.store import commands
from proxy.store.link import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.store.claims import Claim
    from proxy.store.servers import Servers

MAX_OWED = 20_000
"""How many may wait for a store that is away; the oldest are let go."""

BATCH = 256

log = logging.getLogger("weir.store")


class Debt(NamedTuple):
    """Claims of one subject, or of all where one server has all; when they were taken and when their use was known."""

    identity: str
    claims: Sequence[Claim]
    amounts: Sequence[int]
    is_sure: bool
    taken_at: float
    known_at: float


class Debts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._owed: deque[Debt] = deque(maxlen=MAX_OWED)

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, debt: Debt) -> None:
        self._owed.append(debt)

    def pay(self, servers: Servers, debt: Debt) -> None:
        now = self._clock()
        command = commands.settle(
            debt.identity,
            debt.claims,
            debt.amounts,
            is_sure=debt.is_sure,
            taken=now - debt.taken_at,
            known=now - debt.known_at,
        )
        servers.post(_Payment(self, debt), "settle", debt.claims[0].subject, command)

    async def pay_owed(self, servers: Servers) -> None:
        """A part at a time, so that it keeps nobody waiting; what fails is owed again."""
        for _ in range(0, len(self._owed), BATCH):
            if not servers.is_open:
                return
            for _ in range(min(BATCH, len(self._owed))):
                self.pay(servers, self._owed.popleft())
            await servers.drain()


class _Payment:
    """Waits for the answer to one."""

    __slots__ = ("_debt", "_debts", "_is_done")

    def __init__(self, debts: Debts, debt: Debt) -> None:
        self._debts = debts
        self._debt = debt
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_exception(self, error: BaseException, /) -> None:
        del error
        self._is_done = True
        self._debts.owe(self._debt)

    def set_result(self, answer: Any, /) -> None:
        self._is_done = True
        if not isinstance(answer, hiredis.ReplyError):
            return
        if is_passing(answer):
            self._debts.owe(self._debt)
        else:
            log.warning("what an exchange used is not counted: the store refuses it: %s", answer)
