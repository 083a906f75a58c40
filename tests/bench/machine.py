"""The machine and the versions that a table of figures is worth nothing without."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("aiohttp", "uvloop", "httptools")


def description(nginx: str | None) -> str:
    packages = (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    hardware = f"{_cpu()}, {os.cpu_count()} cores", f"{platform.system()} {platform.release()}"
    return ", ".join((*hardware, python, *packages, _nginx_version(nginx) if nginx else "no nginx"))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _nginx_version(binary: str) -> str:
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False, timeout=10).stderr
    return said.strip().rpartition(" ")[2].replace("/", " ")
