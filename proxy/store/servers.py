"""Which server has a key, and a connection to it: one Redis, the primary of Sentinels, or a cluster's primaries."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
from bisect import bisect_right
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import hiredis

from proxy.store import topology
from proxy.store.commands import SCRIPTS, SHAS
from proxy.store.pipe import Pipe, Unanswered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from proxy.store.commands import Command
    from proxy.store.pipe import Waiter
    from proxy.store.url import StoreUrl

    Address = tuple[str, int]
    Told = Callable[[Pipe], None]

CONNECT_SECONDS = 0.5
SLOTS = 16384
NO_ANSWER = (OSError, Unanswered, hiredis.HiredisError)
"""What `connected` raises where a server does not answer, or not as it must."""


class Servers:
    """Connections that stand: to one server or, with `begins`, each to that of the slots from there on."""

    def __init__(self, owners: Sequence[Pipe], begins: Sequence[int] = (0,)) -> None:
        self.pipes = list(dict.fromkeys(owners))
        self._owners = owners
        self._begins = begins
        self._found = lru_cache(4096)(self._find)

    @property
    def is_open(self) -> bool:
        return all(pipe.is_open for pipe in self.pipes)

    def pipe(self, subject: str) -> Pipe:
        """Where the keys of a subject are."""
        return self._owners[0] if len(self._owners) == 1 else self._found(subject)

    def _find(self, subject: str) -> Pipe:
        return self._owners[bisect_right(self._begins, slot(subject)) - 1]

    def run(self, waiter: Waiter, script: str, subject: str, command: Command) -> None:
        self.pipe(subject).run(waiter, SHAS[script], SCRIPTS[script], command)

    async def drain(self) -> None:
        for pipe in self.pipes:
            await pipe.drain()

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()


def slot(subject: str) -> int:
    """Of a cluster: that of the keys `weir:{=subject}:…`, whose tag ends at the first brace."""
    return binascii.crc_hqx(f"={subject}".partition("}")[0].encode(), 0) % SLOTS


async def connected(url: StoreUrl, on_late: Told, on_lost: Told) -> Servers:
    """Raises one of NO_ANSWER."""
    async with contextlib.AsyncExitStack() as unfinished:

        async def dial(address: Address) -> Pipe:
            pipe = await _dialled(url, address, on_late, on_lost)
            unfinished.callback(pipe.close)
            await _introduce(pipe, url)
            for text in SCRIPTS.values():
                await _asked(pipe, "SCRIPT", "LOAD", text)
            return pipe

        if url.kind == "cluster":
            servers = await _cluster(await topology.slots(url), dial)
        else:
            servers = Servers([await dial(await topology.primary(url) if url.primary else url.hosts[0])])
        unfinished.pop_all()
        return servers


async def _dialled(url: StoreUrl, address: Address, on_late: Told, on_lost: Told) -> Pipe:
    loop, (host, port) = asyncio.get_running_loop(), address

    def made() -> Pipe:
        return Pipe(on_late, on_lost, timeout=url.timeout)

    async with asyncio.timeout(CONNECT_SECONDS):
        if url.path:
            return (await loop.create_unix_connection(made, url.path))[1]
        return (await loop.create_connection(made, host, port, ssl=url.tls))[1]


async def _introduce(pipe: Pipe, url: StoreUrl) -> None:
    if url.password:
        await _asked(pipe, "AUTH", *((url.user,) if url.user else ()), url.password)
    if url.db:
        await _asked(pipe, "SELECT", url.db)
    await _asked(pipe, "PING")


async def _asked(pipe: Pipe, *command: str | int) -> Any:
    answer = await pipe.call(*command)
    if isinstance(answer, hiredis.ReplyError):
        raise answer
    return answer


async def _cluster(slots: Sequence[tuple[int, Address]], dial: Callable[[Address], Awaitable[Pipe]]) -> Servers:
    if not slots:
        raise OSError("the cluster has no slots yet")
    pipes = {address: await dial(address) for address in dict.fromkeys(address for _, address in slots)}
    return Servers([pipes[address] for _, address in slots], [begin for begin, _ in slots])
