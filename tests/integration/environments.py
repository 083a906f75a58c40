"""Environments for clients that the project itself does not need, made once below the system's temporary folder."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE = Path(tempfile.gettempdir()) / "weir-test-clients"
INSTALL_SECONDS = 2400  # some are built from source


def python(name: str, *requirements: str) -> Path:
    """The interpreter of a virtual environment with `requirements`."""

    def fill(folder: Path) -> None:
        run(sys.executable, "-m", "venv", str(folder))
        run(str(folder / "bin/pip"), "install", "-q", *requirements)

    return made(name, fill) / "bin/python"


def node(name: str, *packages: str) -> Path:
    """A folder in which scripts find `packages`."""

    def fill(folder: Path) -> None:
        npm = shutil.which("npm") or "npm"
        run(npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *packages)

    return made(name, fill)


def sources(name: str, version: str) -> Path:
    """A Python package as its authors released it, tests and all."""

    def fill(folder: Path) -> None:
        requirement = f"{name}=={version}"
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            name,
            "-d",
            str(folder),
            requirement,
        )
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")

    return made(f"{name}-{version}", fill) / f"{name}-{version}"


def made(name: str, fill: Callable[[Path], None]) -> Path:
    """Filled only where an earlier run has not got to the end of it."""
    folder, complete = CACHE / name, CACHE / f"{name}.complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fill(folder)
        complete.touch()
    return folder


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
