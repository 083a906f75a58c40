"""An upstream at work: its connections, credential and health checks, for as long as a config uses it.

Configs that say the same of an upstream share it through a reload: connections, what is known of its pace and health,
and its token live on. One that is said otherwise is another; the old one goes with the last exchange that uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from proxy.source import ConfigError
from proxy.targets import Health
from proxy.upstream.azure import Azure
from proxy.upstream.health import Checks
from proxy.upstream.openai import OpenAI
from proxy.upstream.tgi import TGI
from proxy.upstream.warming import Warming
from proxy.watch import mark

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from proxy.config import Upstream
    from proxy.services import Services
    from proxy.source import Source

KINDS: dict[str, type[OpenAI]] = {"openai": OpenAI, "azure": Azure, "tgi": TGI}

_HOW_TO_LEAVE_THE_DEMO = "set the variable of its api_key in the environment, or another base_url, to reach a real one"

log = logging.getLogger("weir")


class Supply:
    """`upstream` is there once `start` is over; who uses it says so with `use`."""

    upstream: OpenAI

    def __init__(self, name: str, settings: Upstream, source: Source, services: Services) -> None:
        self.name = name
        self.likeness = likeness(name, settings, source)
        self._settings = settings
        self._source = source
        self._services = services.anew()
        self._stack = contextlib.AsyncExitStack()
        self._users = 0

    @override
    def __repr__(self) -> str:
        return f"Supply({self.name!r})"

    async def start(self) -> None:
        """Raises ConfigError. The first token is waited for apart, by `settled`."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._services.tasks.drain)
            upstream = await self._made(stack)
            stack.callback(upstream.pool.close)
            stack.callback(self._services.watch.stop)
            upstream.credential.keep_fresh(self._source, self._services)
            stack.callback(upstream.credential.stop)
            if (patience := upstream.settings.cold_start) is not None:
                upstream.warming = self._warming(upstream, patience)
                stack.callback(upstream.warming.stop)
            if upstream.settings.health is not None:
                work = Checks(upstream, upstream.settings.health).run()
                stack.callback(self._services.tasks.start(work, f"health of upstream '{self.name}'").cancel)
            self.upstream, self._stack = upstream, stack.pop_all()

    def _warming(self, upstream: OpenAI, patience: float) -> Warming:
        health, waiting = upstream.settings.health or Health(), upstream.settings.max_waiting
        return Warming(upstream, health.path, patience, self._services.tasks.start, waiting)

    async def settled(self) -> None:
        await self.upstream.credential.settled()

    def use(self, stack: AsyncExitStack) -> None:
        """Until the stack is left; the last one closes it."""
        self._users += 1
        stack.push_async_callback(self._leave)

    async def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            await self._stack.aclose()

    def _part(self) -> dict[str, int]:
        """Of several workers each has its part of the connections."""
        share, settings = self._services.share, self._settings
        return {
            "max_connections": max(settings.max_connections // share, 1),
            "max_waiting": settings.max_waiting // share,
        }

    async def _made(self, stack: AsyncExitStack) -> OpenAI:
        settings = self._settings.model_copy(update=self._part())
        if settings.is_demo:
            from proxy import demo  # noqa: PLC0415 - a megabyte that only the demo needs

            url = await stack.enter_async_context(demo.running())
            log.warning(
                "upstream '%s' has no API key: the built-in demo answers; %s", self.name, _HOW_TO_LEAVE_THE_DEMO
            )
            settings = settings.model_copy(update={"base_url": f"{url}/v1"})
        # not in the event loop: the system's authorities alone take it 40 ms to read
        return await asyncio.to_thread(made, self.name, settings, self._source)


def made(name: str, settings: Upstream, source: Source) -> OpenAI:
    """An upstream that nobody has asked yet. Raises ConfigError where what it trusts cannot be read."""
    try:
        return KINDS[settings.kind](name, settings)
    except OSError as error:
        what = f"its certificates cannot be read: {error.strerror or error}"
        at = ("upstreams", name, "tls", "ca_file")
        raise ConfigError([source.problem(at, what, "write a PEM file of authorities")]) from error


def likeness(name: str, settings: Upstream, source: Source) -> Any:
    """What two configs must have in common to share an upstream; a key that is followed in its file may differ."""
    filled = source.filled.get(("upstreams", name, "api_key"))
    key = filled.references if filled is not None and filled.files else settings.api_key
    authorities = settings.tls.ca_file and mark(settings.tls.ca_file)
    return settings.model_copy(update={"api_key": None}), key, settings.api_key is None, authorities, source.folder
