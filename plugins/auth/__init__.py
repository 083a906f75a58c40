"""Who calls, and what they may: API keys by their hashes, and JWTs of one issuer. Whoever is not known is refused.

A request brings one credential (`credential.py`). What looks like a JWT is one where the config has an issuer
(`tokens.py`, `keyring.py`), everything else is a key (`keys.py`): neither is ever tried as the other. Both lead to a
Grant: the principal, and what it may use (`grant.py`).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from typing_extensions import override

from plugins.auth.credential import is_jwt, presented
from plugins.auth.keys import Keys
from plugins.auth.settings import AuthConfig
from proxy.plugin import PRINCIPAL, Plugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from plugins.auth.tokens import Tokens
    from proxy.plugin import Exchange, Services

__all__ = ["Auth", "AuthConfig"]


class Auth(Plugin[AuthConfig]):
    Config = AuthConfig
    provides = (PRINCIPAL,)

    def __init__(self, config: AuthConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._keys = Keys(config, name)
        self._tokens: Tokens | None = None

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        self._keys.watch(services)
        if self.config.jwt is None:
            yield
            return
        from plugins.auth.tokens import Tokens  # noqa: PLC0415 - a cryptography library that only JWTs need

        self._tokens = Tokens(self.config.jwt, self.name, services)
        async with self._tokens.keyring.kept():
            yield

    @override
    def on_head(self, exchange: Exchange) -> Awaitable[object] | None:
        """Nobody's body is read before it is known whose it is."""
        text = presented(exchange.request)
        if self._tokens is not None and is_jwt(text):
            return self._tokens.grant(text)
        self._keys.grant(text)
        return None

    @override
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        """Waits only for an issuer's keys, and to read what a limited grant is checked against."""
        text = presented(exchange.request)
        if self._tokens is not None and is_jwt(text):
            return _identify(exchange, self._tokens, text)
        grant = self._keys.grant(text)
        exchange.facts[PRINCIPAL] = grant.principal
        return grant.check(exchange) if grant.is_limited else None

    @override
    async def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        """A token's signature is not looked at: its issuer would have to be asked."""
        text = presented(exchange.request)
        if self.config.jwt is not None and is_jwt(text):
            return [f"the token has to be one of {self.config.jwt.issuer}: who calls is not known here"]
        self._keys.read()
        grant = self._keys.grant(text)
        await grant.check(exchange)
        exchange[PRINCIPAL] = grant.principal
        labels = ", ".join(f"{key}: {value}" for key, value in grant.principal.labels.items())
        return [f"lets in {grant.principal.name}{labels and f' ({labels})'}"]


async def _identify(exchange: Exchange, tokens: Tokens, text: str) -> None:
    grant = await tokens.grant(text)
    exchange[PRINCIPAL] = grant.principal
    if grant.is_limited:
        await grant.check(exchange)
