"""API keys: a table from hashes to grants. The key itself is nowhere, neither in the config nor in memory.

The table is found by the hash of what was presented, and a hash tells nothing of a key that is nearly right; the last
comparison takes the same time for all.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plugins.auth.credential import refused
from plugins.auth.grant import Grant
from proxy.plugin import ConfigError, Principal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plugins.auth.settings import AuthConfig, KeySettings
    from proxy.plugin import Services

log = logging.getLogger("weir.auth")

Table = dict[bytes, tuple[bytes, Grant]]


class Keys:
    def __init__(self, config: AuthConfig, name: str) -> None:
        """`name` is the plugin's, for logs."""
        self._config = config
        self._name = name
        self._table: Table = {}

    def watch(self, services: Services) -> None:
        """Take the keys, and take them again when their file changes. Raises ConfigError."""
        self.read()
        if self._config.keys_file is not None:
            services.watch.add(self._config.keys_file, self._take_again)

    def read(self) -> None:
        """Take the keys as they are now. Raises ConfigError."""
        self._take(self._config.all_keys())

    def grant(self, text: str) -> Grant:
        """Raises Unauthorized."""
        digest = hashlib.sha256(text.encode()).digest()
        found = self._table.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            raise refused()
        return found[1]

    def _take_again(self) -> None:
        try:
            self._take(self._config.all_keys())
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
            log.error("the old keys stay: their file is wrong", extra={"plugin": self._name, "problems": problems})  # noqa: TRY400 - the lines say all
        else:
            log.info("keys read again", extra={"plugin": self._name, "keys": len(self._table)})

    def _take(self, keys: list[KeySettings]) -> None:
        self._table = {key.sha256: (key.sha256, _grant(key)) for key in keys}
        for name in _expired(keys):
            log.warning("a key has expired", extra={"plugin": self._name, "key": name})


def _grant(key: KeySettings) -> Grant:
    principal = Principal(key.name, key.labels, key.name)
    return Grant(principal, expires=key.expires, models=key.models, routes=key.routes)


def _expired(keys: Iterable[KeySettings]) -> list[str]:
    now = datetime.now(UTC)
    return [key.name for key in keys if key.expires is not None and key.expires <= now]
