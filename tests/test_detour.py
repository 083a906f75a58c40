"""A plugin may have another route's targets serve, while the chain stays the request's own."""

from __future__ import annotations

import io

import orjson
import pytest

from proxy import testing
from proxy.plugin import Plugin, PluginConfig, RouteName
from proxy.source import ConfigError
from tests import wire


class DetourConfig(PluginConfig):
    to: RouteName


class Detour(Plugin[DetourConfig]):
    Config = DetourConfig

    async def on_request(self, exchange):
        if b"long" in await exchange.request.body():
            exchange.detour = self.config.to

    async def on_attempt(self, exchange, attempt):
        attempt.headers["x-chain"] = exchange.route


def config(first: testing.Upstream, second: testing.Upstream, *, to: str = "cheap") -> str:
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{first: {{base_url: "{first.url}/v1"}}, second: {{base_url: "{second.url}/v1"}}}}\n'
        f"plugins: [metering, detour: {{use: '{__name__}:Detour', to: {to}}}]\n"
        "routes:\n"
        "  - {name: cheap, match: {path: /v1/cheap}, targets: [{upstream: second, model: small}], plugins: {detour: off}}\n"
        "  - {name: default, targets: [first]}\n"
    )


async def test_the_other_routes_targets_serve_and_the_chain_stays():
    out = io.BytesIO()
    async with (
        testing.upstream(testing.chat("hi")) as first,
        testing.upstream(testing.chat("ho")) as second,
        testing.configured(config(first, second), out) as weir,
    ):
        short = await testing.ask(weir, {"model": "large"})
        long = await testing.ask(weir, {"model": "large", "user": "long"})
        await wire.until(lambda: out.getvalue().count(b'"ledger"') == 2)
        page = weir.metrics.page().decode()
    assert "x-weir-detour" not in short.headers
    assert (long.headers["x-weir-route"], long.headers["x-weir-detour"]) == ("default", "cheap")
    assert (long.headers["x-weir-upstream"], second.last.json()["model"]) == ("second", "small")
    assert second.last.headers["x-chain"] == "default"
    ledger = [line for line in map(orjson.loads, out.getvalue().splitlines()) if line["log"] == "ledger"]
    assert [(line["route"], line["detour"], line["upstream"]) for line in ledger] == [
        ("default", None, "first"),
        ("default", "cheap", "second"),
    ]
    assert 'weir_requests_total{endpoint="chat",outcome="ok",route="default"} 2.0' in page


async def test_a_route_that_is_not_there_is_a_start_up_error():
    async with testing.upstream(testing.chat("hi")) as upstream:
        with pytest.raises(ConfigError) as refused:
            async with testing.configured(config(upstream, upstream, to="chaep")):
                pass
    assert str(refused.value).endswith(":3 plugins[1].detour.to: no route is named 'chaep'; did you mean 'cheap'?")
