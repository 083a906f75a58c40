"""Every test here runs on both event loops: Weir serves on uvloop, and plugin authors' tests on the standard one."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@dataclass(frozen=True)
class Certificate:
    """Its own authority, good for localhost, 127.0.0.1 and ::1."""

    file: pathlib.Path
    context: ssl.SSLContext
    """The server's side."""


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return _made(tmp_path_factory.mktemp("tls"), "DNS:localhost,IP:127.0.0.1,IP:::1")


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate of another host."""
    return _made(tmp_path_factory.mktemp("tls"), "DNS:elsewhere.test")


def _made(folder: pathlib.Path, names: str) -> Certificate:
    file, key = folder / "cert.pem", folder / "key.pem"
    wish = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command = ["openssl", "req", *wish, "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return Certificate(file, context)
