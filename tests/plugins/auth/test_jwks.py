"""Key sets as issuers publish them: which keys verify what, and which are left out."""

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from plugins.auth.jwks import MAX_BYTES, public_keys

from .house import EC, ED, RSA, jwk, jwks

ALL = frozenset({"RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"})
PRIVATE = orjson.loads(RSAAlgorithm.to_jwk(RSA)) | {"kid": "one"}
SECRET = {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"}


def good_for(*keys, allowed=ALL):
    return [(key.kid, sorted(key.algorithms)) for key in public_keys(jwks(*keys), allowed)]


def test_each_kind_of_key_is_good_for_its_algorithms():
    p384 = ec.generate_private_key(ec.SECP384R1())
    assert good_for(jwk(RSA, "r"), jwk(EC, "e"), jwk(p384, "f"), jwk(ED, "d")) == [
        ("r", ["PS256", "RS256", "RS512"]),
        ("e", ["ES256"]),
        ("f", ["ES384"]),
        ("d", ["EdDSA"]),
    ]


def test_a_key_that_names_its_algorithm_is_good_for_that_alone():
    assert good_for(jwk(RSA, alg="RS512")) == [("one", ["RS512"])]


def test_only_what_the_config_allows_counts():
    assert good_for(jwk(RSA), jwk(EC, "e"), allowed=frozenset({"ES256", "RS256"})) == [
        ("one", ["RS256"]),
        ("e", ["ES256"]),
    ]


def test_a_key_may_have_no_name_and_two_may_share_one():
    assert good_for(jwk(RSA, None), jwk(RSA, "a"), jwk(EC, "a")) == [
        (None, ["PS256", "RS256", "RS512"]),
        ("a", ["PS256", "RS256", "RS512"]),
        ("a", ["ES256"]),
    ]


@pytest.mark.parametrize(
    "left_out",
    [
        SECRET,
        PRIVATE,
        {**SECRET, "alg": "RS256"},
        {**SECRET, "kty": "RSA"},
        jwk(RSA, use="enc"),
        jwk(RSA) | {"key_ops": ["encrypt"]},
        jwk(RSA) | {"key_ops": "verify"},
        jwk(RSA, alg="HS256"),
        jwk(RSA, alg="none"),
        jwk(RSA, alg="RSA-OAEP"),
        jwk(RSA, alg="ES256"),
        jwk(RSA, alg=["RS256"]),
        jwk(RSA, kid=7),
        jwk(RSA, n=""),
        jwk(RSA, n="AQAB"),
        jwk(RSA, n=5),
        jwk(RSA, e="AA"),
        jwk(EC, crv="secp256k1"),
        jwk(EC, crv="P-384"),
        jwk(EC, x="AAAA"),
        jwk(EC, alg="ES384"),
        jwk(rsa.generate_private_key(65537, 1024)),
        {"kty": "RSA"},
        {},
        [],
        None,
        "RSA",
        7,
    ],
    ids=[f"no{number}" for number in range(28)],  # not the keys, which are others in each process
)
def test_a_key_that_does_not_fit_is_left_out(left_out):
    assert good_for(left_out, jwk(EC, "e")) == [("e", ["ES256"])]
    with pytest.raises(ValueError, match="has no public key for"):
        good_for(left_out)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b'"keys"', b"7", b"null", b"<html>", b"\xff"])
def test_what_is_no_key_set(raw):
    with pytest.raises(ValueError, match="this is no JSON Web Key Set: an object with `keys`"):
        public_keys(raw, ALL)


@pytest.mark.parametrize("raw", [b'{"keys":[]}', b'{"keys":{}}', b'{"keys":null}', b'{"keys":"one"}'])
def test_a_key_set_without_keys(raw):
    with pytest.raises(ValueError, match="the key set has no public key for ES256, ES384, EdDSA"):
        public_keys(raw, ALL)


def test_a_key_set_that_is_too_large():
    with pytest.raises(ValueError, match="larger than 262144 bytes"):
        public_keys(jwks() + b" " * MAX_BYTES, ALL)


@given(
    changes=st.dictionaries(st.sampled_from(["kty", "n", "e", "alg", "use", "kid", "key_ops"]), st.text(max_size=20))
)
def test_odd_keys_are_left_out_or_good(changes):
    assert ("e", ["ES256"]) in good_for({**jwk(RSA), **changes}, jwk(EC, "e"))
