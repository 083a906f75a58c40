"""Whether an upstream is well, asked now and then with a GET: no tokens, no place in the pool.

Routes leave an upstream out that has failed a few times in a row, as long as another one is there. It counts as well
until then, so that a start is no outage, and what it said shows in the log whenever that changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from proxy.errors import ConnectFailed, ProxyError

if TYPE_CHECKING:
    from proxy.targets import Health
    from proxy.upstream.openai import OpenAI

JITTER = 0.1
"""The share of the interval by which checks are early or late, so that replicas do not ask all at once."""

log = logging.getLogger("weir.health")


class Checks:
    """Sets the upstream's `is_healthy`."""

    def __init__(self, upstream: OpenAI, settings: Health) -> None:
        self._upstream = upstream
        self._settings = settings
        self._streak = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        interval = self._settings.interval
        await asyncio.sleep(random.uniform(0, interval))  # noqa: S311 - nobody gains by guessing it
        while True:
            self.note(await self._fault())
            await asyncio.sleep(interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - likewise

    def note(self, fault: str) -> None:
        """What was wrong with one check, nothing where it was answered; so many in a row change what is thought.

        While it is loading nothing is.
        """
        if fault and self._upstream.is_loading:
            return
        upstream, settings = self._upstream, self._settings
        is_well = not fault
        self._streak = 0 if is_well == upstream.is_healthy else self._streak + 1
        if self._streak < (settings.healthy_after if is_well else settings.unhealthy_after):
            return
        upstream.is_healthy, self._streak = is_well, 0
        if is_well:
            log.info("upstream '%s' is healthy again", upstream.name)
        else:
            log.warning("upstream '%s' is unhealthy: %s", upstream.name, fault)

    async def _fault(self) -> str:
        try:
            async with asyncio.timeout(self._settings.timeout):
                status = await self._upstream.probe(self._settings.path)
        except TimeoutError:
            return f"no answer to GET {self._settings.path} within {self._settings.timeout:g} s"
        except ProxyError as error:
            self._see(is_up=not isinstance(error, ConnectFailed))
            return error.message
        self._see(is_up=status not in _NOT_UP)
        return f"GET {self._settings.path} was answered with {status}" if status >= 400 else ""

    def _see(self, *, is_up: bool) -> None:
        """An upstream that has time to load may be doing so."""
        if not is_up and self._upstream.warming is not None:
            self._upstream.warming.sign()


_NOT_UP = frozenset({502, 503})
