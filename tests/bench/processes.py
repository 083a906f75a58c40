"""Child processes of the bench: pinned to a core from their first instruction, waited for, ended by their pid."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import meter

_END_S = 5
_DESCRIPTORS = 4096


@dataclass(frozen=True, slots=True)
class Cores:
    """One for the proxy, the other for all that loads it."""

    proxy: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(proxy=usable[0], load=usable[1 % len(usable)])


class StartError(Exception):
    """A process ended or stayed silent instead of getting ready."""


def allow_many_sockets() -> None:
    """512 streams are 1024 sockets in a proxy; children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def reserve_descriptors() -> None:
    """Grow the descriptor table now: in a process with threads each doubling waits some ms for an RCU grace period."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup2(sys.stderr.fileno(), min(_DESCRIPTORS, soft) - 1)
    os.close(highest)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Children inherit the affinity, with all the threads that they will ever start."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def spawned(command: Sequence[str], core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # An HTTP_PROXY of the developer's shell must not stand between the proxy and the upstream.
    environ = {**os.environ, "NO_PROXY": "127.0.0.1"}
    with log.open("wb") as output, pinned(core):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environ)
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    members = meter.family(child.pid)
    child.terminate()
    try:
        child.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.communicate(timeout=_END_S)


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def await_ready(child: subprocess.Popen[bytes], is_ready: Callable[[], bool], limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not is_ready():
        if child.poll() is not None:
            raise StartError(f"ended with exit status {child.returncode} before it was ready")
        if time.monotonic() > until:
            raise StartError(f"was not ready within {limit_s:.0f} s")
        time.sleep(0.05)
