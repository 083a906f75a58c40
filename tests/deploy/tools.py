"""The programs that check what is in deploy/, where they are to be had: on the PATH, or as deploy/tools.sh got them."""

import functools
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FETCHED = ROOT / ".venv" / ".tools" / "bin"


@functools.cache
def tool(name: str) -> str:
    """Its path. Skips the test that needs it where there is none: not every machine can have all of them."""
    found = shutil.which(name, path=f"{FETCHED}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"there is no {name} here: `make deploy-check` gets it, or says why it cannot")
    return found


def run(name: str, *arguments: str | pathlib.Path, cwd: pathlib.Path = ROOT, input: str | None = None) -> str:  # noqa: A002
    """What it prints; raises with what it complains of."""
    command = [tool(name), *map(str, arguments)]
    ran = subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout
