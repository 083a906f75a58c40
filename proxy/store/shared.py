"""The store that replicas share: decided in Redis, and, while Redis does not answer, in this process as its part of it.

Each decision is one script, and nobody waits for more than one: the exchange's claims and a look-up travel together,
what was really used follows when it has ended. Nothing is asked twice. So where an answer is missing, nobody knows
whether the claims were taken; each has a reservation in Redis, under the exchange's name, and is settled by it: once,
whether the claims had arrived or not, and however often that is asked.

What this process has of the limits is counted in its memory as well. Where Redis is gone each replica goes on from
there with the limit divided by the replicas that were alive, and what it used then is told to Redis afterwards. Three
failures, or a connection that is lost, and nobody waits for Redis until it has answered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any

import hiredis
from typing_extensions import override

from proxy.errors import StoreDown
from proxy.store import commands
from proxy.store.claims import Claim, Standing, Store, Taken
from proxy.store.pipe import Unanswered
from proxy.store.servers import SCRIPTS, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from proxy.series import Gauge
    from proxy.services import Tasks
    from proxy.store.commands import Command
    from proxy.store.memory import Memory
    from proxy.store.pipe import Pipe
    from proxy.store.servers import Servers
    from proxy.store.url import StoreUrl

    Owed = tuple[str, Sequence[Claim], Sequence[int], bool]

SLOT_MS = 8000
RENEW_SECONDS = 2.0
"""How long a slot, or a replica, counts without being heard of, and how often they say that they live."""

MAX_FAILURES = 3
PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Between two tries to reach Redis again."""

MAX_OWED = 20_000
"""How many exchanges may wait to be told to a Redis that is away; the oldest are let go."""

REMEMBERED = 5
"""Of the last counts of replicas."""

UNLIMITED = 2**53
_REPLICAS = "replicas"
_MOVED = ("MOVED", "ASK", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN")
"""The server is not the one that it was."""

log = logging.getLogger("weir.store")


class Shared(Store):
    def __init__(self, url: StoreUrl, memory: Memory, tasks: Tasks, gauge: Gauge) -> None:
        """`gauge`: whether the shared store answers."""
        self._url = url
        self._memory = memory
        self._tasks = tasks
        self._gauge = gauge
        self._servers: Servers | None = None
        self._lost = asyncio.Event()
        self._failures = self._answered = 0
        self._replica = secrets.token_hex(8)
        self._alive = deque([1], maxlen=REMEMBERED)
        self._slots: dict[tuple[str, str], set[str]] = {}
        self._owed: deque[Owed] = deque(maxlen=MAX_OWED)

    @property
    def replicas(self) -> int:
        """That live: as many as were there at the same time lately, since after an outage they come back one by one."""
        return max(self._alive)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected, if Redis answers now; if not, Weir starts without, and goes on asking."""
        with contextlib.suppress(*_NO_ANSWER):
            await self._connect()
        if self._servers is None:
            self._gauge.set((), 0)
            log.warning("the store does not answer: this process counts for itself until it does")
        work = [
            self._tasks.start(self._keep_connected(), "store"),
            self._tasks.start(self._keep_alive(), "store: slots"),
        ]
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            await self._leave()

    # -- as a store

    @override
    async def take(self, identity: str, claims: Sequence[Claim]) -> Taken:
        servers = self._servers
        if servers is None:
            return self._take_alone(identity, claims)
        parts = commands.parts(claims, apart=servers.is_cluster)
        asked = [self._asked(servers, "take", *commands.take(identity, claims, part, SLOT_MS)) for part in parts]
        try:
            answers = [await answer for answer in asked]
        except asyncio.CancelledError:
            self._undo(identity, claims, is_sure=False)
            raise
        if None in answers:
            taken = self._take_alone(identity, claims)
            if taken.refused is not None:
                self._undo(identity, claims, is_sure=False)
            return taken
        taken = commands.taken(identity, claims, parts, answers)
        if taken.refused is None:
            taken.mirror = self._memory.note(identity, claims)
            self._hold(taken)
        elif servers.is_cluster:  # what other servers have granted
            self._undo(identity, claims, is_sure=True)
        return taken

    @override
    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        if taken.mirror is not None:
            self._memory.settle(taken.mirror, amounts)
        self._tell(taken.identity, taken.claims, amounts, is_sure=not taken.is_local)

    @override
    def free(self, taken: Taken) -> None:
        if taken.is_freed:
            return
        taken.is_freed = True
        if taken.mirror is not None:
            self._memory.free(taken.mirror)
        self._give_up_slots(taken.identity, taken.claims)

    @override
    def bound(self, values: int, size: int) -> None:
        """Redis has bounds of its own."""

    @override
    def look_up(self, key: str) -> Awaitable[bytes | None]:
        if self._servers is None:
            return _nothing()
        return _value(self._servers.pipe(key).call("GET", commands.key(key, "value")))

    @override
    def put(self, key: str, value: bytes, seconds: float) -> None:
        if self._servers is not None:
            self._servers.pipe(key).call("SET", commands.key(key, "value"), value, "PX", max(int(seconds * 1000), 1))

    # -- alone

    def _take_alone(self, identity: str, claims: Sequence[Claim]) -> Taken:
        if any(claim.when_down == "closed" for claim in claims):
            what = "the limits of this request cannot be checked: the store does not answer; try again later"
            raise StoreDown(what, headers={"retry-after": "1"})
        mirror = self._memory.take_now(identity, [self._share(claim) for claim in claims])
        standings = [
            Standing(min(standing.remaining, claim.limit), standing.seconds)
            for claim, standing in zip(claims, mirror.standings, strict=True)
        ]
        taken = Taken(identity, claims, standings, refused=mirror.refused, at=mirror.at)
        taken.is_local = True
        if mirror.refused is None:
            taken.mirror = mirror
            self._hold(taken)
        return taken

    def _share(self, claim: Claim) -> Claim:
        """What this process may take of it."""
        limit = UNLIMITED if claim.when_down == "open" else max(claim.limit // self.replicas, 1)
        return claim._replace(limit=limit, amount=min(claim.amount, limit))

    # -- what Redis is told

    def _asked(self, servers: Servers, script: str, subject: str, command: Command) -> Awaitable[Any]:
        """Sent at once; the answer, or None where there is none."""
        pipe = servers.pipe(subject)
        return self._answer(pipe, script, command, pipe.call("EVALSHA", servers.shas[script], *command))

    async def _answer(self, pipe: Pipe, script: str, command: Command, answer: asyncio.Future[Any]) -> Any:
        try:
            told = await answer
            if _says(told, "NOSCRIPT"):  # Redis was restarted or told to forget: it takes the text then
                told = await pipe.call("EVAL", SCRIPTS[script], *command)
        except Unanswered:
            return None
        if isinstance(told, hiredis.ReplyError):
            self._complain(told)
            return None
        return None if told == [-1] else told

    def _tell(self, identity: str, claims: Sequence[Claim], amounts: Sequence[int], *, is_sure: bool) -> None:
        """What was used: now, or when Redis is back."""
        if self._servers is None:
            self._owed.append((identity, claims, amounts, is_sure))
            return
        for part in commands.parts(claims, apart=self._servers.is_cluster):
            subject, command = commands.settle(identity, claims, amounts, part, is_sure=is_sure)
            told = self._servers.pipe(subject).call("EVALSHA", self._servers.shas["settle"], *command)
            told.add_done_callback(lambda told: self._told(told, (identity, claims, amounts, is_sure)))

    def _told(self, told: asyncio.Future[Any], owed: Owed) -> None:
        """What did not arrive is told again: settling twice changes nothing."""
        if told.cancelled() or told.exception() or isinstance(told.result(), hiredis.ReplyError):
            self._owed.append(owed)

    def _pay(self) -> None:
        owed, self._owed = self._owed, deque(maxlen=MAX_OWED)
        for told in owed:
            self._tell(*told[:3], is_sure=told[3])

    def _undo(self, identity: str, claims: Sequence[Claim], *, is_sure: bool) -> None:
        self._tell(identity, claims, [0] * len(claims), is_sure=is_sure)
        self._give_up_slots(identity, claims)

    # -- slots

    def _hold(self, taken: Taken) -> None:
        for claim in taken.claims:
            if claim.kind == "slot":
                self._slots.setdefault((claim.subject, claim.key), set()).add(taken.identity)

    def _give_up_slots(self, identity: str, claims: Sequence[Claim]) -> None:
        for claim in claims:
            if claim.kind != "slot":
                continue
            place = (claim.subject, claim.key)
            if (held := self._slots.get(place)) is not None:
                held.discard(identity)
                if not held:
                    del self._slots[place]
            if self._servers is not None:
                self._servers.pipe(claim.subject).call("ZREM", commands.key(*place), identity)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._servers is not None:
                await self._renew(self._servers)
                self._pay()

    async def _renew(self, servers: Servers) -> None:
        """A replica is one that holds a slot among the replicas."""
        counted = self._asked(servers, "renew", *commands.renew(_REPLICAS, "alive", SLOT_MS, [self._replica]))
        renewed = [
            self._asked(servers, "renew", *commands.renew(*place, SLOT_MS, held)) for place, held in self._slots.items()
        ]
        if (alive := await counted) is not None:
            self._alive.append(alive)
        for answer in renewed:
            await answer

    # -- the connection

    async def _keep_connected(self) -> None:
        pause = PAUSE
        while True:
            self._lost.clear()
            if self._servers is not None:
                await self._lost.wait()
                pause = PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            with contextlib.suppress(*_NO_ANSWER):
                await self._connect()

    async def _connect(self) -> None:
        servers = await connected(self._url, self._late, self._dropped)
        self._servers, self._failures = servers, 0
        self._gauge.set((), 1)
        log.info("the store answers")
        self._pay()
        await self._renew(servers)

    def _late(self, pipe: Pipe) -> None:
        if self._servers is None or pipe not in self._servers.pipes:
            return
        answered = sum(pipe.answered for pipe in self._servers.pipes)
        self._failures = self._failures + 1 if answered == self._answered else 1
        self._answered = answered
        if self._failures >= MAX_FAILURES:
            self._lose(f"{MAX_FAILURES} times in a row it did not answer in time")

    def _dropped(self, pipe: Pipe) -> None:
        if self._servers is not None and pipe in self._servers.pipes:
            self._lose("the connection is lost")

    def _complain(self, error: hiredis.ReplyError) -> None:
        log.warning("the store refuses: %s", error)
        if _says(error, *_MOVED):
            self._lose("its servers have changed places")

    def _lose(self, why: str) -> None:
        """Nobody waits for it until it answers again."""
        servers, self._servers = self._servers, None
        if servers is not None:
            servers.close()
        self._gauge.set((), 0)
        log.warning("the store is away: %s; this process counts for itself until it is back", why)
        self._lost.set()

    async def _leave(self) -> None:
        servers, self._servers = self._servers, None
        if servers is None:
            return
        servers.pipe(_REPLICAS).call("ZREM", commands.key(_REPLICAS, "alive"), self._replica)
        await servers.drain()
        servers.close()


_NO_ANSWER = (OSError, Unanswered, hiredis.HiredisError)


def _says(told: Any, *words: str) -> bool:
    return isinstance(told, hiredis.ReplyError) and str(told).startswith(words)


async def _value(answer: asyncio.Future[Any]) -> bytes | None:
    try:
        value = await answer
    except Unanswered:
        return None
    return value if isinstance(value, bytes) else None


async def _nothing() -> None:
    """The value of a store that is away."""
