"""What plugins may use of the house: tasks, files, metrics, the clock, and what the config says of upstreams."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

from proxy.feedback import Inbox
from proxy.lines import Lines, standard_output
from proxy.series import SECONDS, Counter, Family, Gauge, Histogram
from proxy.store.memory import Memory
from proxy.watch import Watch

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from proxy.attempt import Target
    from proxy.config import Upstream
    from proxy.series import How, Labels
    from proxy.store.claims import Store

F = TypeVar("F", bound=Family)
T = TypeVar("T")

OTHER = "other"

TASK_SECONDS = 5.0
"""How long a stop waits for what still runs."""

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

    async def drain(self, seconds: float = TASK_SECONDS) -> None:
        """Wait for what still runs, and for what that starts, then cancel it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._running and (left := end - loop.time()) > 0:
            await asyncio.wait(self._running, timeout=left)
        for task in list(self._running):
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
    """Handed to every plugin's `lifespan`. `clock` gives monotonic seconds.

    `upstreams` has the config's blocks by name, `routes` the targets of each; `store` counts and keeps what replicas
    share, `share` says how many workers divide what is this Weir's. `models` is the closed set of the `model` label: a
    plugin adds those that its own settings name. `feedback` is where plugins take what people think of answers.

    A reload builds all plugins anew, with Services of their own: tasks, watched files, upstreams, routes and models are
    theirs and end with them. Store, metrics, files and what is `kept` go on.
    """

    def __init__(
        self,
        metrics: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        upstreams: Mapping[str, Upstream] | None = None,
        stdout: Lines | None = None,
        store: Store | None = None,
        routes: Mapping[str, Sequence[Target]] | None = None,
        share: int = 1,
    ) -> None:
        self.share = share
        self.metrics = metrics
        self.tasks = Tasks()
        self.clock = clock
        self.watch = Watch(self.tasks)
        self.upstreams = upstreams or {}
        self.routes = routes or {}
        self.models: set[str] = set()
        self.feedback = Inbox()
        self.store = store or Memory(clock)
        self.stdout = stdout or standard_output()
        self._files: dict[pathlib.Path, Lines] = {}
        self._families: dict[str, Family] = {}
        self._kept: dict[Hashable, Any] = {}
        self._asked: set[Hashable] = set()

    def anew(
        self, upstreams: Mapping[str, Upstream] | None = None, routes: Mapping[str, Sequence[Target]] | None = None
    ) -> Services:
        """For what lives shorter than this: another config's plugins, or one upstream."""
        made = copy.copy(self)
        made.tasks = Tasks()
        made.watch = Watch(made.tasks)
        made.upstreams, made.routes = upstreams or {}, routes or {}
        made.models = set()
        made._asked = set()  # noqa: SLF001 - its own
        return made

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What lives on through reloads: made on the first call, the same for all that ask with this key.

        So what was learned is not lost; it is let go of where a new config's plugins do not ask for it any more.
        """
        self._asked.add(key)
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def forget(self) -> None:
        """What is kept and was not asked for here."""
        for key in self._kept.keys() - self._asked:
            del self._kept[key]

    def counter(self, name: str, documentation: str, labels: Labels = ()) -> Counter:
        """Made on the first call, the same for all that name it: instances of a plugin count together.

        The page shows it with the suffix `_total`. Label values must come from closed sets.
        """
        return self._family(Counter, name, documentation, labels)

    def gauge(self, name: str, documentation: str, labels: Labels = (), how: How = "sum") -> Gauge:
        """`how` the values of several workers are shown as one."""
        return self._family(Gauge, name, documentation, labels, how)

    def histogram(
        self, name: str, documentation: str, labels: Labels = (), bounds: tuple[float, ...] = SECONDS
    ) -> Histogram:
        return self._family(Histogram, name, documentation, labels, bounds)

    def model_label(self, model: str | None) -> str:
        return model if model is not None and model in self.models else OTHER

    def lines(self, file: pathlib.Path) -> Lines:
        """Where whole lines are appended to a file without waiting; `stdout` is standard output's."""
        if file not in self._files:
            self._files[file] = Lines(file)
        return self._files[file]

    def close(self) -> None:
        self.watch.stop()
        for lines in (self.stdout, *self._files.values()):
            lines.close()

    def _family(self, kind: type[F], name: str, *args: Any) -> F:
        name = name.removesuffix("_total")
        if name not in self._families:
            self._families[name] = kind(self.metrics, name, *args)
        family = self._families[name]
        if type(family) is not kind:
            raise TypeError(f"the metric '{name}' is a {type(family).__name__} already")
        return family
