"""A Weir with `auth` before an upstream, keys for it, and an issuer of tokens."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from typing_extensions import override

from proxy import testing
from proxy.plugin import PRINCIPAL, Plugin, PluginConfig, Response

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator

    from proxy.app import Weir
    from proxy.plugin import Exchange

KEY = "weir-canary-5QpUj0tZ"
ISSUER, AUDIENCE = "https://login.example.com/", "weir"
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

_JWK = {rsa.RSAPublicKey: RSAAlgorithm, ec.EllipticCurvePublicKey: ECAlgorithm, ed25519.Ed25519PublicKey: OKPAlgorithm}


class Shows(Plugin[PluginConfig]):
    """Answers with the principal."""

    @override
    async def on_request(self, exchange: Exchange) -> Response:
        principal = exchange[PRINCIPAL]
        shown = {"name": principal.name, "labels": dict(principal.labels), "metric": principal.metric}
        return Response.of_json(200, shown)


SHOWS = {"shows": {"use": f"{__name__}:Shows"}}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def entry(key: str = KEY, name: str = "team", **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": digest(key), **more}


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@contextlib.asynccontextmanager
async def house(*others: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[Weir, testing.Upstream]]:
    """`settings` are those of auth, `others` the plugins after it."""
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.weir(upstream, [{"auth": settings}, *others], settings="api_key: sk-upstream") as weir,
    ):
        yield weir, upstream


async def code(weir: Weir, headers: dict[str, str], body: Any = None, **more: Any) -> tuple[int, str | None]:
    """The status of a chat request, and the code of its error."""
    answer = await testing.ask(weir, {"model": "m"} if body is None else body, headers=headers, **more)
    return answer.status, None if answer.status == 200 else answer.json()["error"]["code"]


def jwk(key: Any, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    """The public half as a JSON Web Key."""
    public = key.public_key()
    kind = next(kind for abstract, kind in _JWK.items() if isinstance(public, abstract))
    fields = orjson.loads(kind.to_jwk(public))
    return {**fields, **({"kid": kid} if kid is not None else {}), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return orjson.dumps({"keys": list(keys or [jwk(RSA)])})


def jwt_settings(where: str | pathlib.Path, **more: Any) -> dict[str, Any]:
    return {"jwks": str(where), "issuer": ISSUER, "audience": AUDIENCE, **more}


def claims(**more: Any) -> dict[str, Any]:
    """Good for ten minutes; None takes a claim out."""
    now = datetime.now(UTC).timestamp()
    plain = {"iss": ISSUER, "aud": AUDIENCE, "sub": "svc", "iat": int(now), "exp": int(now) + 600}
    return {name: value for name, value in {**plain, **more}.items() if value is not None}


def later(seconds: float) -> int:
    return int(datetime.now(UTC).timestamp() + seconds)


def token(key: Any = RSA, *, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **more: Any) -> str:
    """A header of None is left out."""
    fields = {name: value for name, value in {"kid": "one", **(headers or {})}.items() if value is not None}
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=fields)
