"""Several Weirs as processes of their own, with one config and one Redis, in front of one scripted upstream."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from proxy import testing
from tests.integration.weir import START_SECONDS, stop

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Iterator

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Replica:
    """`ledger` has a line per exchange."""

    process: subprocess.Popen[bytes]
    ledger: pathlib.Path
    root: str = ""
    admin: str = ""

    def find(self) -> None:
        """Where it listens: on ports that the system chose, as its log says."""
        log, end = self.ledger.with_name("log"), time.monotonic() + START_SECONDS
        while b'"listening"' not in log.read_bytes():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        (line,) = (line for line in log.read_bytes().splitlines() if b'"listening"' in line)
        found = orjson.loads(line)
        self.root, self.admin = found["url"], found["admin"]

    async def state(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as client, client.get(f"{self.admin}/state") as answer:
            found: dict[str, Any] = (await answer.json())["store"]
            return found

    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.ledger.read_bytes().splitlines()]


@contextlib.contextmanager
def running(
    number: int, folder: pathlib.Path, upstream: str, redis: str, routes: dict[str, Any]
) -> Iterator[list[Replica]]:
    """`routes`: by the value of the header `x-way`, what its rate_limit and its budget have of their own."""
    replicas: list[Replica] = []
    try:
        replicas.extend(_started(folder / f"replica-{place}", upstream, redis, routes) for place in range(number))
        for replica in replicas:
            replica.find()
        yield replicas
    finally:
        for replica in replicas:
            replica.process.terminate()
        for replica in replicas:
            stop(replica.process)


def _started(folder: pathlib.Path, upstream: str, redis: str, routes: dict[str, Any]) -> Replica:
    folder.mkdir(parents=True)
    config = {
        "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "redis": redis,
        "upstreams": {"up": {"base_url": f"{upstream}/v1", "prices": {"m": {"input": "1000", "output": "1000"}}}},
        "plugins": [
            {"metering": {"ledger": "ledger"}},
            {"rate_limit": {"by": "route", "requests": "1000000/day"}},
            {"budget": {"by": "route", "usd": "1000000/day"}},
        ],
        "routes": [
            *(
                {"name": way, "match": {"header": {"x-way": way}}, "targets": ["up"], "plugins": own}
                for way, own in routes.items()
            ),
            {"name": "default", "targets": ["up"]},
        ],
    }
    (folder / "config.yaml").write_bytes(orjson.dumps(config))
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "proxy.cli", "serve", "--config", str(folder / "config.yaml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return Replica(process, folder / "ledger")


@contextlib.contextmanager
def upstream(script: testing.Script) -> Iterator[str]:
    """In a thread: it answers whatever the tests' own loops are at."""
    begun, urls = threading.Event(), []

    async def serve() -> None:
        end = loop_end
        async with testing.upstream(script) as made:
            urls.append(made.url)
            begun.set()
            await end.wait()

    loop = asyncio.new_event_loop()
    loop_end = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert begun.wait(10)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(loop_end.set)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=40)
    ) as session:
        yield session


async def ask(session: aiohttp.ClientSession, replica: Replica, way: str, **body: Any) -> tuple[int, bytes]:
    async with session.post(
        f"{replica.root}/v1/chat/completions", json={**ASK, **body}, headers={"x-way": way}
    ) as answer:
        return answer.status, await answer.read()


async def passed(
    session: aiohttp.ClientSession, replicas: list[Replica], way: str, times: int, **body: Any
) -> list[int]:
    """How many of so many at once each of them lets pass."""
    asked = [[ask(session, replica, way, **body) for _ in range(times // len(replicas))] for replica in replicas]
    answers = await asyncio.gather(*(asyncio.gather(*own) for own in asked))
    assert {status for own in answers for status, _ in own} <= {200, 429}
    return [sum(status == 200 for status, _ in own) for own in answers]
