"""pybreaker without what it brings along; redis itself stays importable."""

import subprocess
import sys

import pytest

USES = {
    "alone": "import plugins.circuit_breaker.machine as machine; assert 'redis' not in sys.modules; import redis.asyncio",
    "beside": "import redis.asyncio; import plugins.circuit_breaker.machine as machine; assert sys.modules['redis'] is redis",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_redis_is_neither_loaded_nor_lost(use):
    opens = "assert machine.Machine(1).current_state == machine.STATE_CLOSED"
    subprocess.run([sys.executable, "-c", f"import sys; {use}; {opens}"], check=True, timeout=30)
