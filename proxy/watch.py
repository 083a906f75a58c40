"""Says when files changed, by looking at them once a second.

Looking follows symbolic links, so the swap that Kubernetes makes of a mounted ConfigMap or Secret is seen like a write
in place, on every file system. A file that is away for a moment has not changed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from proxy.services import Tasks

    Mark = tuple[int, int, int, int]

SECONDS = 1.0

log = logging.getLogger("weir.watch")


class Watch:
    def __init__(self, tasks: Tasks, seconds: float = SECONDS) -> None:
        self._tasks = tasks
        self._seconds = seconds
        self._marks: dict[pathlib.Path, Mark | None] = {}
        self._callbacks: dict[pathlib.Path, list[Callable[[], None]]] = {}
        self._looking: asyncio.Task[None] | None = None

    def add(self, file: pathlib.Path, on_change: Callable[[], None]) -> None:
        """Call `on_change` after each change of the file, until `stop`; what it raises is logged."""
        self._marks.setdefault(file, mark(file))
        self._callbacks.setdefault(file, []).append(on_change)
        if self._looking is None:
            self._looking = self._tasks.start(self._look(), "watch files")

    def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            for file, seen in list(self._marks.items()):
                now = mark(file)
                if now is not None and now != seen:
                    self._marks[file] = now
                    self._tell(file)

    def _tell(self, file: pathlib.Path) -> None:
        for on_change in self._callbacks[file]:
            try:
                on_change()
            except Exception:
                log.exception("a changed file cannot be taken", extra={"file": str(file)})


def mark(file: pathlib.Path) -> Mark | None:
    """What differs once the file is another, or says something else; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
