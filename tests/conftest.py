"""What tests of any folder may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import redis_server

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.redis_server import RedisServer

# The same examples in each run, so that a change fails for its own sake. `make fuzz` looks for new ones.
settings.register_profile("steady", derandomize=True, max_examples=200, deadline=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None)
settings.load_profile("steady")


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own."""
    with redis_server.running(tmp_path) as server:
        yield server
