"""CPU time and memory of running processes, from Linux's /proc."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Cpu:
    """Time on a core, and time ready to run but waiting for one; ns."""

    ran_ns: int
    waited_ns: int


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(*_GONE):
            after_name = stat.read_text(errors="replace").rpartition(")")[2].split()
            found[int(stat.parent.name)] = int(after_name[1])
    return found


def family(pid: int) -> tuple[int, ...]:
    """A process and all that descend from it."""
    parents = _parents()
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return tuple(members)


def cpu(pids: Iterable[int]) -> Cpu:
    """Of all threads; /proc/PID/schedstat alone would be the first thread's."""
    ran = waited = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(*_GONE):
                fields = (thread / "schedstat").read_text().split()
                ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return Cpu(ran, waited)


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory. smaps_rollup walks the pages; the counters of /proc/PID/status may be off by some 100 KB."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024
    return total
