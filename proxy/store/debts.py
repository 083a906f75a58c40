"""What exchanges have used, as the shared store is told: at once, or when it is back. Nobody waits for it.

Settling twice changes nothing, so what was not answered is told again. How long ago it was is told with it: a window
that has passed meanwhile is nobody's any more.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis

from proxy.store import commands
from proxy.store.link import is_passing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.store.claims import Claim
    from proxy.store.commands import Command
    from proxy.store.servers import Servers

MAX_OWED = 20_000
"""How many may wait for a store that is away; the oldest are let go."""

BATCH = 256

log = logging.getLogger("weir.store")


class Debt:
    """Claims of one subject, or of all where one server has all; when they were taken and when their use was known.

    It hears the answer, too: what was not answered is owed again.
    """

    __slots__ = ("_is_done", "_owe", "amounts", "claims", "identity", "is_sure", "known_at", "taken_at")

    def __init__(
        self,
        owe: Callable[[Debt], None],
        identity: str,
        claims: Sequence[Claim],
        amounts: Sequence[int],
        is_sure: bool,  # noqa: FBT001 - positional, since there is one for each exchange
        taken_at: float,
        known_at: float,
    ) -> None:
        self._owe = owe
        self.identity = identity
        self.claims = claims
        self.amounts = amounts
        self.is_sure = is_sure
        self.taken_at = taken_at
        self.known_at = known_at
        self._is_done = False

    def command(self, now: float) -> Command:
        self._is_done = False
        ages = {"taken": now - self.taken_at, "known": now - self.known_at}
        return commands.settle(self.identity, self.claims, self.amounts, is_sure=self.is_sure, **ages)

    def done(self) -> bool:
        return self._is_done

    def set_exception(self, error: BaseException, /) -> None:
        del error
        self._is_done = True
        self._owe(self)

    def set_result(self, answer: Any, /) -> None:
        self._is_done = True
        if not isinstance(answer, hiredis.ReplyError):
            return
        if is_passing(answer):
            self._owe(self)
        else:
            log.warning("what an exchange used is not counted: the store refuses it: %s", answer)


class Debts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._owed: deque[Debt] = deque(maxlen=MAX_OWED)

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, debt: Debt) -> None:
        self._owed.append(debt)

    def pay(self, servers: Servers, debt: Debt) -> None:
        servers.run(debt, "settle", debt.claims[0].subject, debt.command(self._clock()))

    async def pay_owed(self, servers: Servers) -> None:
        """A part at a time, so that it keeps nobody waiting; what fails is owed again."""
        for _ in range(0, len(self._owed), BATCH):
            if not servers.is_open:
                return
            for _ in range(min(BATCH, len(self._owed))):
                self.pay(servers, self._owed.popleft())
            await servers.drain()
