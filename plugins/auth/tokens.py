"""JWTs of one issuer: verified by its public keys, and made into grants.

A token's header only chooses among keys and algorithms that the config and the issuer already allow together; keys and
addresses that it carries itself are not looked at. What was verified is remembered, by the hash of the whole token, for
as long as the keys stay the same, and a minute at most.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
import orjson

from plugins.auth.credential import expired, refused
from plugins.auth.grant import Grant
from plugins.auth.keyring import Keyring
from proxy.plugin import Principal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.auth.jwks import PublicKey
    from plugins.auth.settings import JwtSettings
    from proxy.plugin import Services

MAX_REMEMBERED = 4096
REMEMBERED_SECONDS = 60.0
MAX_TEXT = 256
"""Of a principal's name and of a label."""


class Remembered(NamedTuple):
    grant: Grant
    until: float
    keys: Sequence[PublicKey]


class Tokens:
    def __init__(self, settings: JwtSettings, name: str, services: Services) -> None:
        self.keyring = Keyring(settings, name, services)
        self._settings = settings
        self._clock = services.clock
        self._remembered: OrderedDict[bytes, Remembered] = OrderedDict()

    async def grant(self, token: str) -> Grant:
        """Raises Unauthorized; Unavailable while the issuer's keys are not here."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None and known.keys is self.keyring.keys and self._clock() < known.until:
            self._remembered.move_to_end(digest)
            return known.grant
        key, algorithm = await self._key(token)
        claims = self._claims(token, key, algorithm)
        grant = self._granted(claims)
        self._remember(digest, Remembered(grant, self._clock() + _lifetime(claims), self.keyring.keys))
        return grant

    async def _key(self, token: str) -> tuple[PublicKey, str]:
        header = _header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms or not isinstance(kid, str | None) or "crit" in header:
            raise refused()
        if not self.keyring.keys:
            raise Unavailable("the keys of the tokens' issuer are not here yet; try again", code="jwks_unavailable")
        key = self.keyring.find(kid, algorithm) or await self.keyring.search(kid, algorithm)
        if key is None:
            raise refused()
        return key, algorithm

    def _claims(self, token: str, key: PublicKey, algorithm: str) -> dict[str, Any]:
        wanted = self._settings
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                issuer=wanted.issuer,
                audience=wanted.audience,
                leeway=wanted.leeway,
                options={"require": ["iss", "aud", *wanted.require]},
            )
        except jwt.ExpiredSignatureError:
            raise expired() from None
        except Exception:  # noqa: BLE001 - for odd headers and claims it raises more than its own family
            raise refused() from None

    def _granted(self, claims: dict[str, Any]) -> Grant:
        wanted = self._settings
        name = _claim(claims, wanted.principal)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TEXT or not name.isprintable():
            raise refused()
        found = {label: _text(_claim(claims, path)) for label, path in wanted.labels.items()}
        labels = {label: text for label, text in found.items() if text}
        principal = Principal(name, labels, name if name in wanted.in_metrics else "other")
        return Grant(principal, models=wanted.models, routes=wanted.routes)

    def _remember(self, digest: bytes, remembered: Remembered) -> None:
        self._remembered[digest] = remembered
        self._remembered.move_to_end(digest)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _header(token: str) -> dict[str, Any]:
    part = token.partition(".")[0]
    try:
        header = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        raise refused() from None
    if not isinstance(header, dict):
        raise refused()
    return header


def _lifetime(claims: dict[str, Any]) -> float:
    """Seconds for which it may be remembered."""
    left = float(claims["exp"]) - datetime.now(UTC).timestamp() if "exp" in claims else REMEMBERED_SECONDS
    return min(left, REMEMBERED_SECONDS)


def _claim(claims: dict[str, Any], path: str) -> Any:
    """The claim of that very name, as issuers name their own by URLs; else the one that the dots lead to."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    """A label's text, or nothing."""
    if isinstance(value, list):
        return ",".join(filter(None, map(_text, value)))[:MAX_TEXT]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value[:MAX_TEXT] if isinstance(value, str) and value.isprintable() else ""
