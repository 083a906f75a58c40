"""The slots that this process holds in a shared store, and that it lives: said again every two seconds, and forgotten
by the store when nobody has said so for eight.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING

from proxy.store import commands
from proxy.store.pipe import NOBODY, Unanswered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.store.claims import Claim
    from proxy.store.servers import Servers

SLOT_MS = 7000
RENEW_SECONDS = 2.0

REMEMBERED = 5
"""Of the last counts of replicas: after an outage they come back one by one."""

_REPLICAS, _ALIVE = "replicas", "alive"


class Leases:
    def __init__(self) -> None:
        self._held: dict[tuple[str, str], set[str]] = {}
        self._replica = secrets.token_hex(8)
        self._alive = deque([1], maxlen=REMEMBERED)

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    @property
    def replicas(self) -> int:
        """That live, this one among them: as many as were there at the same time lately."""
        return max(self._alive)

    def hold(self, identity: str, claims: Sequence[Claim]) -> None:
        for claim in claims:
            if claim.kind == "slot":
                place = (claim.subject, claim.key)
                held = self._held.get(place)
                if held is None:
                    held = self._held[place] = set()
                held.add(identity)

    def give_up(self, identity: str, claims: Sequence[Claim], servers: Servers | None) -> None:
        """Redis hears of it before it is asked the next time, or when it is told what was used."""
        for claim in claims:
            if claim.kind == "slot":
                place = (claim.subject, claim.key)
                self._let_go(place, identity)
                if servers is not None:
                    servers.pipe(claim.subject).post("ZREM", commands.key(*place), identity)

    def _let_go(self, place: tuple[str, str], identity: str) -> None:
        held = self._held.get(place, set())
        held.discard(identity)
        if not held:
            self._held.pop(place, None)

    async def renew(self, servers: Servers) -> None:
        """A replica is one that holds a slot among the replicas."""
        counted = self._renewed(servers, (_REPLICAS, _ALIVE), [self._replica])
        for place, held in self._held.items():
            self._renewed(servers, place, held)
        try:
            alive = await counted
        except Unanswered:
            return
        if isinstance(alive, int):
            self._alive.append(alive)

    def leave(self, servers: Servers) -> None:
        servers.pipe(_REPLICAS).send(NOBODY, "ZREM", commands.key(_REPLICAS, _ALIVE), self._replica)

    def _renewed(self, servers: Servers, place: tuple[str, str], held: Iterable[str]) -> asyncio.Future[int]:
        answer = asyncio.get_running_loop().create_future()
        command = commands.renew(*place, SLOT_MS, held)
        servers.run(answer, "renew", place[0], command)
        return answer
