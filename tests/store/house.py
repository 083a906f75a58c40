"""Claims to try stores with, a clock that stands, and stores that share a Redis."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from proxy.series import Gauge
from proxy.services import Tasks
from proxy.store import commands
from proxy.store.claims import Claim
from proxy.store.commands import SCRIPTS
from proxy.store.memory import Memory
from proxy.store.shared import Shared
from proxy.store.url import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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


def left(ask: Callable[..., Any], claim: Claim) -> int:
    """What remains of it in Redis: a look that takes nothing."""
    identity, (kind, *_) = f"look {random.random()}", claim
    answer = ask("EVAL", SCRIPTS["take"], *commands.take(identity, [claim._replace(amount=0)], 1))
    if kind == "slot":
        ask("ZREM", commands.key(claim.subject, claim.key), identity)
    return int(answer[2])


@contextlib.asynccontextmanager
async def shared(url: str, waits: str = "5000ms") -> AsyncIterator[Shared]:
    """A store as one replica has it; patient, but where a test is about that."""
    tasks, url = Tasks(), f"{url}?timeout={waits}"
    store = Shared(parse(url), Memory(time.monotonic), tasks, Gauge(CollectorRegistry(), "up", "whether it answers"))
    async with store.running():
        yield store
    await tasks.drain(1)
