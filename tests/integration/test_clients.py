"""Real clients cannot tell Weir from the upstream: what they receive through it is what they receive direct."""

import asyncio

import orjson
import pytest

from tests.integration import wire
from tests.integration.clients import NATIVE, OPENAI, Server, interrupted, left
from tests.integration.weir import Weir

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # aiohttp's multipart reader, with which the demo upstream reads an upload, warns of its own call.
    pytest.mark.filterwarnings("ignore:unread_data:DeprecationWarning"),
]


@pytest.mark.parametrize("name", OPENAI)
async def test_openai_clients(name: str, upstream: str, weir: Weir) -> None:
    direct = await asyncio.to_thread(OPENAI[name], Server(upstream, "demo"))
    assert await asyncio.to_thread(OPENAI[name], Server(weir.root, "demo")) == direct


@pytest.mark.parametrize("name", NATIVE | OPENAI)
async def test_clients_of_a_tgi_server(name: str, upstream: str, native_weir: Weir) -> None:
    client = (NATIVE | OPENAI)[name]
    direct = await asyncio.to_thread(client, Server(upstream, "demo"))
    assert await asyncio.to_thread(client, Server(native_weir.root, "demo")) == direct


@pytest.mark.parametrize("model", ["demo-cut", "demo-error"])
async def test_an_interrupted_stream_is_an_error_to_the_client(model: str, upstream: str, weir: Weir) -> None:
    direct, _ = await asyncio.to_thread(interrupted, Server(upstream, model))
    said, end = await asyncio.to_thread(interrupted, Server(weir.root, model))
    assert said == direct
    assert end == "APIError"


async def test_a_client_that_leaves_cancels_the_upstreams_work(upstream: str, weir: Weir) -> None:
    before = await stats(upstream)
    await asyncio.to_thread(left, Server(weir.root, "demo"))
    async with asyncio.timeout(3):  # the whole answer takes longer
        while (await stats(upstream))["active"]:  # noqa: ASYNC110 - a server is asked, it sends no events
            await asyncio.sleep(0.02)
    assert (await stats(upstream))["cancelled"] == before["cancelled"] + 1


async def stats(upstream: str) -> dict[str, int]:
    seen = await wire.by_httpx2(upstream, wire.Ask("GET", "/demo/stats", headers={}))
    counts: dict[str, int] = orjson.loads(seen.body)
    return counts


@pytest.mark.parametrize("sender", wire.SENDERS)
@pytest.mark.parametrize("name", wire.ASKS)
async def test_status_headers_and_bytes(name: str, sender: str, upstream: str, weir: Weir) -> None:
    send, ask = wire.SENDERS[sender], wire.ASKS[name]
    assert await send(weir.root, ask) == await send(upstream, ask)


@pytest.mark.parametrize("sender", wire.SENDERS)
@pytest.mark.parametrize("name", wire.NATIVE_ASKS)
async def test_status_headers_and_bytes_of_a_tgi_server(
    name: str, sender: str, upstream: str, native_weir: Weir
) -> None:
    send, ask = wire.SENDERS[sender], wire.NATIVE_ASKS[name]
    assert await send(native_weir.root, ask) == await send(upstream, ask)


async def test_an_error_in_plain_text_becomes_one_that_clients_can_read(upstream: str, native_weir: Weir) -> None:
    ask = wire.Ask("POST", "/generate", b"{")
    direct, seen = [await wire.by_httpx2(root, ask) for root in (upstream, native_weir.root)]
    assert direct.body.startswith(b"Failed to parse")
    assert seen.status == direct.status
    assert orjson.loads(seen.body) == {"error": direct.body.decode(), "error_type": "validation"}
