"""What an upstream gets instead of the caller's credential, ready for the next request at any time.

A key stands in the config, or in files that it names: then it is read again when they change. A token is renewed in
the background (proxy/upstream/token.py). The mask knows every value that was current lately.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from proxy.document import UnfilledError
from proxy.headers import CREDENTIALS, is_value
from proxy.scalars import Placement
from proxy.upstream import query
from proxy.upstream.mask import Mask
from proxy.upstream.token import Renewal

if TYPE_CHECKING:
    import asyncio

    from proxy import config
    from proxy.document import Filled
    from proxy.services import Services
    from proxy.source import Source

BEARER: Final = Placement("bearer")

log = logging.getLogger("weir.credentials")


class Credential:
    """`field` is what a request's header gets, if anything; `since` the monotonic time from which it could be had."""

    def __init__(self, name: str, settings: config.Upstream, usual: Placement) -> None:
        """`name` is the upstream's; `usual`: where its kind wants a key."""
        self.name = name
        self.mask = Mask()
        self.field: tuple[bytes, bytes] | None = None
        self.since = 0.0 if settings.token is None else math.inf
        self._settings = settings
        self._place = BEARER if settings.token is not None else settings.api_key_in or usual
        self.is_in_query = self._place.where == "query"
        self._value = ""
        self._renewal: Renewal | None = None
        self._renewing: asyncio.Task[None] | None = None
        if settings.api_key is not None:
            self.put(settings.api_key.get_secret_value())

    @override
    def __repr__(self) -> str:
        return f"Credential(upstream={self.name!r})"

    @property
    def displaces(self) -> bytes:
        """The caller's own field of that (lower-case) name must not go up beside ours."""
        name = self._place.name.lower()
        return name.encode() if self._place.where == "header" and name not in CREDENTIALS else b""

    def put(self, value: str) -> None:
        """From the next request on."""
        self.mask.add(value)
        if self.is_in_query:
            self.mask.add(query.quoted(value))
        self._value = value
        if self._place.where == "bearer":
            self.field = (b"Authorization", b"Bearer " + value.encode())
        elif self._place.where == "header":
            self.field = (self._place.name.encode(), value.encode())
        if self.since == math.inf:
            self.since = time.monotonic()

    def drop(self) -> None:
        """There is none until the next `put`."""
        self.field, self.since = None, math.inf

    def signed(self, target: str) -> str:
        """The request target with the key in its query, and without the caller's own parameter of that name."""
        target = query.without(target, self._place.name)
        return query.added(target, self._place.name, self._value) if self._value else target

    # -- kept fresh

    def keep_fresh(self, source: Source, services: Services) -> None:
        """Follow the key's files, or renew the token, until `stop`; what headers have from elsewhere is secret."""
        for path, said in source.filled.items():
            if path[:3] == ("upstreams", self.name, "headers") and said.text:
                self.mask.add(said.text.strip())
        filled = source.filled.get(("upstreams", self.name, "api_key"))
        token = self._settings.token
        if token is not None:
            self._renewal = Renewal(token, source.folder, self)
            self._renewing = services.tasks.start(self._renewal.run(), f"token of upstream '{self.name}'")
            if token.file is not None:
                services.watch.add(token.file, self._renewal.wake)
        elif filled is not None and self._settings.auth == "replace":
            for file in filled.files:
                services.watch.add(file, lambda: self._take(filled))

    async def settled(self) -> None:
        """Wait until a first token is here, or its first try has failed."""
        if self._renewal is not None:
            await self._renewal.is_tried.wait()

    def stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    def _take(self, filled: Filled) -> None:
        reason, value = "it is empty, or no key", ""
        try:
            value = filled.again().strip()
        except UnfilledError as error:
            reason = error.args[0]
        if not is_value(value):
            log.warning("a new key cannot be taken: the old one stays", extra={"upstream": self.name, "reason": reason})
        elif value != self._value:
            self.put(value)
            log.info("a new key is in use", extra={"upstream": self.name})
