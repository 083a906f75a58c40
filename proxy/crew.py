"""All workers as one, in the process that has the admin port: asked over a Unix socket each, in a folder of their own.

The folder says who is there. `SLOT-NUMBER.here` stands as long as that worker's process lives: whoever started it has
put it there, and takes it away. `.sock` is its inner door, and `.left` what it had measured when it ended in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import orjson
import prometheus_client
from prometheus_client import CollectorRegistry

from proxy.errors import Unavailable
from proxy.merge import Tally, read
from proxy.reload import Reloads, Report
from proxy.services import Services

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping

LOOK_SECONDS = 5.0
"""How often workers are asked what they measure, so that little is lost with one that dies."""

MEASURE_SECONDS = 5.0
"""Prometheus waits for ten; who has not answered is shown as it was."""

ANSWER_SECONDS = 2.0
_JSON = {"content-type": "application/json"}
_PATH_PART = re.compile(r"\w{1,64}", re.ASCII)
PREPARE_SECONDS = 75.0

log = logging.getLogger("weir.workers")


class Worker(NamedTuple):
    """`number`: how many of its slot were before it."""

    slot: int
    number: int

    @classmethod
    def named(cls, name: str) -> Worker:
        slot, _, number = name.partition("-")
        return cls(int(slot), int(number))

    def file(self, folder: pathlib.Path, kind: str) -> pathlib.Path:
        return folder / f"{self.slot}-{self.number}.{kind}"


class Unheard(Exception):
    """A worker has not answered."""


class Crew:
    """See `admin.House` and `reload.Reloadable`."""

    def __init__(self, folder: pathlib.Path, slots: int, started: Report, on_commit: Callable[[], None]) -> None:
        """`on_commit` is called when a new config is in use: what starts from then on begins with it."""
        registry = CollectorRegistry()
        self.services = Services(registry)
        self.reloads = Reloads(self, self.services, started)
        self._on_commit = on_commit
        self._is_draining = False
        self._folder = folder
        self._slots = slots
        self._hash = self._next_hash = started.hash
        self._files = started.files
        self._prepared: list[Worker] = []
        self._doors: dict[Worker, aiohttp.ClientSession] = {}  # noqa: TID251 - from process to process
        self._starts: dict[int, int] = {}
        self._answering = self.services.gauge("weir_workers", "workers that answer")
        self._started = self.services.counter("weir_worker_starts", "workers that were started, the first ones too")
        self._tally = Tally(registry)

    # -- the admin port

    async def alive(self) -> str:
        """A worker whose event loop stands still is as bad as one's own; one that is just being replaced is not."""
        told = await self._ask_all("/livez")
        silent = (worker for worker, answer in told.items() if answer is None)
        return ", ".join(f"worker {worker.slot} does not answer" for worker in silent)

    async def readiness(self) -> str:
        told = await self._ask_all("/readyz")
        ready = {worker.slot for worker in _well(told)}
        missing = set(range(self._slots)) - ready
        if self._is_draining:
            return "draining"
        draining = {worker.slot for worker, answer in told.items() if answer is not None and answer[0] == 503}
        if missing and missing <= draining:
            return "draining"
        return f"not ready: worker {', '.join(map(str, sorted(missing)))}" if missing else ""

    async def page(self) -> bytes:
        await self.look()
        return prometheus_client.generate_latest(self.services.metrics)

    async def state(self) -> dict[str, Any]:
        told = await self._ask_all("/state")
        states = [(worker, orjson.loads(answer[1])) for worker, answer in told.items() if answer is not None]
        return {
            "config": {"hash": self._hash, "reload": self.reloads.state()},
            "ready": not await self.readiness(),
            "in_flight": sum(state["in_flight"] for _, state in states),
            "workers": [{**self._told_of(worker), **state} for worker, state in states],
        }

    def _told_of(self, worker: Worker) -> dict[str, Any]:
        pid = ""
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            pid = worker.file(self._folder, "here").read_text()
        return {"worker": worker.slot, "number": worker.number, "pid": int(pid) if pid else None}

    async def begin_drain(self) -> None:
        self._is_draining = True
        await self._ask_all("/drain", "POST")

    async def take_feedback(self, body: bytes) -> tuple[int, bytes]:
        """By the worker that remembers the exchange, else by any."""
        told = await self._ask_all(f"/remembers/{_request_id(body)}")
        for worker in _well(told) or told:
            with contextlib.suppress(Unheard):
                return await self._ask(worker, "/feedback", "POST", body=body)
        return 503, Unavailable("no worker answers; try again").body()

    # -- another config

    async def prepare(self) -> Report:
        """All or none: what one cannot build, none takes."""
        told = await self._ask_all("/prepare", "POST", PREPARE_SECONDS)
        reports = {worker: Report(**orjson.loads(body)) for worker, body in _well(told).items()}
        self._prepared = list(reports)
        unheard = [f"worker {worker.slot} did not answer" for worker in told if worker not in reports]
        report = _one(list(reports.values()), unheard, self._hash)
        self._files = report.files or self._files
        report = report._replace(files=self._files)
        if report.problems:
            await self.discard()
        self._next_hash = report.hash
        return report

    async def commit(self) -> None:
        await self._tell(self._prepared, "/commit")
        self._prepared, self._hash = [], self._next_hash
        self._on_commit()

    async def discard(self) -> None:
        await self._tell(self._prepared, "/discard")
        self._prepared = []

    # -- what is measured

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                log.exception("workers cannot be asked")

    async def look(self) -> None:
        """Ask all what they measure; what those have counted that are gone stays counted."""
        told, behind = await self._ask_all("/measured", seconds=MEASURE_SECONDS), []
        heard = {worker: orjson.loads(body) for worker, body in _well(told).items()}
        for worker, state in heard.items():
            if not worker.file(self._folder, "here").exists():  # somebody else has seen it go meanwhile
                continue
            self._tally.note(worker, read(state["metrics"]))
            if state["hash"] != self._hash and worker not in self._prepared:
                behind.append(worker)
        self._answering.set((), len(heard))
        await self._let_go()
        for worker in behind:
            await self._bring_up(worker)
        if self._is_draining:  # those that have come since
            await self._ask_all("/drain", "POST")

    async def _let_go(self) -> None:
        here = set(self._here())
        for file in self._folder.glob("*.left"):
            worker = Worker.named(file.stem)
            if worker not in here:
                self._tally.note(worker, read(orjson.loads(file.read_bytes())["metrics"]))
                file.unlink()
                self._tally.leave(worker)
        for worker in [worker for worker in self._doors if worker not in here]:
            await self._doors.pop(worker).close()
            self._tally.leave(worker)

    async def _bring_up(self, worker: Worker) -> None:
        """It began with an older config, while this one was taken."""
        with contextlib.suppress(Unheard):
            report = Report(**orjson.loads((await self._ask(worker, "/prepare", "POST", PREPARE_SECONDS))[1]))
            is_wanted = report.hash == self._hash and not report.problems
            await self._ask(worker, "/commit" if is_wanted else "/discard", "POST")

    # -- asking

    def _here(self) -> list[Worker]:
        """Those whose process lives, in order."""
        here = sorted(Worker.named(file.stem) for file in self._folder.glob("*.here"))
        for worker in here:
            self._count(worker)
        return here

    def _count(self, worker: Worker) -> None:
        new = worker.number + 1 - self._starts.get(worker.slot, 0)
        if new > 0:
            self._starts[worker.slot] = worker.number + 1
            self._started.add((), new)

    async def _ask_all(
        self, path: str, method: str = "GET", seconds: float = ANSWER_SECONDS
    ) -> Mapping[Worker, tuple[int, bytes] | None]:
        """By worker that has opened its door; None where it has not answered."""
        here = [worker for worker in self._here() if worker.file(self._folder, "sock").exists()]
        told = await asyncio.gather(*(self._ask(w, path, method, seconds) for w in here), return_exceptions=True)
        answers: dict[Worker, tuple[int, bytes] | None] = {}
        for worker, answer in zip(here, told, strict=True):
            if isinstance(answer, tuple):
                answers[worker] = answer
            elif not isinstance(answer, Unheard):
                raise answer
            elif worker.file(self._folder, "here").exists():  # else it has ended meanwhile
                answers[worker] = None
        return answers

    async def _tell(self, workers: list[Worker], path: str) -> None:
        told = await asyncio.gather(*(self._ask(w, path, "POST") for w in workers), return_exceptions=True)
        for worker, answer in zip(workers, told, strict=True):
            if isinstance(answer, BaseException):
                log.error("a worker does not answer", extra={"worker": worker.slot, "asked": path})

    async def _ask(
        self, worker: Worker, path: str, method: str = "GET", seconds: float = ANSWER_SECONDS, *, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body, after one of JSON; raises Unheard."""
        if worker not in self._doors:
            door = aiohttp.UnixConnector(path=str(worker.file(self._folder, "sock")))
            self._doors[worker] = aiohttp.ClientSession(connector=door)  # noqa: TID251
        try:
            async with (
                asyncio.timeout(seconds),
                self._doors[worker].request(method, f"http://worker{path}", data=body, headers=_JSON) as answer,
            ):
                return answer.status, await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unheard(str(error)) from error

    async def close(self) -> None:
        for door in self._doors.values():
            await door.close()


def _well(told: Mapping[Worker, tuple[int, bytes] | None]) -> dict[Worker, bytes]:
    """Bodies of those that answered with 200."""
    return {worker: answer[1] for worker, answer in told.items() if answer is not None and answer[0] == 200}


def _request_id(body: bytes) -> str:
    """As far as it can be a part of a path; what is wrong with it is the worker's to say."""
    try:
        found = str(orjson.loads(body)["request_id"])
    except (ValueError, KeyError, TypeError):
        return "none"
    return found if _PATH_PART.fullmatch(found) else "none"


def _one(reports: list[Report], unheard: list[str], hash_: str) -> Report:
    """Of all workers' reports."""
    files = list(dict.fromkeys(file for report in reports for file in report.files))
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    passing = list(unheard)
    if not reports and not unheard:
        passing = ["no worker is there"]
    elif len({report.hash for report in reports}) > 1 and not problems:
        passing = ["the file changed while it was read"]
    changes = list(dict.fromkeys(change for report in reports for change in report.changes))
    is_passing = bool(passing) or any(report.passing for report in reports)
    first = reports[0] if reports else Report(hash_, ())
    return first._replace(files=files, problems=[*problems, *passing], changes=changes, passing=is_passing)
