"""A Weir that has everything that dashboards show, and apps that do everything that can be counted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from typing import TYPE_CHECKING

import aiohttp
from typing_extensions import override

from proxy import app, demo
from proxy.lines import Lines
from proxy.plugin import Exchange, FailureMode, Plugin, PluginConfig

if TYPE_CHECKING:
    import io
    import pathlib
    from collections.abc import AsyncIterator

    from proxy.app import Weir

CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
redis: {redis}
upstreams:
  demo: {{base_url: "{demo}/v1", prices: {{demo: {{input: "100", output: "400"}}}}}}
  dead: {{base_url: "http://127.0.0.1:1/v1"}}
  small: {{base_url: "{demo}/v1", capacity: {{concurrent: 1}}}}
plugins:
  - auth: {{keys: [{{name: search-team, sha256: {search}}}, {{name: ops, sha256: {ops}}}]}}
  - metering: {{ledger: none}}
  - raises: {{use: "tests.deploy.traffic:Raises", failure_mode: open}}
  - rate_limit: {{by: principal, requests: 100000/min}}
  - budget: {{usd: 1000/day, limits: {{ops: 0.03/day}}, warn_at: [50%, 100%], downgrade_to: default}}
  - pii: {{entities: [email]}}
  - cache: {{ttl: 10m}}
  - failover: {{max_attempts: 2, retry_budget: 100%}}
  - circuit_breaker: {{fail_max: 1000}}
routes:
  - {{name: limited, match: {{header: {{x-way: limited}}}}, targets: [demo], plugins: {{rate_limit: {{requests: 1/hour}}}}}}
  - {{name: failing, match: {{header: {{x-way: failing}}}}, targets: [dead], plugins: {{circuit_breaker: off}}}}
  - {{name: failing-over, match: {{header: {{x-way: failing-over}}}}, targets: [dead, demo]}}
  - {{name: queueing, match: {{header: {{x-way: queueing}}}}, targets: [small], queue: {{max: 1, timeout: 5s}}}}
  - {{name: default, targets: [demo]}}
"""
SEARCH, OPS = "sk-search", "sk-ops"


class Raises(Plugin[PluginConfig]):
    Config = PluginConfig
    failure_mode = FailureMode.OPEN

    @override
    def on_request(self, exchange: Exchange) -> None:
        if exchange.request.headers.get("x-way") == "raising":
            raise RuntimeError("a fault of this plugin")


@contextlib.asynccontextmanager
async def weir(folder: pathlib.Path, redis: str, stdout: io.BytesIO) -> AsyncIterator[Weir]:
    hashes = {"search": _hash(SEARCH), "ops": _hash(OPS)}
    async with demo.running(pace=0.002, first_token=0.01) as url:
        file = folder / "config.yaml"
        file.write_text(CONFIG.format(demo=url, redis=redis, **hashes))
        async with app.running(app.Plan.load(file), Lines(stdout)) as running:
            yield running


@contextlib.asynccontextmanager
async def mixed(url: str) -> AsyncIterator[None]:
    """Goes on within: answers, streams, hits, refusals, failures, faults, and an app that leaves."""
    async with aiohttp.ClientSession(url) as session:
        going = asyncio.create_task(_rounds(session))
        try:
            yield
        finally:
            going.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await going


async def _rounds(session: aiohttp.ClientSession) -> None:
    for number in itertools.count():
        fresh = f"round {number}"
        await asyncio.gather(
            _ask(session, fresh),
            _ask(session, fresh, stream=True, key=OPS),
            _ask(session, "the same as ever"),
            _ask(session, fresh, model="unheard-of"),
            _ask(session, fresh, way="limited", key=OPS),
            _ask(session, f"write to ada{number}@example.com", way="default"),
            *(_ask(session, f"{fresh}, {caller} of three", way="queueing") for caller in range(3)),
            _ask(session, fresh, way="failing"),
            _ask(session, fresh, way="failing-over", stream=True),
            _ask(session, fresh, way="raising"),
            _ask(session, fresh, key="sk-nobody"),
            _embed_nothing(session),
            _leave(session, fresh),
        )
        await asyncio.sleep(0.05)


async def _ask(session, text, *, model="demo", stream=False, way="", key=SEARCH):
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    headers = {"authorization": f"Bearer {key}", "x-way": way}
    async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.read()


async def _embed_nothing(session):
    async with session.post("/v1/embeddings", data=b"{", headers={"authorization": f"Bearer {SEARCH}"}) as answer:
        await answer.read()


async def _leave(session, text):
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": f"leave at {text}"}]}
    headers = {"authorization": f"Bearer {SEARCH}", "cache-control": "no-store"}
    async with session.post("/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.content.readuntil(b"content")
        answer.close()


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
