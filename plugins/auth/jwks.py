"""An issuer's public keys (RFC 7517): from bytes to those that may verify, each with the algorithms it is good for.

A key that does not fit is left out, never bent to fit: secrets and private keys, keys for encryption, keys of an
algorithm that is not configured, RSA below 2048 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

MAX_BYTES = 256 * 1024
MIN_RSA_BITS = 2048

_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


class PublicKey(NamedTuple):
    kid: str | None
    algorithms: frozenset[str]
    key: Any


def public_keys(raw: bytes, allowed: frozenset[str]) -> list[PublicKey]:
    """Raises ValueError where that is no key set, or has no key that fits."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"the key set is larger than {MAX_BYTES} bytes")
    try:
        listed = orjson.loads(raw)["keys"]
    except (ValueError, TypeError, KeyError):
        raise ValueError("this is no JSON Web Key Set: an object with `keys`") from None
    found = [_public_key(jwk, allowed) for jwk in listed] if isinstance(listed, list) else []
    usable = [key for key in found if key is not None]
    if not usable:
        raise ValueError(f"the key set has no public key for {', '.join(sorted(allowed))}")
    return usable


def _public_key(jwk: Any, allowed: frozenset[str]) -> PublicKey | None:
    if not isinstance(jwk, dict) or "d" in jwk or not _is_for_signatures(jwk):
        return None
    algorithms = _algorithms(jwk) & allowed
    kid = jwk.get("kid")
    if not algorithms or not isinstance(kid, str | None):
        return None
    try:
        key = _loaded(jwk)
    except Exception:  # noqa: BLE001 - what the library raises for odd numbers is not one family
        return None
    return PublicKey(kid, algorithms, key) if key is not None else None


def _is_for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _algorithms(jwk: dict[str, Any]) -> frozenset[str]:
    """All that its kind can do, or the one that it names."""
    match jwk.get("kty"):
        case "RSA":
            possible = _RSA
        case "EC":
            possible = frozenset({_CURVES.get(str(jwk.get("crv")), "")})
        case "OKP":
            possible = frozenset({"EdDSA"})
        case _:
            possible = frozenset()
    return frozenset(name for name in possible if name == jwk.get("alg", name))


def _loaded(jwk: dict[str, Any]) -> Any:
    """None where it is too weak; raises whatever the library raises."""
    if jwk["kty"] == "EC":
        return ECAlgorithm.from_jwk(jwk)
    if jwk["kty"] == "OKP":
        return OKPAlgorithm.from_jwk(jwk)
    key = RSAAlgorithm.from_jwk(jwk)
    return key if key.key_size >= MIN_RSA_BITS else None
