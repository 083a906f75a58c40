"""Python packages as their users have them: installed by pip, into a folder that only PYTHONPATH names."""

import os
import pathlib
import subprocess
import sys


def environment(target: pathlib.Path) -> dict[str, str]:
    """For subprocesses: pip puts packages into `target`, offline, and Python finds them there."""
    return {
        **os.environ,
        "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(target),
        "PIP_TARGET": str(target),
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of --no-build-isolation: the backend is the environment's own
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def run(command: list[str], target: pathlib.Path, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    """What it printed, errors too, is in `stdout`."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(target),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )


def install(source: pathlib.Path, target: pathlib.Path) -> None:
    ran = run([sys.executable, "-m", "pip", "install", "--quiet", str(source)], target)
    if ran.returncode:
        raise RuntimeError(ran.stdout)
