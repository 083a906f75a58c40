"""A running proxy: the generation that serves, those that are still to end, and what the admin port shows of both."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from proxy.changes import changes, frozen
from proxy.generation import Generation
from proxy.plan import files_of
from proxy.reload import Report
from proxy.server import Server
from proxy.services import TASK_SECONDS
from proxy.source import ConfigError, Source
from proxy.supply import likeness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from proxy.attempt import Target
    from proxy.feedback import Inbox
    from proxy.gateway import Gateway
    from proxy.metrics import Metrics
    from proxy.plan import Plan
    from proxy.plugin import Plugin
    from proxy.reload import Reloads
    from proxy.services import Services
    from proxy.store.claims import Store
    from proxy.upstream.openai import OpenAI
    from proxy.upstream.work import Work

log = logging.getLogger("weir")

BUILD_SECONDS = 60.0
"""How long a new config may take until its plugins are ready."""

MOST_GENERATIONS = 64
"""Old configs that still have exchanges; a further reload waits for the end of one of them."""

REST_SECONDS = 10.0
"""How long a worker that retires leaves open what apps keep alive; a request that comes is told to close it."""

LAST_WORDS_SECONDS = 1.0
"""What streams that the drain's end interrupts have to say so."""


class Weir:
    """`url` and `admin_url` are where it really listens, also for port 0."""

    def __init__(
        self,
        generation: Generation,
        services: Services,
        metrics: Metrics,
        have_store: Callable[[Plan], Awaitable[None]],
    ) -> None:
        """`have_store` opens what a config's plugins keep things in, where that is not open yet."""
        settings = generation.plan.config.server
        self.metrics = metrics
        self.url = self.admin_url = ""
        self.reloads: Reloads | None = None
        self.doors: list[asyncio.Server] = []
        self.server = Server(generation.gateway.serve, max_request_bytes=settings.max_request_bytes)
        self.hash = generation.plan.source.digest
        self._services = services
        self._have_store = have_store
        self._started = generation.plan.config
        self._current = generation
        self._prepared: tuple[Plan, Generation | None] | None = None
        self._ending: dict[Generation, asyncio.Task[None]] = {}
        self._draining: asyncio.Task[None] | None = None
        metrics.before_page = self._settle
        self._take_over()

    @property
    def plan(self) -> Plan:
        return self._current.plan

    @property
    def gateway(self) -> Gateway:
        return self._current.gateway

    @property
    def feedback(self) -> Inbox:
        return self._services.feedback

    @property
    def store(self) -> Store:
        return self._services.store

    @property
    def in_flight(self) -> int:
        return self.server.in_flight

    # -- another config

    async def prepare(self) -> Report:
        """See `reload.Reloadable`."""
        await self.discard()
        is_late = False
        try:
            async with asyncio.timeout(BUILD_SECONDS):
                return await self._build()
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
        except TimeoutError:
            is_late = True
            problems = [f"its plugins and upstreams are not ready after {BUILD_SECONDS:g} s"]
        except Exception as error:
            log.exception("the new config cannot be built")
            problems = [f"{type(error).__name__}: {error}"]
        return Report(self.hash, _mentioned(self.plan), problems, passing=is_late)

    async def commit(self) -> None:
        """See `reload.Reloadable`."""
        if self._prepared is None:
            return
        (plan, generation), self._prepared = self._prepared, None
        self.hash = plan.source.digest
        if generation is None:
            return
        old, self._current = self._current, generation
        self.server.serve = generation.gateway.serve
        self.server.max_request_bytes = plan.config.server.max_request_bytes
        self._take_over()
        self._ending[old] = self._services.tasks.start(self._end(old), "end of an old config")
        for warning in plan.warnings():
            log.warning(warning)

    async def discard(self) -> None:
        """See `reload.Reloadable`."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[1] is not None:
            await prepared[1].leave()

    async def end(self) -> None:
        """Every config is left, in order; nothing is served any more."""
        await self.discard()
        if self._ending:
            await asyncio.wait(self._ending.values(), timeout=TASK_SECONDS)
        await self._current.leave()

    async def _build(self) -> Report:
        while len(self._ending) >= MOST_GENERATIONS:
            await asyncio.wait(self._ending.values(), return_when=asyncio.FIRST_COMPLETED)
        plan = await asyncio.to_thread(self.plan.again)
        found = changes(self.plan.config, plan.config) or self._new_authorities(plan)
        generation = Generation(plan) if found else None
        if generation is not None:
            await self._have_store(plan)
            await generation.start(self._services, self.metrics, self._current.supplies)
        self._prepared = plan, generation
        files = [str(file) for file in plan.files()]
        return Report(plan.source.digest, files, (), found, frozen(self._started, plan.config))

    def _new_authorities(self, plan: Plan) -> list[str]:
        """Upstreams that are told the same, but for what a file of theirs says."""
        supplies, upstreams = self._current.supplies, plan.config.upstreams
        names = [n for n, up in upstreams.items() if supplies[n].likeness != likeness(n, up, plan.source)]
        return [f"upstream '{name}' changed: what its ca_file says" for name in names]

    def _take_over(self) -> None:
        services = self._current.services
        services.store.settle_ended = self._settle_taken
        self.metrics.know(services.models, self._current.upstreams)
        services.forget()

    async def _end(self, old: Generation) -> None:
        await old.gateway.finished()
        try:
            await old.leave()
        finally:
            del self._ending[old]

    def _generations(self) -> tuple[Generation, ...]:
        return (*self._ending, self._current)

    def _settle(self) -> None:
        for generation in self._generations():
            generation.gateway.settle()

    def _settle_taken(self) -> bool:
        """All of them, also where the first one has some."""
        settled = [generation.gateway.settle_taken() for generation in self._generations()]
        return any(settled)

    # -- the end

    def readiness(self) -> str:
        if self.server.is_draining:
            return "draining"
        return "" if self.doors else "starting"

    def begin_drain(self) -> None:
        """Drain, and go on: the process is ended by a signal."""
        self.server.is_draining = True
        if self._draining is None or self._draining.done():
            self._draining = self._services.tasks.start(self.drain(self.plan.config.server.drain_timeout), "drain")
            self._draining.add_done_callback(lambda _: log.info("drained", extra={"in_flight": self.in_flight}))

    async def drain(self, seconds: float) -> None:
        """Let what runs finish; new requests are still served, and told that the connection closes.

        What still streams after `seconds` ends with an error event.
        """
        self.server.is_draining = True
        if await self.server.is_idle_in(seconds):
            return
        self.server.interrupt()
        await self.server.is_idle_in(LAST_WORDS_SECONDS)

    async def retire(self, seconds: float) -> None:
        """Another worker accepts from the same sockets: take no more, and let go of whoever rests here."""
        for door in self.doors:
            door.close()
        await self.drain(seconds)
        await self.server.emptied(REST_SECONDS)

    # -- what is shown

    def state(self) -> dict[str, Any]:
        gateway, plugins = self.gateway, self._plugin_states()
        config: dict[str, Any] = {"file": str(self.plan.source.file), "hash": self.hash}
        if self.reloads is not None:
            config["reload"] = self.reloads.state()
        return {
            "config": {**config, "generations": len(self._generations())},
            "ready": not self.readiness(),
            "in_flight": self.in_flight,
            "routes": [
                {
                    "name": route.name,
                    "plugins": [plugin.name for plugin in route.chain.plugins],
                    "targets": [_target_state(target) for target in route.targets],
                    **({"queue": route.queue.state()} if route.queue is not None else {}),
                }
                for route in gateway.router.routes
            ],
            "upstreams": {
                name: {**_upstream_state(upstream), **_told_of(name, plugins)}
                for name, upstream in gateway.upstreams.items()
            },
            "plugins": plugins,
            **({"store": dict(self.store.state())} if self.plan.uses_store else {}),
        }

    def _plugin_states(self) -> dict[str, Any]:
        """By name, in the order of the chain; what instances of one plugin say is shown as one."""
        states: dict[str, Any] = {entry.name: None for entry in self.plan.config.plugins}
        for plugin in self.plan.plugins:
            told = self._told(plugin)
            if told is not None:
                states[plugin.name] = {**(states[plugin.name] or {}), **told}
        return states

    def _told(self, plugin: Plugin[Any]) -> dict[str, Any] | None:
        try:
            state = plugin.state()
            return None if state is None else dict(state)
        except Exception:
            log.exception("plugin failed", extra={"plugin": plugin.name, "where": "state"})
            self.metrics.plugin_failed(plugin.name)
            return None


def _mentioned(plan: Plan) -> list[str]:
    """The files that the config names as it is now, wrong as it may be, and those that the one in use names."""
    source = Source.scan(plan.source.file, plan.source.environ, [])
    files = plan.files() if source is None else [*files_of(source), *plan.files()]
    return [str(file) for file in dict.fromkeys(files)]


def _target_state(target: Target) -> dict[str, Any]:
    return {"upstream": target.upstream, "model": target.model} if target.static is None else {"static": True}


def _told_of(upstream: str, plugins: Mapping[str, Any]) -> dict[str, Any]:
    """What plugins say of an upstream is shown with it: under `upstreams` of their state, by its name."""
    told = [state["upstreams"].get(upstream, {}) for state in plugins.values() if state and "upstreams" in state]
    return {key: value for facts in told for key, value in facts.items()}


def _upstream_state(upstream: OpenAI) -> dict[str, Any]:
    """`healthy`: null where nobody checks."""
    pool = upstream.pool
    return {
        "kind": upstream.settings.kind,
        "healthy": upstream.is_healthy if upstream.is_watched else None,
        "in_flight": upstream.in_flight,
        "pool": {"open": pool.open, "idle": pool.idle, "waiting": pool.waiting},
        **({"loading": upstream.is_loading} if upstream.can_load else {}),
        **({"load": _load_state(upstream.work)} if upstream.work is not None else {}),
        **({"capacity": dataclasses.asdict(upstream.capacity)} if upstream.capacity is not None else {}),
    }


def _load_state(work: Work) -> dict[str, Any]:
    """What the server last said of itself; null where that is too old, or was never said."""
    told = work.reading if work.is_fresh() else None
    return {"running": told and told.running, "waiting": told and told.waiting}
