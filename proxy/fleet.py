"""What routes that go by their upstreams' load need of those: work that is counted, and readings of what servers say.

Nothing of it is there for an upstream that no such route has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.fit import Capacity
from proxy.upstream.readings import Readings
from proxy.upstream.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack

    from proxy.config import Config
    from proxy.services import Tasks
    from proxy.upstream.openai import OpenAI


def count_work(config: Config, upstreams: Mapping[str, OpenAI]) -> None:
    """Of upstreams whose routes go by it, and of those that cost money by the hour; what is counted goes on."""
    going_by_it = _watched(config)
    by_the_hour = {name for name, settings in config.upstreams.items() if settings.usd_per_hour is not None}
    for name in by_the_hour | going_by_it:
        upstreams[name].work = upstreams[name].work or Work()
    for name in going_by_it:
        server = upstreams[name].settings.load.server
        if server in {"auto", "tgi"} and upstreams[name].capacity is None:
            upstreams[name].capacity = Capacity()  # as long as the server has not said what it takes


def read_loads(config: Config, upstreams: Mapping[str, OpenAI], tasks: Tasks, stack: AsyncExitStack) -> None:
    """Until the stack is left."""
    for name in sorted(_watched(config)):
        settings = upstreams[name].settings.load
        if settings.server != "off":
            work = Readings(upstreams[name], settings).run()
            stack.callback(tasks.start(work, f"load of upstream '{name}'").cancel)


def _watched(config: Config) -> set[str]:
    routes = [route for route in config.routes if route.balance.by == "queue" or route.queue is not None]
    return {target.upstream for route in routes for target in route.targets if target.upstream is not None}
