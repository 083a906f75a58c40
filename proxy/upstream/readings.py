"""Reads now and then what a server says of itself: how much it has to do, and, of TGI, how much it takes.

A GET on a connection of its own, early or late by chance so that replicas do not ask all at once, of which at most
PAGE_BYTES are looked at. Who does not answer, or says nothing of it, is asked less and less often: balancing goes on
with what is known of this process's own requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import orjson

from proxy.errors import ProxyError
from proxy.fit import Capacity
from proxy.upstream.dialects import DIALECTS, Dialect, Page
from proxy.upstream.incoming import whole

if TYPE_CHECKING:
    from proxy.headers import Fields
    from proxy.targets import Load
    from proxy.upstream.incoming import Incoming
    from proxy.upstream.openai import OpenAI
    from proxy.upstream.work import Reading

PAGE_BYTES = 4 * 2**20
INFO_BYTES = 64 * 1024
JITTER = 0.1
COUNTS_FOR = 3.0
"""Intervals for which a reading is used."""
SELDOM_SECONDS = 60.0
"""How often a server is asked at least that has nothing to say, and how often what it takes is asked again."""

log = logging.getLogger("weir.load")


class Readings:
    """Tells the upstream's `work`, and its `capacity` what the config leaves open."""

    def __init__(self, upstream: OpenAI, settings: Load) -> None:
        self._upstream = upstream
        self._settings = settings
        name = "tgi" if upstream.settings.kind == "tgi" and settings.server == "auto" else settings.server
        self.dialect: Dialect | None = DIALECTS.get(name)
        self._failures = 0
        self._info_at = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self.pause * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - nobody gains by guessing

    @property
    def pause(self) -> float:
        """Seconds until it is asked again, but for chance."""
        interval = self._settings.interval
        return min(interval * 2.0 ** min(self._failures, 10), max(interval, SELDOM_SECONDS))

    async def look(self) -> None:
        fault = await self._read()
        if fault and not self._failures:
            log.info("upstream '%s' does not tell its load: %s", self._upstream.name, fault)
        self._failures = self._failures + 1 if fault else 0

    async def _read(self) -> str:
        """What was wrong, nothing where it has told its load."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                fault = await self._metrics()
        except TimeoutError:
            return f"no answer within {self._settings.timeout:g} s"
        except ProxyError as error:
            return error.message
        if time.monotonic() >= self._info_at:
            with contextlib.suppress(TimeoutError, ProxyError):
                async with asyncio.timeout(self._settings.timeout):
                    await self._info()
        return fault

    async def _metrics(self) -> str:
        wanted = (self.dialect,) if self.dialect is not None else tuple(DIALECTS.values())
        paths = [self._settings.path] if self._settings.path else list(dict.fromkeys(each.path for each in wanted))
        fault = ""
        for path in paths:
            fault = await self._page(path, wanted)
            if not fault:
                break
        return fault

    async def _page(self, path: str, wanted: tuple[Dialect, ...]) -> str:
        upstream, page = self._upstream, Page(wanted)
        async with upstream.asked(path, self._settings.port) as incoming:
            own = upstream.in_flight
            if incoming.status != 200:
                return f"GET {path} was answered with {incoming.status}"
            await _search(incoming, page)
        for dialect in wanted:
            reading = page.reading(dialect)
            if reading is not None:
                self._take(dialect, reading, own)
                return ""
        return f"GET {path} has none of the names that are looked for"

    def _take(self, dialect: Dialect, reading: Reading, own: int) -> None:
        self.dialect = dialect
        if self._upstream.work is not None:
            self._upstream.work.read(reading, own, COUNTS_FOR * self._settings.interval)

    async def _info(self) -> None:
        """What it takes, as TGI says; what the config says goes first."""
        path = self.dialect.info if self.dialect is not None else None
        if path is None:
            return
        async with self._upstream.asked(path) as incoming:
            body = await whole(incoming, INFO_BYTES)
            told = _json(body) if incoming.status == 200 else None
        self._info_at = time.monotonic() + SELDOM_SECONDS
        if isinstance(told, dict):
            own = self._upstream.settings.capacity
            names = ("max_concurrent_requests", "max_input_tokens", "max_total_tokens")
            concurrent, given, total = (_count(told.get(name)) for name in names)
            self._upstream.capacity = Capacity(
                (own and own.concurrent) or concurrent,
                (own and own.input_tokens) or given,
                (own and own.total_tokens) or total,
            )


async def _search(incoming: Incoming, page: Page) -> None:
    """Raises what broke the answer off; a page that is too long is searched up to there."""
    search = _Search(incoming, page)
    incoming.attach(search)
    await incoming.over()
    if search.error is not None:
        raise search.error
    page.end()


class _Search:
    """The receiver of a page."""

    def __init__(self, incoming: Incoming, page: Page) -> None:
        self.error: ProxyError | None = None
        self._incoming = incoming
        self._page = page
        self._room = PAGE_BYTES

    def feed(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room < 0:
            self._incoming.finish()
        else:
            self._page.feed(chunk)

    def end(self, trailers: Fields) -> None:
        """All has been searched as it came."""

    def fail(self, error: ProxyError) -> None:
        self.error = error


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None
