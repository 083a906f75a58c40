"""Tokens: what verifies, what attackers try, and what becomes of the claims."""

import base64
import contextlib
import hashlib
import hmac

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from plugins.auth import tokens
from proxy import testing
from proxy.plugin import Unauthorized

from .house import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    OTHER_RSA,
    RSA,
    SHOWS,
    bearer,
    claims,
    code,
    house,
    jwk,
    jwks,
    jwt_settings,
    later,
    token,
)

UNKNOWN = (401, "invalid_api_key")
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ALL = ["RS256", "PS256", "ES256", "EdDSA"]


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def handmade(header: object, payload: object, key: bytes) -> str:
    """Signed with HMAC, whatever the header says."""
    text = f"{part(header)}.{part(payload)}"
    return f"{text}.{part(hmac.digest(key, text.encode(), 'sha256'))}"


def spliced(one: str, other: str) -> str:
    """The first with the claims of the other."""
    (head, _, signature), claimed = one.split("."), other.split(".")[1]
    return f"{head}.{claimed}.{signature}"


def signed(payload: object) -> str:
    """By the issuer, whatever it is."""
    raw = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return jwt.api_jws.encode(raw, RSA, "RS256", headers={"kid": "one"})


@contextlib.asynccontextmanager
async def weir(tmp_path, *keys, **more):
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(*keys))
    async with house(SHOWS, jwt=jwt_settings(file, **more)) as (running, _):
        yield running


async def principal(running, text: str) -> dict[str, object]:
    answer = await testing.ask(running, {}, headers=bearer(text))
    assert answer.status == 200, answer.body
    return answer.json()


async def test_tokens_of_every_kind(tmp_path):
    keys = [jwk(RSA), jwk(EC, "e"), jwk(ED, "d")]
    async with weir(tmp_path, *keys, algorithms=ALL) as running:
        for text in (
            token(),
            token(algorithm="PS256"),
            token(EC, algorithm="ES256", headers={"kid": "e"}),
            token(ED, algorithm="EdDSA", headers={"kid": "d"}),
            token(headers={"typ": "at+jwt"}),
        ):
            assert (await principal(running, text))["name"] == "svc"


ATTACKS = {
    "no signature": ".".join([part({"alg": "none", "kid": "one"}), part(claims()), ""]),
    "none, signed": handmade({"alg": "none", "kid": "one"}, claims(), b""),
    "None": handmade({"alg": "None", "kid": "one"}, claims(), b""),
    "HMAC with the public key": handmade({"alg": "HS256", "kid": "one"}, claims(), PEM),
    "HMAC with the key set": handmade({"alg": "HS256", "kid": "one"}, claims(), jwks()),
    "HMAC with nothing": handmade({"alg": "HS256", "kid": "one"}, claims(), b""),
    "HMAC that calls itself RS256": handmade({"alg": "RS256", "kid": "one"}, claims(), PEM),
    "no alg": handmade({"kid": "one"}, claims(), PEM),
    "alg is a list": handmade({"alg": ["RS256"], "kid": "one"}, claims(), PEM),
    "alg is not allowed": token(algorithm="RS512"),
    "another's key": token(OTHER_RSA),
    "another's key of that kind": token(EC, algorithm="ES256"),
    "kid of nobody": token(headers={"kid": "two"}),
    "kid is a path": token(OTHER_RSA, headers={"kid": "../../../../dev/null"}),
    "kid is SQL": token(OTHER_RSA, headers={"kid": "one' UNION SELECT 'x"}),
    "kid is a number": handmade({"alg": "RS256", "kid": 1}, claims(), PEM),
    "kid is a list": handmade({"alg": "RS256", "kid": ["one"]}, claims(), PEM),
    "jku of their own": token(OTHER_RSA, headers={"jku": "http://127.0.0.1:1/keys"}),
    "x5u of their own": token(OTHER_RSA, headers={"x5u": "http://127.0.0.1:1/keys"}),
    "jwk of their own": token(OTHER_RSA, headers={"jwk": jwk(OTHER_RSA)}),
    "jwk without kid": token(OTHER_RSA, headers={"jwk": jwk(OTHER_RSA), "kid": None}),
    "crit": token(headers={"crit": ["b64"], "b64": True}),
    "crit is odd": token(headers={"crit": ["exp"], "exp": 1}),
    "b64": handmade({"alg": "RS256", "kid": "one", "b64": False, "crit": ["b64"]}, b"", PEM),
    "wrong issuer": token(iss="https://evil.example.com/"),
    "issuer without its slash": token(iss=ISSUER.rstrip("/")),
    "issuer is a list": signed({**claims(), "iss": [ISSUER]}),
    "no issuer": token(iss=None),
    "wrong audience": token(aud="other"),
    "audience in part": token(aud="weir-2"),
    "audience is empty": token(aud=[]),
    "no audience": token(aud=None),
    "expired": token(exp=later(-60)),
    "no expiry": token(exp=None),
    "expiry is text": token(exp="never"),
    "not yet": token(nbf=later(86400)),
    "issued in the future": token(iat=later(86400)),
    "no principal": token(sub=None),
    "principal is a number": signed({**claims(), "sub": 7}),
    "principal is a list": signed({**claims(), "sub": ["svc"]}),
    "principal is empty": token(sub=""),
    "principal is long": token(sub="s" * 257),
    "principal has a line break": token(sub="a\nb"),
    "half a principal": token(sub="\ud800"),
    "claims are a list": signed([]),
    "claims are no JSON": signed(b"{"),
    "claims are not UTF-8": signed(b'{"iss":"\xff"}'),
    "claims are nothing": signed(b""),
    "claims are deep": signed(b"[" * 2000),
    "expiry is infinite": signed(orjson.dumps(claims(exp=None))[:-1] + b',"exp":1e999}'),
    "expiry is not a number": signed(orjson.dumps(claims(exp=None))[:-1] + b',"exp":NaN}'),
    "expiry is an object": signed({**claims(), "exp": {}}),
    "nbf is a list": signed({**claims(), "nbf": []}),
    "audience is an object": signed({**claims(), "aud": {"weir": 1}}),
    "header is a list": handmade([], claims(), PEM),
    "header is no JSON": handmade(b"{", claims(), PEM),
    "header is deep": handmade(b"[" * 2000, claims(), PEM),
    "header is deep within": handmade(b'{"alg":"RS256","kid":"one","x":' + b"[" * 900 + b"]" * 900 + b"}", {}, PEM),
    "header is no base64": "a" + token(),
    "payload is another's": spliced(token(), token(sub="x")),
    "signature is cut": token()[:-8],
    "signature is longer": token() + "AAAA",
    "four parts": token() + ".AAAA",
    "two parts": token().rpartition(".")[0],
}


async def test_what_attackers_try(tmp_path):
    async with weir(tmp_path) as running:
        told = {name: await code(running, bearer(text)) for name, text in ATTACKS.items()}
        assert await code(running, bearer(token())) == (200, None)
    assert told == dict.fromkeys(ATTACKS, UNKNOWN)


async def test_a_token_of_another_algorithm_than_its_keys(tmp_path):
    async with weir(tmp_path, jwk(RSA, alg="RS256"), algorithms=ALL) as running:
        assert await code(running, bearer(token())) == (200, None)
        assert await code(running, bearer(token(algorithm="PS256"))) == UNKNOWN


async def test_an_expired_token_is_told_so_and_a_forged_one_is_not(tmp_path):
    async with weir(tmp_path) as running:
        old = await testing.ask(running, {}, headers=bearer(token(exp=later(-60))))
        forged = await testing.ask(running, {}, headers=bearer(token(OTHER_RSA, exp=later(-60))))
    assert old.json()["error"]["message"] == "the API key or token of this request has expired; ask for a new one"
    assert forged.json()["error"]["message"].startswith("no valid API key came with this request")


async def test_clocks_may_be_apart(tmp_path):
    async with weir(tmp_path, leeway="2m") as running:
        assert await code(running, bearer(token(exp=later(-60)))) == (200, None)
        assert await code(running, bearer(token(nbf=later(60)))) == (200, None)


async def test_one_of_several_audiences(tmp_path):
    async with weir(tmp_path, audience=["other", AUDIENCE]) as running:
        for audience, told in {AUDIENCE: 200, "other": 200, "third": 401}.items():
            assert (await code(running, bearer(token(aud=audience))))[0] == told
        assert (await code(running, bearer(token(aud=["third", AUDIENCE]))))[0] == 200


async def test_claims_that_must_be_there(tmp_path):
    async with weir(tmp_path, require=["exp", "jti"]) as running:
        assert await code(running, bearer(token())) == UNKNOWN
        assert await code(running, bearer(token(jti="1"))) == (200, None)
    async with weir(tmp_path, require=[]) as running:
        assert await code(running, bearer(token(exp=None))) == (200, None)


async def test_claims_become_the_principal_and_its_labels(tmp_path):
    paths = {
        "team": "org.team",
        "plain": "https://example.com/plan",
        "groups": "groups",
        "number": "org.number",
        "none": "org.none.deeper",
        "object": "org",
        "flag": "flag",
        "odd": "odd",
    }
    text = token(
        azp="batch",
        org={"team": "search", "number": 7},
        groups=["a", "b", 3, None, {"c": 1}],
        flag=True,
        odd="a\x00b",
        **{"https://example.com/plan": "gold"},
    )
    async with weir(tmp_path, principal="azp", labels=paths) as running:
        told = await principal(running, text)
    assert told == {
        "name": "batch",
        "labels": {"team": "search", "plain": "gold", "groups": "a,b,3", "number": "7"},
        "metric": "other",
    }


async def test_labels_are_bounded(tmp_path):
    async with weir(tmp_path, labels={"long": "long", "list": "list"}) as running:
        told = await principal(running, token(long="x" * 300, list=["y" * 200, "z" * 200]))
    assert {name: len(text) for name, text in told["labels"].items()} == {"long": 256, "list": 256}


async def test_metrics_name_those_that_the_config_names(tmp_path):
    async with weir(tmp_path, in_metrics=["svc"]) as running:
        assert (await principal(running, token()))["metric"] == "svc"
        assert (await principal(running, token(sub="x")))["metric"] == "other"


async def test_tokens_may_be_for_some_models_and_routes(tmp_path):
    async with weir(tmp_path, models=["gpt-4o"]) as running:
        assert await code(running, bearer(token()), {"model": "o3"}) == (403, "model_not_allowed")
        assert await code(running, bearer(token()), {"model": "gpt-4o"}) == (200, None)
    async with weir(tmp_path, routes=["other"]) as running:
        assert await code(running, bearer(token())) == (403, "route_not_allowed")


# -- what is remembered


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def remembering(tmp_path):
    """Tokens with a clock of the test's, and how often a signature was looked at."""
    from prometheus_client import CollectorRegistry

    from plugins.auth.settings import JwtSettings
    from proxy.services import Services

    (tmp_path / "jwks.json").write_bytes(jwks())
    clock, looked = Clock(), []
    services = Services(CollectorRegistry(), clock=clock)
    wanted = JwtSettings.model_validate_json(orjson.dumps(jwt_settings(tmp_path / "jwks.json", require=[])))
    verifier = tokens.Tokens(wanted, "auth", services)
    claims_of = verifier._claims
    verifier._claims = lambda *args: looked.append(1) or claims_of(*args)
    async with verifier.keyring.kept():
        yield verifier, clock, looked
    services.close()


async def test_a_token_is_verified_once_a_minute(remembering):
    verifier, clock, looked = remembering
    text = token()
    grants = {id(await verifier.grant(text)) for _ in range(5)}
    assert (len(grants), len(looked)) == (1, 1)
    clock.now += 61
    await verifier.grant(text)
    assert len(looked) == 2


async def test_no_longer_than_it_counts(remembering):
    verifier, clock, looked = remembering
    text = token(exp=later(10))
    await verifier.grant(text)
    clock.now += 11
    await verifier.grant(text)
    assert len(looked) == 2


async def test_within_the_leeway_and_without_expiry(remembering):
    verifier, _, looked = remembering
    for text in (token(exp=later(-5)), token(exp=None)):
        await verifier.grant(text)
        await verifier.grant(text)
    assert len(looked) == 3


async def test_only_the_whole_token_is_the_same(remembering):
    verifier, _, _ = remembering
    text = token()
    await verifier.grant(text)
    head, payload, signature = text.split(".")
    for other in (text[:-1] + ("A" if text[-1] != "A" else "B"), f"{head}.{payload}.{signature[:-4]}", text + "A"):
        with pytest.raises(Unauthorized):
            await verifier.grant(other)


async def test_not_longer_than_its_key(remembering, tmp_path):
    verifier, _, looked = remembering
    text = token()
    await verifier.grant(text)
    verifier.keyring.keys = list(verifier.keyring.keys)
    await verifier.grant(text)
    assert len(looked) == 2


async def test_so_many_and_no_more(remembering, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 3)
    verifier, _, looked = remembering
    texts = [token(sub=str(number)) for number in range(4)]
    for text in [*texts[:3], texts[0], texts[3]]:
        await verifier.grant(text)
    assert (len(looked), len(verifier._remembered)) == (4, 3)
    await verifier.grant(texts[0])
    assert len(looked) == 4
    await verifier.grant(texts[1])
    assert len(looked) == 5
    assert set(verifier._remembered) <= {hashlib.sha256(text.encode()).digest() for text in texts}
