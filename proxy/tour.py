"""`weir demo`: the demo upstream, the proxy in front of it, and a few live calls, told as a small table.

Each call is made twice, direct and through Weir, so that what Weir adds can be seen. Overhead is the difference of the
best of REPEATS runs; the demo upstream answers without pauses for those. What a call cost stands in Weir's ledger, at
prices that the demo makes up.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from proxy import app, demo
from proxy.lines import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

REPEATS = 15
PACE, FIRST_TOKEN = 0.02, 0.15

_CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{demo: {{base_url: "{url}/v1", prices: {{"*": {{input: "0.15", output: "0.60"}}}}}}}}
plugins: [metering]
routes: [{{name: demo, targets: [demo]}}]
"""
_ASK = {"model": "demo", "messages": [{"role": "user", "content": "What is a weir?"}], "max_tokens": 40}
_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("chat", "/v1/chat/completions", _ASK),
    ("chat, streamed", "/v1/chat/completions", {**_ASK, "stream": True, "stream_options": {"include_usage": True}}),
    ("chat with a tool", "/v1/chat/completions", {**_ASK, "tools": [_TOOL], "tool_choice": "required"}),
    ("embeddings", "/v1/embeddings", {"model": "demo", "input": "a weir stands in a stream"}),
)


@dataclass(frozen=True)
class Seen:
    """One call as the app sees it; seconds."""

    id: str
    status: int
    first_byte: float
    total: float
    tokens: int | None


async def run() -> int:
    """Prints the table; the exit status says whether every call was answered."""
    print("weir demo: a demo upstream, Weir in front of it, and the same calls direct and through it\n")
    ledger = io.BytesIO()
    async with _both(PACE, FIRST_TOKEN, ledger) as (_, url), aiohttp.ClientSession() as session:
        lived = [await _call(session, url + path, body) for _, path, body in CALLS]
    async with _both(0, 0, io.BytesIO()) as (direct, url), aiohttp.ClientSession() as session:
        added = [await _overhead(session, direct, url, path, body) for _, path, body in CALLS]
    for line in table(lived, added, costs(ledger.getvalue())):
        print(line)
    print("\nNext: `weir serve`, set OPENAI_BASE_URL=http://127.0.0.1:8080/v1, and edit config/config.yaml.")
    return 0 if all(seen.status == 200 for seen in lived) else 1


def table(lived: list[Seen], added: list[float], usd: Mapping[str, str]) -> list[str]:
    """`usd` by request id."""
    head = (
        f"{'call':<18} {'status':>6} {'first byte':>11} {'total':>9} {'Weir adds':>10} {'tokens':>7} {'cost, USD':>11}"
    )
    lines = [head]
    for (name, _, _), seen, extra in zip(CALLS, lived, added, strict=True):
        tokens = "-" if seen.tokens is None else str(seen.tokens)
        lines.append(
            f"{name:<18} {seen.status:>6} {seen.first_byte * 1000:>8.0f} ms {seen.total * 1000:>6.0f} ms "
            f"{extra * 1000:>7.2f} ms {tokens:>7} {usd.get(seen.id, '-'):>11}"
        )
    return lines


def costs(ledger: bytes) -> dict[str, str]:
    """By request id, what has a price."""
    lines = [orjson.loads(line) for line in ledger.splitlines()]
    return {line["id"]: line["cost_usd"] for line in lines if line["log"] == "ledger" and line["cost_usd"] is not None}


@contextlib.asynccontextmanager
async def _both(pace: float, first_token: float, stdout: io.BytesIO) -> AsyncIterator[tuple[str, str]]:
    """The demo upstream's URL and Weir's."""
    async with demo.running(pace=pace, first_token=first_token) as direct:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "demo.yaml"
            file.write_text(_CONFIG.format(url=direct))
            async with app.running(app.Plan.load(file), Lines(stdout)) as weir:
                yield direct, weir.url


async def _overhead(session: aiohttp.ClientSession, direct: str, url: str, path: str, body: dict[str, Any]) -> float:
    times: dict[str, list[float]] = {direct: [], url: []}
    for _ in range(REPEATS):
        for base, taken in times.items():
            taken.append((await _call(session, base + path, body)).first_byte)
    return max(min(times[url]) - min(times[direct]), 0.0)


async def _call(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Seen:
    began = time.perf_counter()
    async with session.post(url, json=body) as response:
        first = await response.content.readany()
        first_byte = time.perf_counter() - began
        answer = first + await response.read()
    identity = response.headers.get("x-weir-request-id", "")
    return Seen(identity, response.status, first_byte, time.perf_counter() - began, tokens_of(answer))


def tokens_of(answer: bytes) -> int | None:
    """The total that the upstream counted, in JSON or in a stream's last usage."""
    for line in reversed(answer.splitlines()):
        with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
            total: int = orjson.loads(line.removeprefix(b"data: "))["usage"]["total_tokens"]
            return total
    return None
