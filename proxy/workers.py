"""Several processes that serve: this one starts them, replaces those that die, and passes signals on.

It has no event loop and no thread, so that it can fork at any time: all modules and the config are in memory then, and
shared. Every worker accepts from sockets of its own, on the same address (SO_REUSEPORT): the kernel spreads connections
over them. They are opened here and stay open, so what waits in one when its worker goes is its successor's, and is not
lost. Where a kernel spreads nothing, all accept from one socket.

The last good config is kept here as well: what starts later starts with it, whatever the file says by then.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import pathlib
import select
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvloop

from proxy import app, logs, posts, process
from proxy.crew import Worker
from proxy.listening import listening, named
from proxy.source import ConfigError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proxy.plan import Plan

LONGEST_PAUSE = 5.0
FIRST_PAUSE = 0.1
"""Before a worker that died is replaced; doubled each time, until one has lived for STEADY_SECONDS."""
STEADY_SECONDS = 10.0

LEAVE_SECONDS = 20.0
"""What a worker may take beyond the drain's end."""

CANNOT_START = 3

PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)

log = logging.getLogger("weir.workers")


def serve(plan: Plan) -> int:
    """Until SIGTERM or SIGINT; the exit status. Raises OSError where an address is taken."""
    settings = plan.config.server
    with named("server.listen", settings.listen):
        sockets = listening(settings.listen, settings.workers)
    with named("server.admin", settings.admin):
        [doors] = listening(settings.admin, 1)
    folder = _folder()
    try:
        return Supervisor(plan, sockets, doors, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> pathlib.Path:
    try:
        return pathlib.Path(tempfile.mkdtemp(prefix="weir-"))
    except FileNotFoundError:
        raise OSError(errno.ENOENT, "workers need a folder for their sockets: set TMPDIR to one to write in") from None


@dataclass
class Child:
    """A process of ours. `ready` tells when a worker accepts; `since` is when it was started."""

    pid: int
    worker: Worker | None = None
    ready: int = -1
    is_ready: bool = False
    since: float = field(default_factory=time.monotonic)


@dataclass
class Slot:
    """A worker's place: who serves there, who still ends there, and what is to be done about it."""

    at: int
    serving: Child | None = None
    coming: Child | None = None
    starts: int = 0
    deaths: int = 0
    start_at: float = 0.0


class Supervisor:
    def __init__(
        self, plan: Plan, sockets: list[list[socket.socket]], doors: list[socket.socket], folder: pathlib.Path
    ) -> None:
        self._plan = plan
        self._sockets = sockets
        self._doors = doors
        self._folder = folder
        self._slots = [Slot(at) for at in range(len(sockets))]
        self._children: dict[int, Child] = {}
        self._desk: Child | None = None
        self._to_renew: list[Slot] = []
        self._has_served = self._is_stopping = False
        self._kill_at = float("inf")
        self._code = 0
        self._awake, self._wake = os.pipe()
        self._life, self._alive = os.pipe()
        """Nobody writes: that it ends tells workers that this process has."""

    def run(self) -> int:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._awake, False)
        for number in PASSED:
            signal.signal(number, _noted)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for warning in self._plan.warnings():
            log.warning(warning)
        gc.collect()
        gc.freeze()  # so that what all share stays shared
        while True:
            self._start_missing()
            if self._is_stopping and not self._children:
                return self._code
            self._wait()
            self._reap()
            self._renew_next()
            self._kill_late()

    # -- starting

    def _start_missing(self) -> None:
        if self._is_stopping:
            return
        if self._desk is None:
            self._desk = self._fork(None, self._keep_desk)
        now = time.monotonic()
        for slot in self._slots:
            if slot.serving is None and slot.start_at <= now:
                slot.serving = self._start(slot)

    def _start(self, slot: Slot) -> Child:
        worker = Worker(slot.at, slot.starts)
        slot.starts += 1
        worker.file(self._folder, "here").touch()
        ready, tell = os.pipe()
        child = self._fork(worker, lambda: self._work(worker, tell), (self._alive, ready))
        os.close(tell)
        os.set_blocking(ready, False)
        child.ready = ready
        worker.file(self._folder, "here").write_text(str(child.pid))
        return child

    def _fork(self, worker: Worker | None, run: Callable[[], int], not_its: tuple[int, ...] = ()) -> Child:
        """Signals wait meanwhile: the child gets none that is meant for this process, and loses none of its own."""
        sys.stdout.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)
        pid = os.fork()
        if pid == 0:
            self._become(worker, run, not_its, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        child = self._children[pid] = Child(pid, worker)
        return child

    def _become(self, worker: Worker | None, run: Callable[[], int], not_its: tuple[int, ...], mask: set[Any]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in PASSED:
                is_ended_by = number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
                signal.signal(number, signal.SIG_DFL if is_ended_by else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for descriptor in (self._wake, self._awake, *not_its):
                os.close(descriptor)
            logs.configure(worker="admin" if worker is None else worker.slot)
            code = run()
        except BaseException:
            log.exception("a process has failed")
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)

    # -- what happens

    def _wait(self) -> None:
        pending = {child.ready: child for child in self._children.values() if child.ready >= 0}
        times = [slot.start_at for slot in self._slots if slot.serving is None and not self._is_stopping]
        pause = min([*times, self._kill_at, time.monotonic() + 60]) - time.monotonic()
        found, _, _ = select.select([self._awake, *pending], [], [], max(pause, 0))
        for descriptor in found:
            if descriptor == self._awake:
                for number in os.read(self._awake, 4096):
                    self._hear(number)
            else:
                self._is_ready(pending[descriptor])

    def _hear(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and self._desk is not None:
            os.kill(self._desk.pid, signal.SIGHUP)
        elif number == signal.SIGUSR1:
            self._take_config()
        elif number == signal.SIGUSR2 and not self._is_stopping and not self._to_renew:
            log.info("workers are renewed, one after the other")
            self._to_renew = list(self._slots)

    def _take_config(self) -> None:
        """The workers have taken what the file says."""
        try:
            self._plan = self._plan.again()
        except ConfigError:
            log.warning("the config has changed again: workers that start now begin with the one before")

    def _is_ready(self, child: Child) -> None:
        told = os.read(child.ready, 1)
        os.close(child.ready)
        child.ready = -1
        if not told:
            return
        child.is_ready = True
        for slot in self._slots:
            if slot.coming is child:
                old, slot.serving, slot.coming = slot.serving, child, None
                if old is not None:
                    os.kill(old.pid, signal.SIGUSR1)
        if not self._has_served and all(slot.serving and slot.serving.is_ready for slot in self._slots):
            self._has_served = True
            self._tell_ready()

    def _tell_ready(self) -> None:
        server = self._plan.config.server
        url = app.url_of(server.listen.host, self._sockets[0][0].getsockname()[1])
        told = {"url": url, "admin": app.url_of(server.admin.host, self._doors[0].getsockname()[1])}
        log.info("listening", extra={**told, "config": str(self._plan.source.file), "workers": len(self._slots)})

    def _renew_next(self) -> None:
        """A successor is started beside each; the old one goes when it is ready."""
        if self._to_renew and not self._is_stopping and not any(slot.coming for slot in self._slots):
            slot = self._to_renew.pop(0)
            if slot.serving is not None:
                slot.coming = self._start(slot)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child is not None:  # else it is somebody's orphan: in a container this process may be the first
                self._buried(child, os.waitstatus_to_exitcode(status))

    def _buried(self, child: Child, code: int) -> None:
        if child.ready >= 0:
            os.close(child.ready)
        if child is self._desk:
            self._desk = None
            if not self._is_stopping:
                log.error("the admin process has died, and is replaced", extra={"pid": child.pid, "exit": _exit(code)})
                time.sleep(FIRST_PAUSE)
            return
        assert child.worker is not None
        for kind in ("here", "sock"):
            child.worker.file(self._folder, kind).unlink(missing_ok=True)
        slot = self._slots[child.worker.slot]
        if slot.coming is child:
            slot.coming, self._to_renew = None, []
            log.error("a new worker did not start: the others stay", extra={"pid": child.pid, "exit": _exit(code)})
        elif slot.serving is child:
            slot.serving = None
            self._died(slot, child, code)
        if self._is_stopping and not [each for each in self._children.values() if each.worker is not None]:
            self._end_desk()

    def _died(self, slot: Slot, child: Child, code: int) -> None:
        if self._is_stopping:
            return
        if not self._has_served:  # it told why
            self._code = 1
            self._stop()
            return
        slot.deaths = 0 if time.monotonic() - child.since > STEADY_SECONDS else slot.deaths + 1
        pause = min(FIRST_PAUSE * 2.0**slot.deaths, LONGEST_PAUSE)
        slot.start_at = time.monotonic() + pause
        told = {"died": slot.at, "pid": child.pid, "exit": _exit(code), "replaced_in_s": pause}
        log.error("a worker has died, and is replaced", extra=told)

    # -- the end

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        self._kill_at = time.monotonic() + self._plan.config.server.drain_timeout + LEAVE_SECONDS
        workers = [child for child in self._children.values() if child.worker is not None]
        for child in workers:
            os.kill(child.pid, signal.SIGTERM)
        if not workers:
            self._end_desk()

    def _end_desk(self) -> None:
        self._kill_at = time.monotonic() + LEAVE_SECONDS
        if self._desk is not None:
            os.kill(self._desk.pid, signal.SIGTERM)

    def _kill_late(self) -> None:
        if time.monotonic() < self._kill_at:
            return
        for child in self._children.values():
            log.error("a process does not end, and is killed", extra={"pid": child.pid})
            os.kill(child.pid, signal.SIGKILL)
        self._kill_at = time.monotonic() + LEAVE_SECONDS

    # -- in a child

    def _work(self, worker: Worker, tell: int) -> int:
        for at, own in enumerate(self._sockets):
            for sock in own if at != worker.slot and sys.platform == "linux" else ():
                sock.close()
        for door in self._doors:
            door.close()
        process.make_room_for_sockets()
        post = app.Post(len(self._slots), self._sockets[worker.slot], worker.file(self._folder, "sock"))
        try:
            return uvloop.run(posts.work(self._plan, post, worker.file(self._folder, "left"), tell, self._life))
        except ConfigError as error:
            print(error, file=sys.stderr)  # noqa: T201 - as where there is one process
            return CANNOT_START

    def _keep_desk(self) -> int:
        for own in self._sockets:
            for sock in own:
                sock.close()
        os.close(self._alive)
        return uvloop.run(posts.keep_desk(self._plan, self._folder, len(self._slots), self._doors, self._life))


def _noted(_number: int, _frame: object) -> None:
    """That it came stands in the pipe."""


def _exit(code: int) -> int | str:
    return signal.Signals(-code).name if code < 0 else code
