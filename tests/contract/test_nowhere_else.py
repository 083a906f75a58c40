"""Field case 25: no request and no answer opens a connection that the config does not name, nor takes a credential there."""

import asyncio
import contextlib

import orjson
import pytest

from tests import wire
from tests.contract.double import CHAT, OK, answers, asks, upstream, weir

NAMES = [
    *(
        "api_base",
        "base_url",
        "api_url",
        "endpoint",
        "hostname",
        "url",
        "proxy",
        "upstream",
        "custom_host",
        "target_url",
    ),
    *("x-portkey-custom-host", "x-portkey-provider", "helicone-target-url", "x-litellm-api-base", "x-upstream"),
    *("x-forwarded-host", "x-forwarded-server", "x-forwarded-proto", "forwarded", "x-host", "x-original-host", "via"),
    *("x-original-url", "x-rewrite-url", "x-http-host-override", "x-proxy-url", "http_proxy", "proxy-host", "referer"),
    *("origin", "from", "location", "content-location", "refresh", "alt-svc", "x-accel-redirect", "x-sendfile"),
]
OURS = "api_key: sk-upstream"


@contextlib.asynccontextmanager
async def houses(script=OK):
    """Weir, its upstream, and a server elsewhere that would be glad of a connection."""
    async with upstream(OK) as elsewhere, upstream(script) as double, weir(double.url, settings=OURS) as proxy:
        yield elsewhere, double, proxy


def places(elsewhere):
    return [elsewhere.url, f"{elsewhere.url}/v1", elsewhere.url.removeprefix("http:"), elsewhere.authority.decode()]


@pytest.mark.parametrize("name", NAMES)
async def test_no_field_of_a_request_names_another_upstream(name):
    """In the header, the body, the query, and as the model; each goes up as what it is."""
    async with houses() as (elsewhere, double, proxy):
        for place in places(elsewhere):
            body = orjson.dumps({name: place, "model": place, "extra_body": {name: place}, "messages": []})
            sent = asks(f"POST {CHAT}?{name}={place}", f"{name}: {place}", "Content-Type: application/json", body=body)
            assert (await wire.fetch(proxy.url, sent)).status == 200
            assert double.requests[-1].body == body
            assert double.requests[-1].head.start == f"POST {CHAT}?{name}={place} HTTP/1.1".encode()
            assert double.requests[-1].head.all("host") == [double.authority]
        assert (elsewhere.wires, len(double.requests)) == ([], 4)


async def test_no_target_and_no_host_names_another_upstream():
    async with houses() as (elsewhere, double, proxy):
        authority = elsewhere.authority.decode()
        for target in (f"{elsewhere.url}/v1/models", f"HTTP://{authority}/v1/models", f"https://{authority}/v1/models"):
            assert (await wire.fetch(proxy.url, asks(f"GET {target}"))).status == 200
        sent = asks("GET /v1/models").replace(b"api.example", elsewhere.authority)
        assert (await wire.fetch(proxy.url, sent)).status == 200
        assert [request.head.start for request in double.requests] == [b"GET /v1/models HTTP/1.1"] * 4
        assert [request.head.all("host") for request in double.requests] == [[double.authority]] * 4
        for refused in (
            f"//{authority}/v1",
            f"@{authority}/v1",
            f"http://api.example@{authority}/v1",
            f"ftp://{authority}/v1",
        ):
            assert (await wire.fetch(proxy.url, asks(f"GET {refused}"))).status == 400
        assert (elsewhere.wires, len(double.requests)) == ([], 4)


@pytest.mark.parametrize(
    "status", ["300 Choices", "301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"]
)
async def test_a_redirect_is_the_apps_to_follow_and_takes_no_credential_along(status):
    async with upstream(OK) as elsewhere:
        for location in (
            *places(elsewhere),
            "http://169.254.169.254/latest/meta-data",
            "/v1/other",
            "file:///etc/passwd",
        ):
            script = answers(status, f"Location: {location}", f"Refresh: 0; url={location}", body=b"{}")
            async with upstream(script) as double, weir(double.url, settings=OURS) as proxy:
                for sent in (asks("GET /v1/models"), asks(f"POST {CHAT}", body=b'{"model": "m"}')):
                    answer = await wire.fetch(proxy.url, sent)
                    assert f"{answer.status} {answer.head.reason.decode()}" == status
                    assert answer.head.get("location") == location
                    assert b"sk-upstream" not in repr(answer).encode()
                assert len(double.requests) == 2
        assert elsewhere.wires == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_a_proxy_of_the_environment_is_none_for_plain_http(variable, monkeypatch):
    """So that neither a stray variable nor a `Proxy:` header leads a plain upstream's traffic elsewhere."""
    async with upstream(OK) as elsewhere, upstream(OK) as double:
        monkeypatch.setenv(variable, elsewhere.url)
        async with weir(double.url, settings=OURS) as proxy:
            assert (await wire.fetch(proxy.url, asks("GET /v1/models", f"Proxy: {elsewhere.url}"))).status == 200
        assert (elsewhere.wires, len(double.requests)) == ([], 1)


async def test_what_an_upstream_says_in_its_header_opens_no_connection():
    async with upstream(OK) as elsewhere:
        links = [f"Link: <{elsewhere.url}>; rel=preload", f'Alt-Svc: http/1.1="{elsewhere.authority.decode()}"']
        script = answers("200 OK", *links, f"Content-Location: {elsewhere.url}", body=b"{}")
        async with upstream(script) as double, weir(double.url, settings=OURS) as proxy:
            for _ in range(2):
                assert (await wire.fetch(proxy.url, asks("GET /v1/models"))).status == 200
            await asyncio.sleep(0.01)
            assert len(double.requests) == 2
        assert elsewhere.wires == []
