"""What config.yaml may say, and what it may not."""

import pytest
from pydantic import ValidationError

from plugins.cache import CacheConfig


def test_its_defaults():
    config = CacheConfig()
    assert (config.ttl, config.scope, config.tool_calls, config.pace) == (600.0, "principal", False, "at_once")
    assert (config.max_entry, config.single_flight) == (2**20, True)
    assert (config.memory.entries, config.memory.size) == (10_000, 64 * 2**20)


@pytest.mark.parametrize(
    "wrong", [{"scope": "all"}, {"pace": "slow"}, {"ttl": "10"}, {"memory": {"entries": 0}}, {"size": "1MB"}]
)
def test_what_it_does_not_take(wrong):
    with pytest.raises(ValidationError):
        CacheConfig(**wrong)
