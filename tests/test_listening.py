"""Sockets for workers: the same port for all, and nobody else's."""

import errno
import re
import socket

import pytest

from proxy.config import Address
from proxy.listening import listening, named


def test_an_address_that_somebody_has_is_refused_although_ports_are_shared():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = Address("127.0.0.1", port)
        said = f"server.admin 127.0.0.1:{port}: address already in use; choose another"
        with pytest.raises(OSError, match=said), named("server.admin", address):
            listening(address, 2)


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (
            Address("::1", 80),
            PermissionError(errno.EACCES, "error while attempting to bind"),
            "[::1]:80: permission denied",
        ),
        (Address("", 80), OSError("could not bind on any address"), ":80: could not bind on any address"),
        (
            Address("nowhere", 80),
            socket.gaierror(-2, "Name or service not known"),
            "nowhere:80: name or service not known",
        ),
    ],
)
def test_what_cannot_be_listened_on_is_told_with_its_key_and_address(address, error, said):
    with (
        pytest.raises(OSError, match=re.escape(f"server.listen {said}; choose another address")),
        named("server.listen", address),
    ):
        raise error


@pytest.mark.parametrize("count", [1, 3])
def test_every_worker_has_sockets_on_the_same_port(count):
    found = listening(Address("127.0.0.1", 0), count)
    try:
        assert len(found) == count
        assert len({sock.getsockname() for own in found for sock in own}) == 1
        assert len({sock.fileno() for own in found for sock in own}) == count
    finally:
        for own in found:
            for sock in own:
                sock.close()
