"""Listening sockets, one for each of several workers on the same address, where the kernel spreads connections."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.scalars import Address

BACKLOG = 1024


@contextlib.contextmanager
def named(key: str, address: Address) -> Iterator[None]:
    """What cannot be listened on is told with its key in the config and its address."""
    try:
        yield
    except OSError as error:
        host = f"[{address.host}]" if ":" in address.host else address.host
        number = 0 if isinstance(error, socket.gaierror) else error.errno or 0
        why = os.strerror(number) if number else error.strerror or str(error)  # asyncio's own words repeat the address
        what = f"{key} {host}:{address.port}: {why.lower()}; choose another address, or stop who has it"
        raise OSError(error.errno, what) from error


def listening(address: Address, workers: int) -> list[list[socket.socket]]:
    """By worker, of each address that the host has. Raises OSError."""
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    infos = list(dict.fromkeys(socket.getaddrinfo(address.host or None, address.port, type=kind, flags=passive)))
    spreads = workers > 1 and sys.platform == "linux"
    of_address = []
    for family, *_, where in infos:
        try:
            first = _bound(family, where, shares=False)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and len(infos) > 1:
                continue
            raise
        if spreads:  # that nobody else has it is known now
            found = first.getsockname()
            first.close()
            of_address.append([_listening(_bound(family, found, shares=True)) for _ in range(workers)])
        else:
            of_address.append([_listening(first)] * workers)
    if not of_address:
        raise OSError(errno.EADDRNOTAVAIL, f"no address of '{address.host}' can be used")
    return [list(own) for own in zip(*of_address, strict=True)]


def _bound(family: int, where: tuple[object, ...], *, shares: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def _listening(sock: socket.socket) -> socket.socket:
    sock.listen(BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 - it has no name
    return sock
