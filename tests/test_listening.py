"""Sockets for workers: the same port for all, and nobody else's."""

import socket

import pytest

from proxy.config import Address
from proxy.listening import listening


def test_an_address_that_somebody_has_is_refused_although_ports_are_shared():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127.0.0.1:{port}: address already in use"):
            listening(Address("127.0.0.1", port), 2)


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
