"""/metrics: the names of the contract with their types and labels, closed sets, and histograms as Prometheus means them."""

import random
import re

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import testing
from proxy.errors import Outcome
from proxy.metrics import Metrics
from proxy.plugin import Plugin, PluginConfig
from proxy.series import SECONDS
from tests import wire

ASK = {"model": "m", "messages": []}

PAGE = """
weir_requests                              counter   endpoint outcome route
weir_request_duration_seconds              histogram endpoint route
weir_overhead_seconds                      histogram route
weir_in_flight_requests                    gauge     route
weir_attempts                              counter   outcome upstream
weir_upstream_in_flight                    gauge     upstream
weir_upstream_load                         gauge
weir_upstream_loading                      gauge     upstream
weir_upstream_seconds                      counter   state upstream
weir_plugin_errors                         counter   plugin
weir_config_info                           gauge     hash
weir_config_last_reload_successful         gauge
weir_config_reloads                        counter   result
weir_event_loop_lag_seconds                gauge
gen_ai_server_time_to_first_token_seconds  histogram model upstream
"""
EXPECTED = {name: (kind, labels) for name, kind, *labels in (line.split() for line in PAGE.strip().splitlines())}

CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{url}/v1", cold_start: 1m, usd_per_hour: 2}}}}
plugins: [{{broken: {{use: "tests.test_metrics:Broken"}}}}]
routes:
  - {{name: named, match: {{model: named}}, targets: [up]}}
  - {{name: changed, match: {{header: {{x-tier: free}}}}, targets: [{{upstream: up, model: own}}]}}
  - {{name: v1, match: {{path: "/v1/*"}}, targets: [up]}}
"""


class Broken(Plugin[PluginConfig]):
    async def on_complete(self, exchange, outcome):
        raise RuntimeError("always")


def families(page):
    return {family.name: family for family in text_string_to_metric_families(page.decode())}


def series(page):
    return sorted(line.rpartition(b" ")[0].decode() for line in page.splitlines() if not line.startswith(b"#"))


async def settled(weir, count):
    """The page as soon as so many exchanges and their completions are counted."""
    pattern = re.compile(rb"^weir_plugin_errors_total\{.*\} (\S+)$", re.MULTILINE)
    await wire.until(lambda: not weir.in_flight and sum(map(float, pattern.findall(weir.metrics.page()))) >= count)
    return weir.metrics.page()


async def asked(weir, path="/v1/chat/completions", **body):
    headers = {"x-tier": "free"} if body.pop("free", False) else {}
    return await testing.ask(weir, {**ASK, **body}, path=path, headers=headers)


@pytest.fixture
async def page():
    """After one request of each kind."""
    async with (
        testing.upstream(testing.chat("hello there")) as upstream,
        testing.configured(CONFIG.format(url=upstream.url)) as weir,
    ):
        await asked(weir)
        await asked(weir, stream=True)
        await asked(weir, stream=True, model="named")
        await asked(weir, stream=True, free=True)
        await asked(weir, path="/nowhere")
        await wire.until(lambda: b"\nweir_event_loop_lag_seconds " in weir.metrics.page())
        yield await settled(weir, 4)


async def test_the_page_has_the_names_of_the_contract_with_their_types_and_labels(page):
    found = {}
    for name, family in families(page).items():
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        found[name] = (family.type, sorted(labels))
    assert found == EXPECTED


async def test_the_page_is_clean_for_a_linter(page):
    for name, family in families(page).items():
        assert family.documentation, name
        assert not family.documentation.endswith("."), name
        assert re.fullmatch("[a-z][a-z0-9_]*", name)
        if family.type == "histogram":
            assert name.endswith("_seconds")
        for sample in family.samples:
            ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}[family.type]
            assert sample.name.removeprefix(name) in ends
            assert all(value for value in sample.labels.values())
    assert page.count(b"# HELP ") == page.count(b"# TYPE ") == len(EXPECTED)
    assert b"_created" not in page


async def test_what_the_counts_say(page):
    lines = set(page.decode().splitlines())
    assert 'weir_requests_total{endpoint="chat",outcome="ok",route="v1"} 2.0' in lines
    assert 'weir_requests_total{endpoint="chat",outcome="ok",route="named"} 1.0' in lines
    assert 'weir_requests_total{endpoint="other",outcome="client_error",route="none"} 1.0' in lines
    assert 'weir_attempts_total{outcome="ok",upstream="up"} 4.0' in lines
    assert 'weir_plugin_errors_total{plugin="broken"} 5.0' in lines
    assert 'weir_in_flight_requests{route="v1"} 0.0' in lines
    assert 'weir_upstream_in_flight{upstream="up"} 0.0' in lines
    assert 'weir_upstream_loading{upstream="up"} 0.0' in lines
    assert 'weir_request_duration_seconds_count{endpoint="chat",route="v1"} 2.0' in lines
    for model in ("other", "named", "own"):
        name = "gen_ai_server_time_to_first_token_seconds_count"
        assert f'{name}{{model="{model}",upstream="up"}} 1.0' in lines


async def test_what_is_under_way_is_seen_while_it_is():
    async def script(received, up):
        await up.gone.wait()

    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream) as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        await wire.until(lambda: upstream.requests)
        page = weir.metrics.page()
        assert b'weir_in_flight_requests{route="default"} 1.0' in page
        assert b'weir_upstream_in_flight{upstream="up"} 1.0' in page


async def test_label_values_come_from_closed_sets():
    chance = random.Random(1)

    def word():
        return "".join(chance.choices("abcdefghij/%2F-._~", k=chance.randint(1, 30))).replace("//", "/").strip("./")

    async with (
        testing.upstream(testing.chat("hello there")) as upstream,
        testing.configured(CONFIG.format(url=upstream.url)) as weir,
        wire.connected(weir.url) as client,
    ):
        for path in ("/v1/x", "/x"):
            await asked(weir, path=path)
        await asked(weir, stream=True)
        await asked(weir, stream=True, free=True)
        await asked(weir, path="/v1/..")
        await wire.until(lambda: b"\nweir_event_loop_lag_seconds " in weir.metrics.page())
        before = series(await settled(weir, 3))
        for number in range(500):
            head = "x-tier: free\r\n" if number % 2 else ""
            body = f'{{"model": "{word()}", "stream": true}}'
            path = (
                "/v1/chat/completions" if number % 3 == 0 else f"/{'v1/' if number % 3 == 1 else ''}x{word()}?{word()}"
            )
            line = (
                f"POST {path} HTTP/1.1\r\nhost: {word().replace('/', '').replace('%', '')}\r\nuser-agent: {word()}\r\n"
            )
            await client.send(f"{line}{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            answer = await client.answer("POST")
            assert answer.status in (200, 400, 404)
            if answer.head.get("connection") == "close":
                pytest.fail(f"refused: {line}")
        after = series(weir.metrics.page())
    assert [line for line in after if line not in before and "changed" not in line] == []
    assert len(after) - len(before) <= 3 * (len(SECONDS) + 4)


def test_a_plugins_metric_cannot_take_a_name_of_ours():
    metrics = Metrics()
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        prometheus_client.Counter("weir_requests", "mine", registry=metrics.registry)


def test_overhead_is_what_was_ours():
    metrics, exchange = Metrics(), testing.exchange()
    exchange.started, exchange.request.waited = 100.0, 2.0
    exchange.ended, exchange.outcome = 102.25, Outcome.REJECTED
    metrics.exchange_ended(exchange)
    found = {sample.name: sample.value for family in metrics.registry.collect() for sample in family.samples}
    assert found["weir_overhead_seconds_sum"] == pytest.approx(0.25)
    assert found["weir_request_duration_seconds_sum"] == pytest.approx(2.25)
