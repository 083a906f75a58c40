"""What a process that serves asks of the system, and of Python, before it does."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import sys

GC_ALLOCATIONS = 20_000
DESCRIPTORS = 8192

log = logging.getLogger("weir")


def calm_collector() -> None:
    """What a start leaves lives as long as the process; what exchanges leave, reference counts free."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 20)


def make_room_for_sockets() -> None:
    """A stream needs two sockets: take as many descriptors as the system lets us, and the kernel's table for them now.

    Growing that table makes a process with threads wait for an RCU grace period: 5 to 15 ms at 256, 512, 1024 sockets.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        log.warning("few open files are allowed", extra={"allowed": soft})
    highest = min(soft, DESCRIPTORS) - 1
    os.close(os.dup2(sys.stderr.fileno(), highest))
