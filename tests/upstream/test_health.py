"""Health checks: who fails them is left out, who answers is back, and they take nothing from the traffic."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from proxy import testing
from proxy.errors import ConnectFailed, Dropped
from proxy.targets import Health
from proxy.upstream.health import Checks
from tests import wire
from tests.upstream.double import OK, each, opened, refusing, serving, silent, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.testing import Received, Wire

PATIENCE = {"unhealthy_after": 3, "healthy_after": 2}


def told(status: int, **fields: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{lines}\r\n".encode()


# -- one check


async def test_a_check_is_a_get_with_our_credential_on_a_connection_of_its_own() -> None:
    async with serving(each(OK)) as server, opened(server.url, api_key="sk-ours") as upstream:
        assert await upstream.probe("/health") == 200
        assert (upstream.pool.open, upstream.pool.idle) == (0, 0)
        await until(lambda: server.here == 0)
    (head,) = server.heads
    assert head.start == b"GET /health HTTP/1.1"
    assert head.get("authorization") == "Bearer sk-ours"
    assert head.get("host") == f"127.0.0.1:{server.port}"
    assert head.get("connection") == "close"


@pytest.mark.parametrize(("path", "target"), [("/v1/models", b"/v1/models"), ("/health", b"/health")])
async def test_a_path_below_v1_continues_the_base_url(path: str, target: bytes) -> None:
    async with serving(each(OK)) as server, opened(server.url) as upstream:
        await upstream.probe(path)
    assert server.heads[0].start.split()[1] == target


async def test_a_key_may_stand_in_the_query() -> None:
    settings: dict[str, Any] = {"api_key": "k 1", "api_key_in": "query:key"}
    async with serving(each(OK)) as server, opened(server.url, **settings) as upstream:
        await upstream.probe("/health?deep=1")
    assert server.heads[0].start.split()[1] == b"/health?deep=1&key=k%201"


async def test_a_full_pool_does_not_hold_up_a_check() -> None:
    async with serving(silent) as server, opened(server.url, max_connections=1) as upstream:
        asking = asyncio.ensure_future(upstream.pool.fresh())
        await asking
        probing = asyncio.ensure_future(upstream.probe("/health"))
        await until(lambda: len(server.heads) == 1)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        await until(lambda: server.here == 1)


async def test_a_body_without_end_is_not_read_to_it() -> None:
    async def endless(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 65536)

    async with serving(endless) as server, opened(server.url) as upstream:
        assert await upstream.probe("/health") == 200


async def test_nobody_there_is_said_so() -> None:
    with refusing() as port:
        async with opened(f"http://127.0.0.1:{port}/v1") as upstream:
            with pytest.raises(ConnectFailed, match="connection refused"):
                await upstream.probe("/health")


async def test_a_server_that_hangs_up_is_no_healthy_one() -> None:
    async def hangs_up(peer: Any) -> None:
        await peer.request()

    async with serving(hangs_up) as server, opened(server.url) as upstream:
        with pytest.raises((Dropped, ConnectFailed)):
            await upstream.probe("/health")


# -- what checks say


async def test_it_takes_some_failures_and_some_answers_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "weir.health")
    async with opened("http://127.0.0.1:1/v1") as upstream:
        checks = Checks(upstream, Health.model_validate(PATIENCE))
        seen = []
        for fault in ["down", "down", "", "down", "down", "down", "down", "", "down", "", "", ""]:
            checks.note(fault)
            seen.append(upstream.is_healthy)
    assert seen == [True] * 5 + [False] * 5 + [True] * 2
    assert caplog.messages == ["upstream 'up' is unhealthy: down", "upstream 'up' is healthy again"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (each(told(200)), ""),
        (each(told(302, Location="/elsewhere")), ""),
        (each(told(404)), "GET /health was answered with 404"),
        (each(told(503)), "GET /health was answered with 503"),
        (silent, "no answer to GET /health within 0.2 s"),
        (each(b"nonsense\r\n\r\n"), "upstream 'up': its answer is not HTTP/1.1"),
    ],
)
async def test_what_counts_as_healthy(script: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(script) as server, opened(server.url) as upstream:
        settings = {"interval": "10ms", "timeout": "200ms", "unhealthy_after": 1}
        checking = asyncio.ensure_future(Checks(upstream, Health.model_validate(settings)).run())
        await until(lambda: len(server.heads) > 1)
        await until(lambda: upstream.is_healthy is not bool(reason))
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    assert caplog.messages == ([f"upstream 'up' is unhealthy: {reason}"] if reason else [])


# -- what routes make of it


class Sick:
    """Serves chats, and says of its health what it is told to."""

    def __init__(self) -> None:
        self.health = 200

    async def __call__(self, received: Received, up: Wire) -> None:
        if received.target == "/health":
            await up.send(told(self.health, Connection="close"))
            up.close()
        else:
            await testing.chat("hi")(received, up)


def house(one: testing.Upstream, two: testing.Upstream) -> str:
    checked = "health: {interval: 20ms, timeout: 1s, unhealthy_after: 2}"
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{a: {{base_url: "{one.url}/v1", {checked}}}, b: {{base_url: "{two.url}/v1"}}}}\n'
        "routes: [{name: main, targets: [a, b]}]\n"
    )


async def test_an_unhealthy_upstream_is_left_out_and_comes_back() -> None:
    sick = Sick()
    async with (
        testing.upstream(sick) as one,
        testing.upstream(testing.chat("hi")) as two,
        testing.configured(house(one, two)) as weir,
    ):

        async def served_by() -> str:
            return (await testing.ask(weir, {"model": "m"})).headers["x-weir-upstream"]

        assert await served_by() == "a"
        sick.health = 503
        await until(_healthy(weir, is_healthy=False))
        assert await served_by() == "b"
        state = orjson.loads((await wire.fetch(weir.admin_url, b"GET /state HTTP/1.1\r\nHost: a\r\n\r\n")).body)
        assert {name: told["healthy"] for name, told in state["upstreams"].items()} == {"a": False, "b": None}
        sick.health = 200
        await until(_healthy(weir, is_healthy=True))
        assert await served_by() == "a"
    assert all(
        received.method == "GET" and not received.body for received in one.requests if "health" in received.target
    )


async def test_the_last_one_is_asked_whatever_its_checks_say() -> None:
    sick = Sick()
    sick.health = 500
    async with testing.upstream(sick) as one:
        text = house(one, one).replace("targets: [a, b]", "targets: [a]")
        async with testing.configured(text) as weir:
            await until(_healthy(weir, is_healthy=False))
            assert (await testing.ask(weir, {"model": "m"})).status == 200


def _healthy(weir: Any, *, is_healthy: bool) -> Callable[[], bool]:
    return lambda: weir.gateway.upstreams["a"].is_healthy is is_healthy
