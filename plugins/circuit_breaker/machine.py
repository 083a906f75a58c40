"""pybreaker's state machine, without redis: it imports that for a storage which is not used here, five megabytes."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Within, `import package` fails as if it were not installed."""
    modules: dict[str, Any] = sys.modules
    known = modules.pop(package, None)
    modules[package] = None
    try:
        yield
    finally:
        del modules[package]
        if known is not None:
            modules[package] = known


with _without("redis"):
    import pybreaker

STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN = pybreaker.STATE_CLOSED, pybreaker.STATE_HALF_OPEN, pybreaker.STATE_OPEN
Machine = pybreaker.CircuitBreaker
