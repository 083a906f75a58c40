"""What plugins may use of the house: tasks, metrics, the clock."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client.metrics import MetricWrapperBase

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from prometheus_client import CollectorRegistry

M = TypeVar("M", bound=MetricWrapperBase)

log = logging.getLogger("weir.tasks")


class Tasks:
    """Background tasks that somebody holds: their failures are logged, and a stop waits for them, bounded."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for what still runs, then cancel it."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=1)

    def __len__(self) -> int:
        return len(self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", extra={"task": task.get_name()}, exc_info=error)


class Services:
    """Handed to every plugin's `lifespan`. `clock` gives monotonic seconds; `metrics` is the process's registry."""

    def __init__(
        self, metrics: CollectorRegistry, tasks: Tasks | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.metrics = metrics
        self.tasks = tasks or Tasks()
        self.clock = clock
        self._made: dict[str, MetricWrapperBase] = {}

    def metric(self, kind: type[M], name: str, documentation: str, labels: Sequence[str] = ()) -> M:
        """A prometheus_client Counter, Gauge or Histogram, made on the first call, the same for all that name it.

        So instances of a plugin, one per route's settings, count together. Labels must come from closed sets.
        """
        if name not in self._made:
            self._made[name] = kind(name, documentation, labels, registry=self.metrics)
        metric = self._made[name]
        if not isinstance(metric, kind):
            raise TypeError(f"the metric '{name}' is a {type(metric).__name__} already")
        return metric
