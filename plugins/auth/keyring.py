"""The issuer's public keys, kept fresh: from a file that is watched, or from a URL that is asked again and again.

Requests never wait for a refresh, but for one that names a key which is not known: keys may have been rotated a moment
ago. So many keys can be invented that this happens once in SEARCH_SECONDS, and all who wait, wait for the same answer.
What fails leaves the keys as they were, and a reload of the config takes them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import pathlib
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from plugins.auth.jwks import MAX_BYTES, public_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from plugins.auth.jwks import PublicKey
    from plugins.auth.settings import JwtSettings
    from proxy.plugin import Services

FETCH_SECONDS = 5.0
SEARCH_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""After a failure; doubled from the one to the other."""

log = logging.getLogger("weir.auth")


class Keyring:
    def __init__(self, settings: JwtSettings, name: str, services: Services) -> None:
        """`name` is the plugin's, for logs."""
        self.keys: Sequence[PublicKey] = ()
        self._source = settings.jwks
        self._refresh = settings.refresh
        self._allowed = frozenset(settings.algorithms)
        self._about = {"plugin": name, "issuer": settings.issuer}
        self._services = services
        self._known: dict[str, Sequence[PublicKey]] = {}
        self._flight: asyncio.Task[bool] | None = None
        self._searched = float("-inf")

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """The keys are here, if they can be had now, and fresh. Raises OSError or ValueError for a file."""
        if isinstance(self._source, pathlib.Path):
            self.keys = self._read(self._source)
            self._services.watch.add(self._source, self._read_again)
            yield
            return
        self._known = self._services.kept(("jwks", self._source, self._allowed), dict)
        self.keys = self._known.get("keys", ())
        fetched = bool(self.keys) or await self._fetch_once()
        work = self._services.tasks.start(self._keep_fresh(is_here=fetched), "jwks")
        try:
            yield
        finally:
            work.cancel()

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """A token that names no key can only mean the one that there is."""
        fitting = [key for key in self.keys if algorithm in key.algorithms and kid in (key.kid, None)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None

    async def search(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """As `find`, after asking the issuer once more."""
        now = self._services.clock()
        is_due = isinstance(self._source, str) and now - self._searched >= SEARCH_SECONDS
        if kid is not None and (is_due or self._flight is not None):
            self._searched = now if is_due else self._searched
            await self._fetch_once()
        return self.find(kid, algorithm)

    async def _keep_fresh(self, *, is_here: bool) -> None:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(self._refresh if is_here else min(pause, self._refresh))
            pause = FIRST_PAUSE if is_here else min(2 * pause, LONGEST_PAUSE)
            is_here = await self._fetch_once()

    async def _fetch_once(self) -> bool:
        """Whether it succeeded. Who comes while it runs waits for the same."""
        if self._flight is None:
            self._flight = self._services.tasks.start(self._fetch(str(self._source)), "fetch jwks")
        return await asyncio.shield(self._flight)

    async def _fetch(self, url: str) -> bool:
        try:
            self.keys = await asyncio.to_thread(lambda: public_keys(fetched(url), self._allowed))
            self._known["keys"] = self.keys
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.error("the issuer's keys cannot be had", extra={**self._about, "reason": str(error)})  # noqa: TRY400
            return False
        else:
            return True
        finally:
            self._flight = None

    def _read(self, file: pathlib.Path) -> list[PublicKey]:
        try:
            return public_keys(file.read_bytes(), self._allowed)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    def _read_again(self) -> None:
        assert isinstance(self._source, pathlib.Path)
        try:
            self.keys = self._read(self._source)
        except (OSError, ValueError) as error:
            log.error("the old keys stay: their file is wrong", extra={**self._about, "reason": str(error)})  # noqa: TRY400
        else:
            log.info("the issuer's keys read again", extra={**self._about, "keys": len(self.keys)})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where keys come from is the config's to say."""

    @override
    def redirect_request(self, *_: Any) -> None:
        """The redirect itself is the answer then, which is an error."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def fetched(url: str) -> bytes:
    """Blocks, for about FETCH_SECONDS at most. Raises OSError, HTTPException or ValueError."""
    request = urllib.request.Request(url, headers={"accept": "application/json", "user-agent": "weir"})  # noqa: S310 - the config's
    end, came = time.monotonic() + FETCH_SECONDS, b""
    with _OPENER.open(request, timeout=FETCH_SECONDS) as answer:
        while chunk := answer.read1(MAX_BYTES):
            came += chunk
            if len(came) > MAX_BYTES or time.monotonic() > end:
                raise ValueError(f"more than {MAX_BYTES} bytes, or longer than {FETCH_SECONDS:g} seconds")
    return came
