"""How a connection is made: names, addresses, TLS and tunnels; and what is said where it cannot be made."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from typing import TYPE_CHECKING

import orjson
import pytest

from proxy import testing
from proxy.errors import ConnectFailed
from proxy.upstream import dial
from tests.upstream.double import OK, ask, deaf, each, opened, refusing, serving, silent, until
from tests.wire import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstream.conftest import Certificate
    from tests.upstream.double import Peer


class Names:
    """Stands in for getaddrinfo: every name below `.test` has these addresses. `asked` counts."""

    def __init__(self, *ports: int, host: str = "127.0.0.1") -> None:
        self.addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for port in ports]
        self.asked = 0
        self._real = asyncio.get_running_loop().getaddrinfo

    async def __call__(self, host: str, port: int, **wish: int) -> list[object]:
        if not host.endswith(".test"):  # uvloop asks for numbers too
            return await self._real(host, port, **wish)
        self.asked += 1
        await asyncio.sleep(0.02)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return list(self.addresses)


@contextlib.contextmanager
def names(*ports: int, host: str = "127.0.0.1") -> Iterator[Names]:
    found = Names(*ports, host=host)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "getaddrinfo", found, raising=False)
        yield found


@pytest.fixture(autouse=True)
def _no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


# -- TLS


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_with_an_authority_of_ones_own(host: str, certificate: Certificate) -> None:
    async with serving(each(OK), tls=certificate.context) as server:
        url = server.url.replace("127.0.0.1", host)
        async with opened(url, tls={"ca_file": str(certificate.file)}) as upstream:
            for _ in range(3):
                assert (await ask(upstream)).body == b"ok"
            assert server.connections == 1
            assert server.heads[0].get("host") == f"{host}:{server.port}"


async def test_a_body_to_the_end_of_a_tls_connection(certificate: Certificate) -> None:
    raw = b"HTTP/1.1 200 OK\r\n\r\nto the end"
    async with (
        serving(each(raw, ends=True), tls=certificate.context) as server,
        opened(server.url, tls={"ca_file": str(certificate.file)}) as upstream,
    ):
        answer = await ask(upstream)
        assert (answer.body, answer.is_whole) == (b"to the end", True)


async def test_a_certificate_of_an_unknown_authority(certificate: Certificate, elsewhere: Certificate) -> None:
    async with (
        serving(each(OK), tls=certificate.context) as server,
        opened(server.url, tls={"ca_file": str(elsewhere.file)}) as upstream,
    ):
        with pytest.raises(ConnectFailed, match=r"^upstream 'up': its certificate is not valid: self.signed") as raised:
            await ask(upstream)
        assert raised.value.status == 502
        assert upstream.pool.open == 0


async def test_a_certificate_of_another_host_is_refused_without_saying_which_was_wanted(elsewhere: Certificate) -> None:
    async with serving(each(OK), tls=elsewhere.context) as server:
        for host in ("127.0.0.1", "localhost"):
            url = server.url.replace("127.0.0.1", host)
            async with opened(url, tls={"ca_file": str(elsewhere.file)}) as upstream:
                with pytest.raises(ConnectFailed, match=r"certificate is not valid: .*mismatch") as raised:
                    await ask(upstream)
                assert host not in raised.value.message


async def test_any_certificate_passes_where_nobody_looks(elsewhere: Certificate) -> None:
    async with (
        serving(each(OK), tls=elsewhere.context) as server,
        opened(server.url, tls={"verify": False}) as upstream,
    ):
        assert (await ask(upstream)).body == b"ok"


async def test_tls_to_a_server_that_speaks_none() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(script) as server, opened(server.url.replace("http:", "https:")) as upstream:
        with pytest.raises(ConnectFailed, match=r"^upstream 'up' cannot be reached: TLS failed"):
            await ask(upstream)
        assert upstream.pool.open == 0


async def test_an_app_sees_a_502_that_names_the_upstream_and_not_its_url(certificate: Certificate) -> None:
    async with serving(each(OK), tls=certificate.context) as server:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{inner: {{base_url: "https://127.0.0.1:{server.port}/secret/v1", api_key: sk-secret}}}}\n'
            "routes: [{name: default, targets: [inner]}]\n"
        )
        async with testing.configured(text) as weir:
            answer = await fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 502
    error = orjson.loads(answer.body)["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "upstream_unreachable")
    assert error["message"].startswith("upstream 'inner': its certificate is not valid")
    assert b"secret" not in answer.body
    assert b"127.0.0.1" not in answer.body


# -- addresses


async def test_ipv6() -> None:
    async with serving(each(OK), host="::1") as server, opened(server.url) as upstream:
        assert (await ask(upstream)).body == b"ok"
        assert server.heads[0].get("host") == f"[::1]:{server.port}"


async def test_nagle_is_off() -> None:
    async with serving(silent) as server, opened(server.url) as upstream:
        connection = await upstream.pool.fresh()
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_address_that_does_not_answer_does_not_hold_up_the_next() -> None:
    """Happy eyeballs: the second address is tried while the first one is still silent."""
    with deaf() as silent_port, names() as found:
        async with serving(each(OK)) as server, opened("http://two.test/v1", timeouts={"connect": "5s"}) as upstream:
            found.addresses = Names(silent_port, server.port).addresses
            began = asyncio.get_running_loop().time()
            assert (await ask(upstream)).body == b"ok"
            assert asyncio.get_running_loop().time() - began < 4


async def test_an_address_that_refuses_does_not_hold_up_the_next() -> None:
    with refusing() as dead, names() as found:
        async with serving(each(OK)) as server, opened("http://two.test/v1") as upstream:
            found.addresses = Names(dead, server.port).addresses
            assert (await ask(upstream)).body == b"ok"


# -- names


async def test_a_name_is_asked_for_once_also_by_many_at_once() -> None:
    async with serving(silent) as server:
        with names(server.port) as found:
            async with opened("http://one.test/v1") as upstream:
                asking = [asyncio.ensure_future(ask(upstream)) for _ in range(20)]
                await until(lambda: len(server.heads) == 20)
                assert server.connections == 20
                assert found.asked == 1
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)


async def test_a_name_is_asked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "NAME_SECONDS", 0.2)
    async with serving(each(OK, ends=True)) as server:
        with names(server.port) as found:
            async with opened("http://one.test/v1") as upstream:
                await ask(upstream)
                await ask(upstream)
                assert found.asked == 1
                await asyncio.sleep(0.25)
                await ask(upstream)
                assert found.asked == 2


@pytest.mark.parametrize("before", [refusing, deaf], ids=["refused", "silent"])
async def test_an_upstream_that_has_moved_is_found_at_its_new_address(before: object) -> None:
    """Kubernetes gives a new pod another address; the old one refuses, or swallows what is sent there."""
    with before() as old, names(old) as found:
        async with serving(each(OK)) as server, opened("http://pod.test/v1", timeouts={"connect": "200ms"}) as upstream:
            with pytest.raises(ConnectFailed):
                await ask(upstream)
            found.addresses = Names(server.port).addresses
            assert (await ask(upstream)).body == b"ok"


async def test_a_name_that_nobody_knows() -> None:
    with names() as found:
        async with opened("http://secret-name.test/v1") as upstream:
            for _ in range(2):
                with pytest.raises(
                    ConnectFailed, match=r"^upstream 'up' cannot be reached: its name cannot be resolved$"
                ):
                    await ask(upstream)
            assert found.asked == 2


@pytest.mark.parametrize("addresses", [1, 2])
async def test_a_refusal_says_so_without_addresses(addresses: int) -> None:
    with refusing() as one, refusing() as two, names(*[one, two][:addresses]):
        async with opened("http://pods.test/v1") as upstream:
            with pytest.raises(ConnectFailed, match=r"^upstream 'up' cannot be reached: connection refused$"):
                await ask(upstream)


@pytest.mark.parametrize("addresses", [1, 2])
async def test_an_address_without_a_way_to_it_is_not_told(addresses: int) -> None:
    with names(*[80, 81][:addresses], host="255.255.255.255"):
        async with opened("http://pods.test/v1") as upstream:
            with pytest.raises(ConnectFailed, match=r"^upstream 'up' cannot be reached: ") as raised:
                await ask(upstream)
            assert "255" not in raised.value.message
            assert raised.value.__cause__ is not None


async def test_several_addresses_that_fail_in_several_ways_are_not_told() -> None:
    with refusing() as dead, names(dead) as found:
        found.addresses += Names(80, host="255.255.255.255").addresses
        async with opened("http://pods.test/v1") as upstream:
            with pytest.raises(ConnectFailed, match=r"^upstream 'up' cannot be reached: ") as raised:
                await ask(upstream)
            assert "255" not in raised.value.message
            assert "127.0.0.1" not in raised.value.message


# -- tunnels


class Tunnel:
    """An HTTP proxy that knows CONNECT, and where every name leads."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer = answer
        self.leads_to = 0

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        await peer.send(self.answer)
        if b" 200 " not in self.answer:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.leads_to)
        try:
            await asyncio.gather(pipe(peer.reader, writer), pipe(reader, peer.writer))
        finally:
            writer.transport.abort()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("answer", [Tunnel().answer, b"HTTP/1.0 200 OK\r\nVia: 1.1 corporate\r\n\r\n"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_https_goes_through_the_tunnel_of_the_environment(
    variable: str, answer: bytes, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel = Tunnel(answer)
    async with serving(each(OK), tls=certificate.context) as server, serving(tunnel) as proxy:
        tunnel.leads_to = server.port
        monkeypatch.setenv(variable, f"http://us%40er:p%3Ass@127.0.0.1:{proxy.port}")
        async with opened("https://localhost:4433/v1", tls={"ca_file": str(certificate.file)}) as upstream:
            for _ in range(2):
                assert (await ask(upstream)).body == b"ok"
        assert [head.start for head in proxy.heads] == [b"CONNECT localhost:4433 HTTP/1.1"]
        assert proxy.heads[0].get("host") == "localhost:4433"
        credential = proxy.heads[0].get("proxy-authorization").removeprefix("Basic ")
        assert base64.b64decode(credential) == b"us@er:p:ss"
        assert [head.get("proxy-authorization") for head in server.heads] == [None, None]


REFUSALS = {
    "407": (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused CONNECT with 407"),
    "403": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nblah", "refused CONNECT with 403"),
    "silence": (b"", "gave no answer to CONNECT"),
    "endless": (b"HTTP/1.1 100 Wait\r\n" + b"X: y\r\n" * 10_000, "gave no answer to CONNECT"),
}


@pytest.mark.parametrize(("answer", "said"), REFUSALS.values(), ids=REFUSALS)
async def test_a_tunnel_that_is_refused(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Tunnel(answer)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}".join(["http://user:hunter2@", ""]))
        async with opened("https://secret-name.test/v1") as upstream:
            with pytest.raises(ConnectFailed) as raised:
                await ask(upstream)
            assert raised.value.message == f"upstream 'up' cannot be reached: the proxy of HTTPS_PROXY {said}"
            assert upstream.pool.open == 0


@pytest.mark.parametrize("excluded", ["localhost", "127.0.0.1,.test,localhost", "*", "localhost:{port}"])
async def test_what_no_proxy_names_goes_direct(
    excluded: str, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(each(OK), tls=certificate.context) as server, serving(Tunnel()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", excluded.format(port=server.port))
        url = server.url.replace("127.0.0.1", "localhost")
        async with opened(url, tls={"ca_file": str(certificate.file)}) as upstream:
            assert (await ask(upstream)).body == b"ok"
        assert proxy.connections == 0


async def test_plain_http_goes_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(each(OK)) as server, serving(Tunnel()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        async with opened(server.url) as upstream:
            assert (await ask(upstream)).body == b"ok"
        assert proxy.connections == 0
