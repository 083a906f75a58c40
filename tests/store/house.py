"""Claims to try stores with, a clock that stands, and stores that share a Redis."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from proxy.series import Gauge
from proxy.services import Tasks
from proxy.store.claims import Claim
from proxy.store.memory import Memory
from proxy.store.shared import Shared
from proxy.store.url import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLOT = Claim("slot", "bob", "concurrent", 2)


def window(
    key: str = "requests", limit: int = 10, amount: int = 1, *, subject: str = "bob", seconds: float = 60, **how: str
) -> Claim:
    return Claim("window", subject, key, limit, amount, seconds, **how)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def shared(url: str) -> AsyncIterator[Shared]:
    """A store as one replica has it."""
    import time

    tasks = Tasks()
    store = Shared(parse(url), Memory(time.monotonic), tasks, Gauge(CollectorRegistry(), "up", "whether it answers"))
    async with store.running():
        yield store
    await tasks.drain(1)
