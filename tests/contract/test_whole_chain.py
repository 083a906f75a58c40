"""All plugins together: a stream is as prompt as without them, nothing is left behind, and what is spent is what is billed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.contract.double import CHAT, asks
from tests.contract.sse import DONE, FINISH
from tests.contract.test_leaving import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from proxy.app import Weir
    from proxy.testing import Received, Script, Wire

KEY = "the key of the team"
AUTH = {"auth": {"keys": [{"name": "team", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}}
CHAIN = [
    AUTH,
    {"metering": {}},
    {"rate_limit": {"tokens": "100000000/day", "concurrent": 100}},
    {"budget": {"usd": "1000/day"}},
    {"pii": {}},
    {"cache": {}},
    {"failover": {}},
    {"circuit_breaker": {"fail_max": 1000}},
    {"sse_keepalive": {}},
]
CHAINS = {name: [AUTH, plugin] for plugin in CHAIN[1:] for name in plugin if name != "budget"} | {"all": CHAIN}
ROLE = testing.chat_event({"role": "assistant", "content": ""})
LIVES = ("Exchange", "Incoming")
"""As long as its request, and no longer; a connection is kept."""
IN_BAND = b'data: {"error": {"message": "the engine died", "code": 500}}\n\n'


@contextlib.asynccontextmanager
async def house(script: Script, plugins: Iterable[Any], out: io.BytesIO | None = None) -> AsyncIterator[Weir]:
    """One upstream that the route has twice, so that there is somebody to fail over to."""
    async with testing.upstream(script) as up:
        block = {"base_url": f"{up.url}/v1", "prices": {"*": {"input": "10", "output": "20"}}}
        config = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": {"a": block, "b": block},
            "plugins": list(plugins),
            "routes": [{"name": "main", "targets": ["a", "b"]}],
        }
        async with testing.configured(orjson.dumps(config).decode(), out) as weir:
            yield weir


def chat(text: str, *, stream: bool = True) -> bytes:
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]}
    fields = ("Content-Type: application/json", f"Authorization: Bearer {KEY}")
    return asks(f"POST {CHAT}", *fields, body=orjson.dumps(body))


@pytest.mark.parametrize("name", CHAINS)
async def test_events_come_one_by_one(name: str) -> None:
    """Field case 1: the next event is only sent when the app says that the last one is here."""
    acknowledged = asyncio.Queue[None]()
    events = [ROLE + testing.chat_event({"content": "so "}), *[testing.chat_event({"content": "on and "})] * 20]

    async def script(received: Received, out: Wire) -> None:
        await out.send(sse.CHUNKED)
        for event in events:
            await acknowledged.get()
            await out.send(sse.chunk(event))
        await acknowledged.get()
        await out.send(sse.chunk(FINISH + DONE), sse.LAST)

    async with house(script, CHAINS[name]) as weir, wire.connected(weir.url) as client:
        await client.send(chat("write to bob@example.com"))
        acknowledged.put_nowait(None)
        answer = await client.start()
        for event in events:
            assert await answer.until(b"\n\n") == event
            acknowledged.put_nowait(None)
        assert (await answer.whole()).body == b"".join([*events, FINISH, DONE])


async def speaks(received: Received, out: Wire) -> None:
    """Well in most cases, else it breaks off, tells of an error before or within its answer, or refuses."""
    words, chance = ["word"] * random.randint(1, 30), random.random()
    events = testing.chat_events(words)
    if not received.json()["stream"]:
        await (testing.answer(IN_BAND[6:], status=500) if chance < 0.3 else testing.chat(" ".join(words)))(
            received, out
        )
    elif chance < 0.1:
        await testing.stream(*events[:3], ends=False)(received, out)
    elif chance < 0.4:
        await testing.stream(*random.choice([(ROLE, IN_BAND), (ROLE, events[0], IN_BAND)]))(received, out)
    else:
        await testing.stream(*events, pause=0.001)(received, out)


async def ask(weir: Weir, number: int) -> None:
    """Some ask the same, and a third leaves in either way, whenever."""
    async with wire.connected(weir.url) as client:
        await client.send(chat(f"{random.randint(1, 200)}: write to bob@example.com", stream=number % 3 > 0))
        with contextlib.suppress(EOFError, ConnectionError):
            if number % 3:
                await client.answer("POST")
            else:
                await asyncio.sleep(random.uniform(0, 0.05))
                client.leave(reset=number % 2 == 0)


async def test_whatever_became_of_requests_nothing_is_left_and_all_is_billed() -> None:
    """Field cases 7, 74 and 91: no object of any of them, and the budget has what the ledger's lines come to."""
    random.seed(7)
    out, before = io.BytesIO(), counted()
    async with house(speaks, CHAIN, out) as weir:
        for begin in range(0, 300, 30):
            await asyncio.gather(*(ask(weir, number) for number in range(begin, begin + 30)))
        await wire.until(lambda: not weir.in_flight)
        await wire.until(lambda: spent(weir) == billed(out) > 0)
        await wire.until(lambda: [counted()[kind] for kind in LIVES] == [before[kind] for kind in LIVES])
    assert {line["outcome"] for line in ledger(out)} >= {"ok", "client_abort", "stream_interrupted"}
    assert {len(line["attempts"]) for line in ledger(out)} >= {0, 1, 2}, "some were cached, some were tried again"


def ledger(out: io.BytesIO) -> list[dict[str, Any]]:
    return [line for line in map(orjson.loads, out.getvalue().splitlines()) if line["log"] == "ledger"]


def billed(out: io.BytesIO) -> Decimal:
    served = sum(Decimal(line["cost_usd"]) for line in ledger(out))
    return served + sum(Decimal(tried.get("wasted_usd", 0)) for line in ledger(out) for tried in line["attempts"])


def spent(weir: Weir) -> Decimal:
    (team,) = weir.state()["plugins"]["budget"]["spent"]
    return Decimal(team["used_usd"])
