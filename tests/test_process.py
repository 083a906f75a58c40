"""What a process asks of the system: in processes of their own, since it would be asked of the tests' too."""

import resource
import subprocess
import sys

import pytest

ASKS = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}))
from proxy.process import make_room_for_sockets
make_room_for_sockets()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "warns"), [(300, True), (9000, False)])
def test_as_many_files_as_the_system_allows_may_be_open_and_few_are_told(hard: int, warns: bool):
    """Field case 95: a stream needs two."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most != resource.RLIM_INFINITY and most < hard:
        pytest.skip(f"this machine allows {most}")
    command = [sys.executable, "-c", ASKS.format(hard=hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(hard)]
    assert ("few open files are allowed" in done.stderr) is warns
