"""The composition root: from a config file to a running gateway, and back down in order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import sys
import typing
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxy import admin, balance
from proxy.attempt import Target
from proxy.attempts import Attempts
from proxy.chain import Chain
from proxy.config import Match
from proxy.exchange import PRINCIPAL
from proxy.fit import Capacity
from proxy.gateway import Gateway
from proxy.lines import Lines
from proxy.metrics import Metrics
from proxy.queue import Queue, Series
from proxy.registry import Registry, overrides
from proxy.routing import Route, Router, Rule
from proxy.server import Server
from proxy.services import Services, Tasks
from proxy.source import ConfigError
from proxy.stages import BodyFilter
from proxy.store.memory import Memory
from proxy.targets import Health
from proxy.upstream.azure import Azure
from proxy.upstream.health import Checks
from proxy.upstream.openai import OpenAI
from proxy.upstream.readings import Readings
from proxy.upstream.tgi import TGI
from proxy.upstream.warming import Warming
from proxy.upstream.work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping
    from contextlib import AsyncExitStack

    from proxy import config
    from proxy.config import Address, Config, Upstream
    from proxy.plugin import Plugin
    from proxy.source import Problem, Source
    from proxy.store.claims import Store

log = logging.getLogger("weir")

BACKLOG = 1024
KINDS: dict[str, type[OpenAI]] = {"openai": OpenAI, "azure": Azure, "tgi": TGI}
TASK_SECONDS = 5.0
CLOSE_SECONDS = 0.1
"""What connections get to flush; aiohttp reads 0 as forever."""

_HOW_TO_LEAVE_THE_DEMO = "set the variable of its api_key in the environment, or another base_url, to reach a real one"


class Plan:
    """A config with its plugins, checked and built, but nothing started."""

    def __init__(self, source: Source, config: Config) -> None:
        """Raises ConfigError with every problem of the plugins and their order."""
        problems: list[Problem] = []
        registry = Registry(source, problems)
        self.source = source
        self.config = config
        self.chains = [registry.chain(config, index) for index in range(len(config.routes))]
        self.unrouted = registry.unrouted(config)
        self.plugins: list[Plugin[Any]] = registry.instances
        if problems:
            raise ConfigError(problems)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source.file.read_bytes()).hexdigest()[:16]

    @property
    def uses_store(self) -> bool:
        return any(plugin.uses_store for plugin in self.plugins)

    def warnings(self) -> list[str]:
        """What works, but not as one may think."""
        found = [
            f"plugin '{plugin.name}' holds whole bodies: on streams its routes lose the time to the first token"
            for plugin in self.plugins
            if overrides(plugin, "on_response") and _holds_bodies(plugin)
        ]
        found += [
            f"route '{route.name}' sticks by principal, and no plugin of its chain says who calls: chance decides"
            for route, plugins in zip(self.config.routes, self.chains, strict=True)
            if balance.needs_principal(route.balance) and not any(PRINCIPAL in plugin.provides for plugin in plugins)
        ]
        if self.config.redis and not self.uses_store:
            found.append("redis is set, but no plugin of this config keeps anything in a store")
        return found


class Weir:
    """A running proxy. `url` and `admin_url` are where it really listens, also for port 0."""

    def __init__(self, plan: Plan, gateway: Gateway, server: Server, metrics: Metrics, store: Store) -> None:
        self.plan = plan
        self.store = store
        self.gateway = gateway
        self.metrics = metrics
        self.url = self.admin_url = ""
        self._server = server
        self._digest = plan.digest

    @property
    def in_flight(self) -> int:
        return self._server.in_flight

    def readiness(self) -> str:
        return "draining" if self._server.is_draining else ""

    async def drain(self, seconds: float) -> None:
        """Let what runs finish; new requests are still served, and told that the connection closes.

        What still streams after `seconds` ends with an error event.
        """
        self._server.is_draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._server.idle()
        except TimeoutError:
            self._server.interrupt()

    def state(self) -> dict[str, Any]:
        gateway, plugins = self.gateway, self._plugin_states()
        return {
            "config": {"file": str(self.plan.source.file), "hash": self._digest},
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


@contextlib.asynccontextmanager
async def running(plan: Plan, stdout: Lines | None = None) -> AsyncIterator[Weir]:
    """Everything started, in order; stopped in reverse. `stdout` gets the access lines."""
    stdout = stdout or Lines(sys.stdout.buffer)
    metrics = Metrics()
    routes = {route.name: _targets(route) for route in plan.config.routes}
    services = Services(metrics.registry, upstreams=plan.config.upstreams, stdout=stdout, routes=routes)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(services.tasks.drain, TASK_SECONDS)
        stack.callback(services.close)
        if plan.config.redis and plan.uses_store:
            await _share(plan.config.redis, services, stack)
        upstreams = {name: await _upstream(name, plan.config.upstreams[name], stack) for name in plan.config.upstreams}
        await _have_credentials(upstreams.values(), plan.source, services, stack)
        for plugin in plan.plugins:
            await _enter(plugin, plan, services, stack)
        services.models |= _named_models(plan.config)
        metrics.know(services.models, upstreams)
        _give_time_to_load(upstreams.values(), services, stack)
        _check_health(upstreams.values(), services, stack)
        completions = Tasks()
        _count_work(plan.config, upstreams)
        router = Router(_routes(plan, services, metrics, upstreams, routes))
        _read_loads(plan.config, upstreams, services, stack)
        gateway = Gateway(
            router, _lost(plan, metrics), upstreams, Attempts(upstreams, metrics), metrics, stdout, completions
        )
        metrics.before_page = gateway.settle
        services.store.settle_ended = gateway.settle_taken
        stack.callback(gateway.settle)  # of what the tasks complete, and before a plugin leaves its lifespan
        stack.push_async_callback(completions.drain, TASK_SECONDS)
        server = Server(gateway.serve, max_request_bytes=plan.config.server.max_request_bytes)
        weir = Weir(plan, gateway, server, metrics, services.store)
        lag = services.tasks.start(metrics.watch_lag(), "event loop lag")
        stack.callback(lag.cancel)
        weir.admin_url = await _serve_admin(weir, plan.config.server.admin, stack)
        weir.url = await _serve(server, plan.config.server.listen, stack)
        for warning in plan.warnings():
            log.warning(warning)
        yield weir


async def _enter(plugin: Plugin[Any], plan: Plan, services: Services, stack: AsyncExitStack) -> None:
    """Raises ConfigError: a plugin that cannot start is a fault of the config, or of what it points to."""
    try:
        lifespan = plugin.lifespan(services)
        if lifespan is not None:
            await stack.enter_async_context(lifespan)
    except ConfigError:
        raise
    except Exception as error:
        log.exception("plugin cannot start", extra={"plugin": plugin.name})
        place = next(place for place, entry in enumerate(plan.config.plugins) if entry.name == plugin.name)
        what = f"plugin '{plugin.name}' cannot start: {type(error).__name__}: {error}"
        fix = "the log has where it failed; without its entry here Weir starts"
        raise ConfigError([plan.source.problem(("plugins", place, plugin.name), what, fix)]) from error


async def _share(url: str, services: Services, stack: AsyncExitStack) -> None:
    """From now on what plugins count and keep is in a Redis."""
    from proxy.store.shared import Shared  # noqa: PLC0415 - what only a shared store needs
    from proxy.store.url import parse  # noqa: PLC0415

    answers = services.gauge("weir_store_up", "whether the shared store answers")
    store = Shared(parse(url), Memory(services.clock), services.tasks, answers)
    await stack.enter_async_context(store.running())
    services.store = store


async def _upstream(name: str, settings: Upstream, stack: AsyncExitStack) -> OpenAI:
    if settings.without_api_key == "demo" and settings.api_key is None and settings.token is None:
        from proxy import demo  # noqa: PLC0415 - a megabyte that only the demo needs

        url = await stack.enter_async_context(demo.running())
        log.warning("upstream '%s' has no API key: the built-in demo answers; %s", name, _HOW_TO_LEAVE_THE_DEMO)
        settings = settings.model_copy(update={"base_url": f"{url}/v1"})
    upstream = KINDS[settings.kind](name, settings)
    stack.callback(upstream.pool.close)
    return upstream


async def _have_credentials(
    upstreams: Collection[OpenAI], source: Source, services: Services, stack: AsyncExitStack
) -> None:
    """Returns when every token is here, or was tried for."""
    for upstream in upstreams:
        upstream.credential.keep_fresh(source, services)
        stack.callback(upstream.credential.stop)
    for upstream in upstreams:
        await upstream.credential.settled()


def _check_health(upstreams: Collection[OpenAI], services: Services, stack: AsyncExitStack) -> None:
    for upstream in upstreams:
        if upstream.settings.health is not None:
            work = Checks(upstream, upstream.settings.health).run()
            stack.callback(services.tasks.start(work, f"health of upstream '{upstream.name}'").cancel)


def _give_time_to_load(upstreams: Collection[OpenAI], services: Services, stack: AsyncExitStack) -> None:
    for upstream in upstreams:
        if (patience := upstream.settings.cold_start) is not None:
            health, waiting = upstream.settings.health, upstream.settings.max_waiting
            path = health.path if health is not None else Health().path
            upstream.warming = Warming(upstream, path, patience, services.tasks.start, waiting)
            stack.callback(upstream.warming.stop)


def _count_work(config: Config, upstreams: Mapping[str, OpenAI]) -> None:
    """Of upstreams whose routes go by it, and of those that cost money by the hour."""
    by_the_hour = {name for name, settings in config.upstreams.items() if settings.usd_per_hour is not None}
    for name in by_the_hour | _watched_by_routes(config):
        upstreams[name].work = Work()
    for name in _watched_by_routes(config):
        settings = upstreams[name].settings.load
        if settings.server in {"auto", "tgi"} and upstreams[name].capacity is None:
            upstreams[name].capacity = Capacity()  # as long as the server has not said what it takes


def _watched_by_routes(config: Config) -> set[str]:
    routes = [route for route in config.routes if route.balance.by == "queue" or route.queue is not None]
    return {target.upstream for route in routes for target in route.targets if target.upstream is not None}


def _read_loads(config: Config, upstreams: Mapping[str, OpenAI], services: Services, stack: AsyncExitStack) -> None:
    for name in sorted(_watched_by_routes(config)):
        settings = upstreams[name].settings.load
        if settings.server != "off":
            work = Readings(upstreams[name], settings).run()
            stack.callback(services.tasks.start(work, f"load of upstream '{name}'").cancel)


def _targets(settings: config.Route) -> list[Target]:
    return [
        Target(
            told.upstream or "", told.model, weight=told.weight, context_window=told.context_window, static=told.static
        )
        for told in settings.targets
    ]


def _routes(
    plan: Plan,
    services: Services,
    metrics: Metrics,
    upstreams: Mapping[str, OpenAI],
    targets: Mapping[str, list[Target]],
) -> list[Route]:
    chains = [Chain(plugins, metrics.plugin_failed) for plugins in plan.chains]
    return [
        _route(settings, targets[settings.name], chain, upstreams, services)
        for settings, chain in zip(plan.config.routes, chains, strict=True)
    ]


def _route(
    settings: config.Route,
    targets: list[Target],
    chain: Chain,
    upstreams: Mapping[str, OpenAI],
    services: Services,
) -> Route:
    served = {target.upstream: upstreams[target.upstream] for target in targets if target.static is None}
    order = balance.compiled(settings.balance, targets, served)
    return Route(
        settings.name,
        Rule(settings.match),
        chain,
        targets,
        drains=any(upstream.drains for upstream in served.values()),
        order=order,
        needs_body=balance.needs_body(settings.balance, served),
        queue=None if settings.queue is None else Queue(settings.name, settings.queue, served, Series(services)),
        may_load=any(upstream.can_load for upstream in served.values()),
    )


def _lost(plan: Plan, metrics: Metrics) -> Route:
    return Route("", Rule(Match()), Chain(plan.unrouted, metrics.plugin_failed), ())


async def _serve(server: Server, address: Address, stack: AsyncExitStack) -> str:
    listening = await asyncio.get_running_loop().create_server(server, address.host, address.port, backlog=BACKLOG)
    stack.push_async_callback(server.shutdown, CLOSE_SECONDS)
    stack.callback(listening.close)
    return _url(address.host, listening.sockets[0].getsockname()[1])


async def _serve_admin(weir: Weir, address: Address, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(
        admin.application(weir.metrics, weir.readiness, weir.state), access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, address.host, address.port).start()
    return _url(address.host, runner.addresses[0][1])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host or '127.0.0.1'}:{port}"


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


def _named_models(config: Config) -> set[str]:
    """The models that the config names: the closed set of the `model` label."""
    targets = {target.model for route in config.routes for target in route.targets if target.model}
    matched = {route.match.model for route in config.routes if route.match.model}
    return targets | {model for model in matched if not set("*?[") & set(model)}


def _holds_bodies(plugin: Plugin[Any]) -> bool:
    """Whether the class says, by the return type of `on_response`, that it returns a BodyFilter."""
    try:
        returned = typing.get_type_hints(type(plugin).on_response).get("return")
    except Exception:  # noqa: BLE001 - annotations of third parties may name anything
        return False
    kinds = typing.get_args(returned) or (returned,)
    return any(isinstance(kind, type) and issubclass(kind, BodyFilter) for kind in kinds)
