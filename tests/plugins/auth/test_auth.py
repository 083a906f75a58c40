"""The plugin as a whole: whoever is not known is refused everywhere, who is known is told to the others, secrets stay."""

import logging
import subprocess
import sys

import pytest

from plugins.auth import Auth
from proxy import logs, testing
from proxy.registry import faults_of
from tests import wire

from .house import KEY, SHOWS, bearer, code, digest, entry, house, jwks, jwt_settings, token

PATHS = [
    "/v1/chat/completions",
    "/v1/models",
    "/v1/files/f-1",
    "/v1/no/such/route",
    "/",
    "/health",
    "/metrics",
    "/v1/realtime",
    "/V1/MODELS",
    "/inference/v1/generate",
    "/v1/models%2f",
    "/v1/models?key=1",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]
ROUTED = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{url}/v1"}}}}
plugins: [{{auth: {{keys: [{{name: team, sha256: "{digest}"}}]}}}}]
routes:
  - {{name: open, match: {{path: /v1/models}}, targets: [up], plugins: {{auth: off}}}}
  - {{name: chat, match: {{path: /v1/chat/*, model: "gpt-*"}}, targets: [up]}}
"""


def test_it_is_a_sound_plugin_that_says_who_calls():
    assert faults_of(Auth) == []
    assert [key.name for key in Auth.provides] == ["principal"]


@pytest.mark.parametrize("method", METHODS)
async def test_no_method_and_no_path_is_open(method):
    async with house(keys=[entry()]) as (weir, upstream):
        for path in PATHS:
            answer = await wire.fetch(weir.url, f"{method} {path} HTTP/1.1\r\nhost: weir\r\n\r\n".encode())
            assert answer.status == 401, path
    assert upstream.requests == []


async def test_a_cors_preflight_is_refused_as_well():
    preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: weir\r\norigin: https://app.example.com\r\n"
    asked = "access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n"
    async with house(keys=[entry()]) as (weir, upstream):
        answer = await wire.fetch(weir.url, (preflight + asked).encode())
    assert (answer.status, answer.head.get("access-control-allow-origin")) == (401, None)
    assert upstream.requests == []


async def test_requests_that_no_route_takes_are_refused_before_their_404():
    async with testing.upstream(testing.chat("hi")) as upstream:
        text = ROUTED.format(url=upstream.url, digest=entry()["sha256"])
        async with testing.configured(text) as weir:
            asked = {
                (who, path, model): await code(weir, headers, {"model": model}, path=path)
                for who, headers in {"stranger": {}, "team": bearer(KEY)}.items()
                for path, model in [("/v1/chat/completions", "gpt-4o"), ("/v1/chat/completions", "x"), ("/none", "x")]
            }
            assert (await code(weir, {}, path="/v1/models"))[0] == 200
    assert [*asked.values()] == [(401, "invalid_api_key")] * 3 + [(200, None), (404, "no_route"), (404, "no_route")]


async def test_those_after_it_hear_who_calls():
    async with house(SHOWS, keys=[entry(labels={"feature": "search"}), entry("other", "b")]) as (weir, _):
        one = await testing.ask(weir, {}, headers=bearer(KEY))
        other = await testing.ask(weir, {}, headers={"x-api-key": "other"})
    assert one.json() == {"name": "team", "labels": {"feature": "search"}, "metric": "team"}
    assert other.json() == {"name": "b", "labels": {}, "metric": "b"}


async def test_the_key_is_nowhere_but_in_the_request(caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        async with house(keys=[entry(), entry("old", "old", expires="2020-01-01")]) as (weir, upstream):
            answers = [
                await testing.ask(weir, {}, headers=headers, path=path)
                for headers in (
                    bearer(KEY),
                    {"authorization": KEY},
                    {"x-api-key": KEY, "api-key": KEY + "x"},
                    {"authorization": f"Basic {KEY}"},
                )
                for path in (testing.CHAT, "/none")
            ]
            said = [
                *(answer.body + str(answer.headers).encode() for answer in answers),
                weir.metrics.page(),
                repr(weir.state()).encode(),
                repr([(plugin.config, plugin, vars(plugin)) for plugin in weir.plan.plugins]).encode(),
                *(logs.JsonLines().format(record).encode() for record in caplog.records),
            ]
    assert [answer.status for answer in answers] == [200, 200] + [401] * 6
    assert len(upstream.requests) == 2
    assert [text for text in said if KEY.encode() in text] == []
    assert KEY not in "".join(capsys.readouterr())


async def test_a_refusal_is_a_rejection_in_metrics():
    async with house(keys=[entry()]) as (weir, _):
        await code(weir, {})
        await weir.drain(5)
        page = weir.metrics.page().decode()
    assert 'weir_requests_total{endpoint="chat",outcome="rejected",route="default"} 1.0' in page


def test_what_jwts_need_is_not_imported_without_them():
    asked = "import sys, plugins.auth; print(*sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout.strip() == ""


async def test_each_route_may_have_keys_of_its_own(tmp_path):
    async with testing.upstream(testing.chat("hi")) as upstream:
        text = ROUTED.replace("{{auth: off}}", '{{auth: {{keys: [{{name: b, sha256: "{other}"}}]}}}}')
        text = text.format(url=upstream.url, digest=entry()["sha256"], other=entry("other")["sha256"])
        async with testing.configured(text) as weir:
            for key, path, status in [
                (KEY, testing.CHAT, 200),
                ("other", testing.CHAT, 401),
                ("other", "/v1/models", 200),
                (KEY, "/v1/models", 401),
            ]:
                assert (await code(weir, bearer(key), {"model": "gpt-4o"}, path=path))[0] == status


async def test_keys_and_tokens_are_never_tried_as_each_other(tmp_path):
    (tmp_path / "jwks.json").write_bytes(jwks())
    like_a_token, good = "aaaa.bbbb.cccc", token()
    async with house(keys=[entry(), entry(like_a_token, "b")], jwt=jwt_settings(tmp_path / "jwks.json")) as (weir, _):
        assert await code(weir, bearer(KEY)) == (200, None)
        assert await code(weir, bearer(good)) == (200, None)
        assert await code(weir, {"x-api-key": good}) == (200, None)
        assert await code(weir, bearer(like_a_token)) == (401, "invalid_api_key")
        assert await code(weir, bearer(good[:-2])) == (401, "invalid_api_key")
    async with house(keys=[entry(like_a_token, "b")]) as (weir, _):
        assert await code(weir, bearer(like_a_token)) == (200, None)
        assert await code(weir, bearer(good)) == (401, "invalid_api_key")


UPLOAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n"
)


def by_model(upstream: testing.Upstream, default: str = "{}") -> str:
    """A Weir whose routes depend on what the body says."""
    return f"""
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{upstream.url}/v1"}}}}
plugins: [{{auth: {{keys: [{{name: team, sha256: "{digest(KEY)}", models: [m]}}]}}}}]
routes:
  - {{name: mine, match: {{model: m}}, targets: [up]}}
  - {{name: default, targets: [up], plugins: {{auth: {default}}}}}
"""


async def test_the_body_of_who_is_not_known_is_not_waited_for():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.configured(by_model(upstream)) as weir:
        async with wire.connected(weir.url) as stranger:
            await stranger.send(UPLOAD, b"\r\n{")
            assert (await stranger.head()).status == 401
        assert await code(weir, bearer(KEY)) == (200, None)
        assert await code(weir, bearer(KEY), {"model": "other", "pad": "x" * 500_000}) == (403, "model_not_allowed")


async def test_where_a_route_lets_everybody_in_the_body_tells_which_it_is():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.configured(by_model(upstream, "off")) as weir:
        assert await code(weir, {}, {"model": "other", "pad": "x" * 500_000}) == (200, None)
        assert await code(weir, {}, {"model": "m", "pad": "x" * 500_000}) == (401, "invalid_api_key")
