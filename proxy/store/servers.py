"""Which server has a key, and a connection to it: redis-py asks Sentinels and clusters, `Pipe` carries the commands."""

from __future__ import annotations

import asyncio
import pathlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import hiredis

from proxy.store.pipe import Pipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.store.url import StoreUrl

CONNECT_SECONDS = 1.0
SCRIPTS = {name: (pathlib.Path(__file__).parent / f"{name}.lua").read_text() for name in ("take", "settle", "renew")}


class Servers:
    """Connections that stand. `shas`: the scripts', by name; every server has them."""

    def __init__(self, pipes: dict[tuple[str, int], Pipe], find: Callable[[str], tuple[str, int]]) -> None:
        self._pipes = pipes
        self._find = lru_cache(4096)(find)
        self.shas: dict[str, str] = {}

    @property
    def pipes(self) -> list[Pipe]:
        return list(self._pipes.values())

    @property
    def is_cluster(self) -> bool:
        return len(self._pipes) > 1

    def pipe(self, subject: str) -> Pipe:
        """Where the keys of a subject are."""
        if len(self._pipes) == 1:
            return next(iter(self._pipes.values()))
        return self._pipes[self._find(subject)]

    async def load_scripts(self) -> None:
        """Raises Unanswered or ReplyError."""
        for name, text in SCRIPTS.items():
            for pipe in self._pipes.values():
                self.shas[name] = (await _asked(pipe, "SCRIPT", "LOAD", text)).decode()

    async def drain(self) -> None:
        for pipe in self._pipes.values():
            await pipe.drain()

    def close(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()


async def connected(url: StoreUrl, on_late: Callable[[Pipe], None], on_lost: Callable[[Pipe], None]) -> Servers:
    """Raises OSError, Unanswered or ReplyError where one of the servers does not answer."""
    async with asyncio.timeout(CONNECT_SECONDS):
        if url.kind == "cluster":
            addresses, find = await _cluster(url)
        else:
            only = await _primary(url) if url.kind == "sentinel" else (url.hosts or ((url.path, 0),))[0]
            addresses, find = [only], lambda _: only
        pipes = {}
        try:
            for address in addresses:
                pipes[address] = await _dialled(url, address, on_late, on_lost)
            servers = Servers(pipes, find)
            await servers.load_scripts()
        except BaseException:
            for pipe in pipes.values():
                pipe.close()
            raise
        return servers


async def _dialled(
    url: StoreUrl, address: tuple[str, int], on_late: Callable[[Pipe], None], on_lost: Callable[[Pipe], None]
) -> Pipe:
    loop = asyncio.get_running_loop()
    if url.path:
        _, pipe = await loop.create_unix_connection(lambda: Pipe(on_late, on_lost), url.path)
    else:
        _, pipe = await loop.create_connection(lambda: Pipe(on_late, on_lost), *address, ssl=url.tls)
    if url.password:
        await _asked(pipe, "AUTH", *((url.user,) if url.user else ()), url.password)
    if url.db:
        await _asked(pipe, "SELECT", url.db)
    await _asked(pipe, "PING")
    return pipe


async def _asked(pipe: Pipe, *command: str | int) -> bytes:
    answer = await pipe.call(*command)
    if isinstance(answer, hiredis.ReplyError):
        raise answer
    return bytes(answer)


async def _primary(url: StoreUrl) -> tuple[str, int]:
    from redis.asyncio import Sentinel  # noqa: PLC0415 - ten megabytes that only this needs
    from redis.exceptions import RedisError  # noqa: PLC0415

    sentinel: Any = Sentinel(url.hosts, socket_timeout=CONNECT_SECONDS / 2)  # type: ignore[no-untyped-call]
    try:
        host, port = await sentinel.discover_master(url.primary)
    except RedisError as error:
        raise OSError(str(error)) from error
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
    return str(host), int(port)


async def _cluster(url: StoreUrl) -> tuple[list[tuple[str, int]], Callable[[str], tuple[str, int]]]:
    from redis.asyncio.cluster import ClusterNode, RedisCluster  # noqa: PLC0415 - likewise
    from redis.exceptions import RedisError  # noqa: PLC0415

    cluster = RedisCluster(
        startup_nodes=[ClusterNode(*host) for host in url.hosts],
        username=url.user or None,
        password=url.password or None,
        ssl=url.tls is not None,
    )
    try:
        await cluster.initialize()
        nodes = {node.name: (str(node.host), int(node.port)) for node in cluster.get_primaries()}

        def find(subject: str) -> tuple[str, int]:
            node = cluster.get_node_from_key(f"{{{subject}}}")
            assert node is not None
            return str(node.host), int(node.port)

        return list(nodes.values()), find
    except RedisError as error:
        raise OSError(str(error)) from error
    finally:
        await cluster.aclose()
