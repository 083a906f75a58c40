"""The store that replicas share: decided in Redis, and, while Redis does not answer, in this process as its part of it.

Each decision is one script, and nobody waits for more than one: the exchange's claims and a look-up travel together,
what was really used follows when it has ended. Nothing is asked twice. So where an answer is missing, nobody knows
whether the claims were taken; each has a reservation in Redis, under the exchange's name, and is settled by it: once,
whether the claims had arrived or not, and however often that is asked.

What this process has of the limits is counted in its memory as well. Where Redis is gone each replica goes on from
there with the limit divided by the replicas that were alive, and what it used then is told to Redis afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import hiredis
from typing_extensions import override

from proxy.errors import StoreDown
from proxy.store import commands
from proxy.store.claims import Claim, Store, Taken
from proxy.store.debts import Debt, Debts
from proxy.store.leases import RENEW_SECONDS, SLOT_MS, Leases
from proxy.store.link import Link
from proxy.store.pipe import Unanswered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from proxy.series import Gauge
    from proxy.services import Tasks
    from proxy.store.memory import Memory
    from proxy.store.servers import Servers
    from proxy.store.url import StoreUrl

    Parts = Sequence[Sequence[int]]

T = TypeVar("T")

UNLIMITED = 2**53


class Shared(Store):
    def __init__(self, url: StoreUrl, memory: Memory, tasks: Tasks, gauge: Gauge) -> None:
        """`gauge`: whether the shared store answers."""
        self._is_cluster = url.kind == "cluster"
        self._memory = memory
        self._tasks = tasks
        self._link = Link(url, gauge, self._back)
        self._leases = Leases()
        self._debts = Debts(memory.clock)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected, if Redis answers now; if not, Weir starts without, and goes on asking."""
        await self._link.connect()
        work = [
            self._tasks.start(self._link.keep(), "store"),
            self._tasks.start(self._keep_alive(), "store: slots"),
        ]
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await self._leave()

    @override
    def take_now(self, identity: str, claims: Sequence[Claim]) -> Taken | None:
        return self._take_alone(identity, claims) if self._link.servers is None else None

    @override
    async def take(self, identity: str, claims: Sequence[Claim]) -> Taken:
        servers = self._link.servers
        if servers is None:
            return self._take_alone(identity, claims)
        now, parts = self._memory.clock(), self._parts(claims)
        sent = [_asked(servers, identity, _part(claims, part)) for part in parts]
        try:
            answers = [self._told(await each) for each in sent]
        except Unanswered:
            return self._take_unsure(identity, claims, now)
        except asyncio.CancelledError:
            self._undo(identity, claims, now, is_sure=False)
            raise
        if None in answers:
            return self._take_unsure(identity, claims, now)
        taken = commands.taken(identity, claims, parts, answers)
        if taken.refused is None:
            taken.mirror, taken.at = claims, self._memory.note(claims)
            self._leases.hold(identity, claims)
        elif len(parts) > 1:  # what other servers have granted
            self._undo(identity, claims, now, is_sure=True)
        return taken

    @override
    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        if taken.mirror:
            self._memory.correct(taken.mirror, taken.at, amounts)
        self._tell(taken.identity, taken.claims, amounts, taken.at, is_sure=not taken.is_local)

    @override
    def free(self, taken: Taken) -> None:
        if taken.is_freed:
            return
        taken.is_freed = True
        self._memory.give_back(taken.mirror)
        self._leases.give_up(taken.identity, taken.claims, self._link.servers)

    @override
    def bound(self, values: int, size: int) -> None:
        """Redis has bounds of its own."""

    @override
    def look_up(self, key: str) -> Coroutine[Any, Any, bytes | None]:
        if self._link.servers is None:
            return _nothing()
        return _value(self._link.servers.pipe(key).call("GET", commands.key(key, "value")))

    @override
    def put(self, key: str, value: bytes, seconds: float) -> None:
        if self._link.servers is not None:
            ms = max(int(seconds * 1000), 1)
            self._link.servers.pipe(key).post("SET", commands.key(key, "value"), value, "PX", ms)

    @override
    def state(self) -> Mapping[str, Any]:
        return {
            "kind": "redis",
            "up": self._link.servers is not None,
            "replicas": self._leases.replicas,
            "slots": len(self._leases),
            "owed": len(self._debts),
        }

    # -- with Redis

    def _parts(self, claims: Sequence[Claim]) -> Parts:
        return commands.by_subject(claims) if self._is_cluster else (range(len(claims)),)

    def _told(self, answer: Any) -> Any:
        """None where it is none."""
        if isinstance(answer, hiredis.ReplyError):
            self._link.complain(answer)
            return None
        return None if answer == commands.ASKED_BEFORE else answer

    def _take_unsure(self, identity: str, claims: Sequence[Claim], now: float) -> Taken:
        """Redis may have taken the claims."""
        try:
            taken = self._take_alone(identity, claims)
        except StoreDown:
            self._undo(identity, claims, now, is_sure=False)
            raise
        if taken.refused is not None:
            self._undo(identity, claims, now, is_sure=False)
        return taken

    def _undo(self, identity: str, claims: Sequence[Claim], taken_at: float, *, is_sure: bool) -> None:
        self._tell(identity, claims, [0] * len(claims), taken_at, is_sure=is_sure)
        self._leases.give_up(identity, claims, self._link.servers)

    def _tell(
        self, identity: str, claims: Sequence[Claim], amounts: Sequence[int], taken_at: float, *, is_sure: bool
    ) -> None:
        now, servers = self._memory.clock(), self._link.servers
        for part in self._parts(claims):
            debt = Debt(self._debts.owe, identity, _part(claims, part), _part(amounts, part), is_sure, taken_at, now)
            if servers is None:
                self._debts.owe(debt)
            else:
                self._debts.pay(servers, debt)

    # -- without

    def _take_alone(self, identity: str, claims: Sequence[Claim]) -> Taken:
        if any(claim.when_down == "closed" for claim in claims):
            what = "the limits of this request cannot be checked: the store does not answer; try again later"
            raise StoreDown(what, headers={"retry-after": "1"})
        mirror = self._memory.take_now(identity, [self._share(claim) for claim in claims])
        remaining = [min(left, claim.limit) for left, claim in zip(mirror.remaining, claims, strict=True)]
        taken = Taken(identity, claims, remaining, mirror.at, refused=mirror.refused, wait=mirror.wait)
        taken.is_local = True
        if mirror.refused is None:
            taken.mirror = mirror.claims
            self._leases.hold(identity, claims)
        return taken

    def _share(self, claim: Claim) -> Claim:
        """What this process may take of it."""
        limit = UNLIMITED if claim.when_down == "open" else max(claim.limit // self._leases.replicas, 1)
        return claim._replace(limit=limit, amount=min(claim.amount, limit))

    # -- the connection

    async def _back(self, servers: Servers) -> None:
        await self._leases.renew(servers)
        await self._debts.pay_owed(servers)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._link.servers is not None:
                await self._back(self._link.servers)

    async def _leave(self) -> None:
        servers, self._link.servers = self._link.servers, None
        if servers is None:
            return
        self._leases.leave(servers)
        await servers.drain()
        servers.close()


def _asked(servers: Servers, identity: str, claims: Sequence[Claim]) -> asyncio.Future[Any]:
    answer = asyncio.get_running_loop().create_future()
    servers.run(answer, "take", claims[0].subject, commands.take(identity, claims, SLOT_MS))
    return answer


def _part(whole: Sequence[T], part: Sequence[int]) -> Sequence[T]:
    return whole if len(part) == len(whole) else [whole[place] for place in part]


async def _value(answer: asyncio.Future[Any]) -> bytes | None:
    try:
        value = await answer
    except Unanswered:
        return None
    return value if isinstance(value, bytes) else None


async def _nothing() -> None:
    """The value of a store that is away."""
