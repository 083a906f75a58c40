"""Weir as its users run it: a process of its own, with a config file and free ports."""

import contextlib
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 20
STOP_SECONDS = 10
CONFIG = """\
server: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"}}
upstreams: {{up: {{base_url: "{base_url}", auth: passthrough, kind: {kind}}}}}
routes: [{{name: default, targets: [up]}}]
{more}"""


@dataclass(frozen=True)
class Weir:
    root: str
    admin: str
    pid: int


@contextlib.contextmanager
def running(base_url: str, folder: Path, *, kind: str = "openai", more: str = "") -> Iterator[Weir]:
    """Ready to serve, with `more` in its config; ended with SIGTERM. Its log is shown where it does not start or end well."""
    port, admin = free_ports()
    config, log = folder / "config.yaml", folder / "weir.log"
    config.write_text(CONFIG.format(port=port, admin=admin, base_url=base_url, kind=kind, more=more))
    with log.open("wb") as output:
        command = [sys.executable, "-m", "proxy.cli", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        weir = Weir(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", process.pid)
        if not ready(weir.admin, process):
            raise RuntimeError(f"Weir did not start:\n{log.read_text()}")
        yield weir
    finally:
        stop(process)
    if process.returncode != 0:
        raise RuntimeError(f"Weir ended with {process.returncode}:\n{log.read_text()[-4000:]}")


def free_ports() -> tuple[int, int]:
    """Below those that the system gives to whoever connects: a client's own port could be one that was free before."""
    found: set[int] = set()
    while len(found) < 2:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    one, other = found
    return one, other


def ready(admin: str, process: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        refused = contextlib.suppress(urllib.error.URLError, ConnectionError)
        with refused, urllib.request.urlopen(f"{admin}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
        time.sleep(0.05)
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
