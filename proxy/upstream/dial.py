"""How a connection to one origin is made: cached names, happy eyeballs, TLS, and a tunnel where the environment asks.

`HTTPS_PROXY` and `NO_PROXY` are honoured for https origins, as the OpenAI SDKs do; plain http goes direct.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohappyeyeballs

from proxy.errors import ConnectFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohappyeyeballs import AddrInfoType

    from proxy.upstream.connection import Connection

NAME_SECONDS = 30.0
"""How long a resolved name is used; getaddrinfo tells no TTL, and Kubernetes' own is 30 s."""

EYEBALLS_DELAY = 0.25
"""RFC 8305's connection attempt delay, in seconds."""

MAX_TUNNEL_HEAD = 16 * 1024


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """An HTTP proxy that CONNECTs to the origin."""

    host: str
    port: int
    authorization: str | None

    @classmethod
    def from_environment(cls, origin: Origin) -> Tunnel | None:
        """The tunnel that `HTTPS_PROXY` names, unless `NO_PROXY` excludes the origin."""
        proxy = urllib.request.getproxies_environment().get("https")
        if origin.tls is None or not proxy or urllib.request.proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        url = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        user = urllib.parse.unquote(url.username or "")
        credential = base64.b64encode(f"{user}:{urllib.parse.unquote(url.password or '')}".encode()).decode()
        return cls(url.hostname or "", url.port or 80, f"Basic {credential}" if user else None)


class _TunnelRefused(ConnectionError):
    """Says itself what is wrong."""


class Dialer:
    def __init__(self, name: str, origin: Origin) -> None:
        self._name = name
        self._origin = origin
        self._tunnel = Tunnel.from_environment(origin)
        self._names = Names(*((self._tunnel.host, self._tunnel.port) if self._tunnel else (origin.host, origin.port)))

    async def dial(self, make: Callable[[], Connection]) -> Connection:
        """A new connection, ready for its first request; raises ConnectFailed."""
        try:
            sock = await self._socket()
            return await self._connection(sock, make)
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message.partition(",")[0]  # after a comma comes the host that was wanted
            raise ConnectFailed(f"upstream '{self._name}': its certificate is not valid: {reason}") from error
        except (OSError, ssl.SSLError) as error:
            self._names.forget()
            raise ConnectFailed(f"upstream '{self._name}' cannot be reached: {_reason(error)}") from error
        except asyncio.CancelledError:
            self._names.forget()  # a time limit: where an address has moved, the old one may swallow what is sent there
            raise

    async def _socket(self) -> socket.socket:
        addresses = await self._names.resolve()
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=EYEBALLS_DELAY if len(addresses) > 1 else None, interleave=1
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return sock

    async def _connection(self, sock: socket.socket, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            if self._tunnel is not None:
                await _open_tunnel(loop, sock, self._origin, self._tunnel)
            tls = self._origin.tls
            _, connection = await loop.create_connection(
                make, sock=sock, ssl=tls, server_hostname=self._origin.host if tls else None
            )
        except BaseException:
            sock.close()
            raise
        return connection


class Names:
    """One host's addresses, resolved off the loop and kept for NAME_SECONDS; concurrent callers share one look-up."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._addresses: list[AddrInfoType] = []
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def resolve(self) -> list[AddrInfoType]:
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._until:
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                self._addresses = list(found)
                self._until = loop.time() + NAME_SECONDS
            return self._addresses

    def forget(self) -> None:
        """After a failure the next try asks again: the addresses may have moved."""
        self._until = 0.0


async def _open_tunnel(loop: asyncio.AbstractEventLoop, sock: socket.socket, origin: Origin, tunnel: Tunnel) -> None:
    target = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if tunnel.authorization:
        lines.append(f"Proxy-Authorization: {tunnel.authorization}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(sock, 4096)
        head += data
        if not data or len(head) > MAX_TUNNEL_HEAD:
            raise _TunnelRefused("the proxy of HTTPS_PROXY gave no answer to CONNECT")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise _TunnelRefused(
            f"the proxy of HTTPS_PROXY refused CONNECT with {b''.join(status).decode('ascii', 'replace')}"
        )


def _reason(error: BaseException) -> str:
    """What the operating system says, without addresses: a text of several errors in one holds them."""
    if isinstance(error, _TunnelRefused):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        return _reason(error.exceptions[0])
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'closed'})"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "none of its addresses accepts a connection"
