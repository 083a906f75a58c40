"""The composition root: from a config file to a running gateway, and back down in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy import admin, desk
from proxy.generation import Generation
from proxy.listening import BACKLOG, named
from proxy.metrics import Metrics
from proxy.plan import Plan
from proxy.reload import Reloads, Report
from proxy.services import Services
from proxy.store.divided import Divided
from proxy.store.memory import Memory
from proxy.weir import Weir

if TYPE_CHECKING:
    import pathlib
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from proxy.config import Address
    from proxy.lines import Lines

__all__ = ["Plan", "Post", "Weir", "running", "url_of", "working"]

log = logging.getLogger("weir")

CLOSE_SECONDS = 0.1
"""What connections get to flush; aiohttp reads 0 as forever."""


@contextlib.asynccontextmanager
async def running(plan: Plan, stdout: Lines | None = None) -> AsyncIterator[Weir]:
    """Everything started, in order; stopped in reverse. `stdout` gets the access lines."""
    metrics = Metrics()
    services = Services(metrics.registry, stdout=stdout)
    async with contextlib.AsyncExitStack() as stack:
        weir = await _started(plan, services, metrics, stack)
        server = plan.config.server
        with named("server.admin", server.admin):
            weir.admin_url = await _serve_admin(weir, server.admin, stack)
        with named("server.listen", server.listen):
            weir.url = await _serve(weir, server.listen, stack)
        for warning in plan.warnings():
            log.warning(warning)
        _follow(weir, services, stack)
        yield weir


@dataclass(frozen=True)
class Post:
    """A worker's place among others: the sockets that it accepts from, and its inner door."""

    workers: int
    sockets: Sequence[socket.socket]
    door: pathlib.Path


@contextlib.asynccontextmanager
async def working(plan: Plan, post: Post) -> AsyncIterator[Weir]:
    """As `running`, as one of several workers; another process has the admin port, and says when to reload."""
    metrics = Metrics()
    store = Divided(time.monotonic, post.workers)
    services = Services(metrics.registry, store=store, share=post.workers)
    async with contextlib.AsyncExitStack() as stack:
        weir = await _started(plan, services, metrics, stack)
        runner = await _runner(desk.inside(weir), stack)
        await web.UnixSite(runner, str(post.door)).start()
        for sock in post.sockets:
            await _accept(weir, {"sock": sock}, stack)
        yield weir


async def _started(plan: Plan, services: Services, metrics: Metrics, stack: AsyncExitStack) -> Weir:
    """All but the doors."""
    stack.push_async_callback(services.tasks.drain)
    stack.callback(services.close)
    have_store = await _stores(plan.config.redis, services, stack)
    await have_store(plan)
    generation = Generation(plan)
    await generation.start(services, metrics, {})
    weir = Weir(generation, services, metrics, have_store)
    stack.push_async_callback(weir.end)
    lag = services.tasks.start(metrics.watch_lag(), "event loop lag")
    stack.callback(lag.cancel)
    return weir


def _follow(weir: Weir, services: Services, stack: AsyncExitStack) -> None:
    """The config's files, from now on."""
    plan = weir.plan
    started = Report(plan.source.digest, [str(file) for file in plan.files()])
    weir.reloads = Reloads(weir, services, started)
    following = services.tasks.start(weir.reloads.run(), "reloads")
    stack.push_async_callback(_cancelled, following)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """A reload that is under way ends before what it builds on."""
    task.cancel()
    await asyncio.wait([task])


async def _stores(url: str | None, services: Services, stack: AsyncExitStack) -> Callable[[Plan], Awaitable[None]]:
    """How the store of the first config's Redis is opened once a config's plugins use one."""
    stores = await stack.enter_async_context(contextlib.AsyncExitStack())
    memory = services.store

    async def have_store(plan: Plan) -> None:
        if url and plan.uses_store and services.store is memory:
            await _share(url, services, stores)

    return have_store


async def _share(url: str, services: Services, stack: AsyncExitStack) -> None:
    """From now on what plugins count and keep is in a Redis."""
    from proxy.store.shared import Shared  # noqa: PLC0415 - what only a shared store needs
    from proxy.store.url import parse  # noqa: PLC0415

    answers = services.gauge("weir_store_up", "whether the shared store answers", how="min")
    store = Shared(parse(url), Memory(services.clock), services.tasks, answers)
    await stack.enter_async_context(store.running())
    services.store = store


async def _serve(weir: Weir, address: Address, stack: AsyncExitStack) -> str:
    where = {"host": address.host, "port": address.port, "backlog": BACKLOG}
    listening = await _accept(weir, where, stack)
    return url_of(address.host, listening.sockets[0].getsockname()[1])


async def _accept(weir: Weir, where: dict[str, Any], stack: AsyncExitStack) -> asyncio.Server:
    listening = await asyncio.get_running_loop().create_server(weir.server, **where)
    stack.push_async_callback(weir.server.shutdown, CLOSE_SECONDS)
    stack.callback(listening.close)
    weir.doors.append(listening)
    return listening


async def _serve_admin(weir: Weir, address: Address, stack: AsyncExitStack) -> str:
    runner = await _runner(admin.application(desk.Desk(weir)), stack)
    await web.TCPSite(runner, address.host, address.port).start()
    return url_of(address.host, runner.addresses[0][1])


async def _runner(application: web.Application, stack: AsyncExitStack) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    return runner


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host or '127.0.0.1'}:{port}"
