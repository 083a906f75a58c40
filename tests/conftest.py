"""What tests of any folder may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import redis_server

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path: pathlib.Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own."""
    with redis_server.running(tmp_path) as server:
        yield server
