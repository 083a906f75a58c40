"""When a new config is taken: its files have changed and stand still, or somebody asked; and what is said of it.

Files are looked at by name, through symbolic links, so that a write in place, a file moved over another and the swap
of a mounted ConfigMap are seen alike. Who reloads does so in two steps, so that several processes take a config
together or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from proxy.watch import mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.services import Services
    from proxy.watch import Mark

LOOK_SECONDS = 0.5
STILL_SECONDS = 0.2
"""How long files must not have changed before they are read: who writes in place may be half way."""

MOST_LOOKS = 10
"""After which a file that never stands still is read as it is."""

AGAIN_SECONDS = 5.0
"""After which a reload is tried once more that failed by what passes."""

OK, FAILED, UNCHANGED = "ok", "failed", "unchanged"

log = logging.getLogger("weir.reload")


class Report(NamedTuple):
    """What became of a `prepare`: with `problems` nothing was built, without `changes` there was nothing to build.

    `hash` is the file's, `files` are those to look at from now on, `frozen` the keys that only a restart takes.
    `passing`: the problems may have gone in a moment, whatever the files say.
    """

    hash: str
    files: Sequence[str]
    problems: Sequence[str] = ()
    changes: Sequence[str] = ()
    frozen: Sequence[str] = ()
    passing: bool = False


class Reloadable(Protocol):
    async def prepare(self) -> Report:
        """Build what the config's file says now, beside what serves; then `commit` or `discard`."""

    async def commit(self) -> None:
        """From the next exchange on."""

    async def discard(self) -> None:
        """What was prepared and not committed, if anything."""


class Reloads:
    def __init__(self, house: Reloadable, services: Services, started: Report) -> None:
        self._house = house
        self._marks = _marks(started.files)
        self._asked = asyncio.Event()
        self._counted = services.counter("weir_config_reloads", "new configs, by what became of them", ("result",))
        self._info = services.gauge("weir_config_info", "1 for the config in use", ("hash",))
        self._is_current = services.gauge("weir_config_last_reload_successful", "0 while the file is refused")
        self._told: dict[str, Any] | None = None
        for result in (OK, FAILED, UNCHANGED):
            self._counted.add((result,), 0)
        self._show(started.hash, OK)

    def ask(self) -> None:
        """Reload now, whether or not a file has changed."""
        self._asked.set()

    def state(self) -> dict[str, Any] | None:
        """Of the last one: when, its result, and what was wrong; None before the first."""
        return self._told

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._wanted()
            await self.reload()

    async def reload(self) -> str:
        """What became of it."""
        marks = _marks(self._marks)
        report = await self._house.prepare()
        self._marks = {file: marks.get(file, now) for file, now in _marks(report.files).items()}
        result = await self._take(report)
        if report.passing:
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.ask)
        self._counted.add((result,))
        if result != FAILED:
            self._hash = report.hash
        self._show(self._hash, result)
        self._told = {"at": datetime.now(UTC), "result": result, "problems": list(report.problems)}
        if report.frozen:
            self._told["needs_restart"] = list(report.frozen)
        return result

    async def _take(self, report: Report) -> str:
        if report.problems:
            log.error("the new config is refused, the old one stays", extra={"problems": list(report.problems)})
            return FAILED
        for key in report.frozen:
            log.warning("a new value of '%s' needs a restart: the old one stays in use", key)
        await self._house.commit()
        if not report.changes:
            log.info("the config says what it said", extra={"hash": report.hash})
            return UNCHANGED
        log.info("a new config is in use", extra={"hash": report.hash, "changes": list(report.changes)})
        return OK

    def _show(self, hash_: str, result: str) -> None:
        self._hash = hash_
        self._info.values.clear()
        self._info.set((hash_,), 1)
        self._is_current.set((), int(result != FAILED))

    async def _wanted(self) -> None:
        while not self._asked.is_set() and not self._stirred():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
        self._asked.clear()
        await self._still()

    def _stirred(self) -> bool:
        """A file that is away has not changed yet."""
        return any((now := mark(file)) is not None and now != seen for file, seen in self._marks.items())

    async def _still(self) -> None:
        before = _marks(self._marks)
        for _ in range(MOST_LOOKS):
            await asyncio.sleep(STILL_SECONDS)
            now = _marks(self._marks)
            if now == before:
                return
            before = now


def _marks(files: Iterable[str | pathlib.Path]) -> dict[pathlib.Path, Mark | None]:
    return {pathlib.Path(file): mark(pathlib.Path(file)) for file in files}
