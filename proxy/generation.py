"""One config at work: its plugins' lifespans, its upstreams, its gateway. A reload puts one in the place of another.

Exchanges stay with the one that they began in. It ends when the last of them has ended and is counted.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from proxy import balance
from proxy.attempts import Attempts
from proxy.chain import Chain
from proxy.config import Match
from proxy.fleet import count_work, read_loads
from proxy.gateway import Gateway
from proxy.plan import targets_of
from proxy.queue import Queue, Series
from proxy.routing import Route, Router, Rule
from proxy.services import Tasks
from proxy.source import ConfigError
from proxy.supply import Supply, likeness

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack

    from proxy import config
    from proxy.attempt import Target
    from proxy.metrics import Metrics
    from proxy.plan import Plan
    from proxy.plugin import Plugin
    from proxy.services import Services
    from proxy.upstream.openai import OpenAI

log = logging.getLogger("weir")


class Generation:
    """`gateway` and `services` are there once `start` is over."""

    gateway: Gateway
    services: Services

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.supplies: dict[str, Supply] = {}
        self._stack = contextlib.AsyncExitStack()

    async def start(self, house: Services, metrics: Metrics, before: Mapping[str, Supply]) -> None:
        """Take over what is alike of the upstreams `before`. Raises ConfigError, and then nothing is left of it."""
        config = self.plan.config
        targets = {route.name: targets_of(route) for route in config.routes}
        services = self.services = house.anew(config.upstreams, targets)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(services.tasks.drain)
            stack.callback(services.watch.stop)
            for name in config.upstreams:
                self.supplies[name] = await self._supply(name, before.get(name), house, stack)
            for supply in self.supplies.values():
                await supply.settled()
            for plugin in self.plan.plugins:
                await self._enter(plugin, stack)
            services.models |= self.plan.named_models()
            completions = Tasks()
            count_work(config, self.upstreams)
            read_loads(config, self.upstreams, services.tasks, stack)
            self.gateway = self._gateway(targets, metrics, completions)
            stack.callback(self.gateway.router.close)
            stack.callback(self.gateway.settle)  # of what the tasks complete, and before a plugin leaves its lifespan
            stack.push_async_callback(completions.drain)
            self._stack = stack.pop_all()

    @property
    def upstreams(self) -> dict[str, OpenAI]:
        return {name: supply.upstream for name, supply in self.supplies.items()}

    async def leave(self) -> None:
        """What it has begun is completed, in order, and then everything that only it used is closed."""
        await self._stack.aclose()

    async def _supply(self, name: str, before: Supply | None, house: Services, stack: AsyncExitStack) -> Supply:
        settings, source = self.plan.config.upstreams[name], self.plan.source
        supply = before
        if supply is None or supply.likeness != likeness(name, settings, source):
            supply = Supply(name, settings, source, house)
            await supply.start()
        supply.use(stack)
        return supply

    async def _enter(self, plugin: Plugin[Any], stack: AsyncExitStack) -> None:
        """Raises ConfigError: a plugin that cannot start is a fault of the config, or of what it points to."""
        try:
            lifespan = plugin.lifespan(self.services)
            if lifespan is not None:
                await stack.enter_async_context(lifespan)
        except ConfigError:
            raise
        except Exception as error:
            log.exception("plugin cannot start", extra={"plugin": plugin.name})
            what = f"plugin '{plugin.name}' cannot start: {type(error).__name__}: {error}"
            fix = "the log has where it failed; without its entry here Weir starts"
            raise ConfigError([self.plan.problem_of(plugin, what, fix)]) from error

    def _gateway(self, targets: Mapping[str, list[Target]], metrics: Metrics, completions: Tasks) -> Gateway:
        upstreams = self.upstreams
        chains = [Chain(plugins, metrics.plugin_failed) for plugins in self.plan.chains]
        routes = [
            _route(settings, targets[settings.name], chain, upstreams, self.services)
            for settings, chain in zip(self.plan.config.routes, chains, strict=True)
        ]
        lost = Route("", Rule(Match()), Chain(self.plan.unrouted, metrics.plugin_failed), ())
        gate = Chain(self.plan.everywhere(), metrics.plugin_failed)
        attempts = Attempts(upstreams, metrics)
        return Gateway(Router(routes), lost, gate, upstreams, attempts, metrics, self.services.stdout, completions)


def _route(
    settings: config.Route,
    targets: list[Target],
    chain: Chain,
    upstreams: Mapping[str, OpenAI],
    services: Services,
) -> Route:
    served = {target.upstream: upstreams[target.upstream] for target in targets if target.static is None}
    return Route(
        settings.name,
        Rule(settings.match),
        chain,
        targets,
        drains=any(upstream.drains for upstream in served.values()),
        order=balance.compiled(settings.balance, targets, served),
        needs_body=balance.needs_body(settings.balance, served),
        queue=None if settings.queue is None else Queue(settings.name, settings.queue, served, Series(services)),
        may_load=any(upstream.can_load for upstream in served.values()),
    )
