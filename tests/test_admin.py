"""The admin port: what it shows, what it never shows, and that nothing of it is on the data plane."""

import asyncio
import contextlib

import orjson
import pytest

from proxy import app, testing
from proxy.plugin import Plugin, PluginConfig
from tests import wire

SECRETS = ["sk-0ur-own-key", "redis-passw0rd"]
CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
redis: redis://:redis-passw0rd@127.0.0.1:1/0
upstreams:
  up: {{base_url: "{url}/v1", api_key: sk-0ur-own-key}}
  gpu: {{kind: tgi, base_url: "{url}"}}
plugins: [{{witness: {{use: "tests.test_admin:Quiet"}}}}]
routes:
  - {{name: chat, match: {{path: /v1/chat/completions}}, targets: [{{upstream: gpu, model: llama}}, up]}}
  - {{name: rest, targets: [up], plugins: {{witness: off}}}}
"""


def ask(path, method="GET"):
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()


async def admin(weir, path, method="GET"):
    return await wire.fetch(weir.admin_url, ask(path, method))


@contextlib.asynccontextmanager
async def house(script=None):
    async with (
        testing.upstream(script or testing.chat("hi")) as upstream,
        testing.configured(CONFIG.format(url=upstream.url)) as weir,
    ):
        yield upstream, weir


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_alive_and_ready(path):
    async with house() as (_, weir):
        answer = await admin(weir, path)
    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_weir_is_not_ready_before_apps_can_connect(monkeypatch):
    told = []

    async def late(weir, address, stack, serve=app._serve):
        told.append(await admin(weir, "/readyz"))
        return await serve(weir, address, stack)

    monkeypatch.setattr(app, "_serve", late)
    async with house() as (_, weir):
        told.append(await admin(weir, "/readyz"))
    assert [(answer.status, answer.body) for answer in told] == [(503, b"starting\n"), (200, b"ok\n")]


async def test_a_draining_weir_is_alive_and_not_ready():
    async with house() as (_, weir):
        await weir.drain(1)
        ready, alive = await admin(weir, "/readyz"), await admin(weir, "/livez")
        state = orjson.loads((await admin(weir, "/state")).body)
    assert (ready.status, ready.body) == (503, b"draining\n")
    assert alive.status == 200
    assert state["ready"] is False


async def test_readiness_asks_no_upstream():
    async with house() as (upstream, weir):
        for connection in upstream.wires:
            connection.close()
        assert (await admin(weir, "/readyz")).status == 200
    assert not upstream.requests


async def test_metrics_are_prometheus_text():
    async with house() as (_, weir):
        answer = await admin(weir, "/metrics")
    assert answer.head.get("content-type").startswith("text/plain; version=")
    assert b"# TYPE weir_requests_total counter" in answer.body


async def test_state():
    async with house() as (_, weir):
        answer = await admin(weir, "/state")
    state = orjson.loads(answer.body)
    assert answer.head.get("content-type") == "application/json"
    assert len(state["config"].pop("hash")) == 16
    assert state["config"].pop("file").endswith("config.yaml")
    pool = {"open": 0, "idle": 0, "waiting": 0}
    assert state == {
        "config": {"reload": None, "generations": 1},
        "ready": True,
        "in_flight": 0,
        "routes": [
            {
                "name": "chat",
                "plugins": ["witness"],
                "targets": [{"upstream": "gpu", "model": "llama"}, {"upstream": "up", "model": None}],
            },
            {"name": "rest", "plugins": [], "targets": [{"upstream": "up", "model": None}]},
        ],
        "upstreams": {
            "up": {"kind": "openai", "healthy": None, "in_flight": 0, "pool": pool},
            "gpu": {"kind": "tgi", "healthy": None, "in_flight": 0, "pool": pool},
        },
        "plugins": {"witness": None},
    }


class Telling(Plugin[PluginConfig]):
    def state(self):
        return {"told by": self.name}


class Failing(Plugin[PluginConfig]):
    def state(self):
        raise RuntimeError("no")


async def test_state_shows_what_plugins_tell(caplog):
    chain = [{name: {"use": f"{__name__}:{name.title()}"}} for name in ("telling", "quiet", "failing")]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, chain) as weir:
        state = orjson.loads((await admin(weir, "/state")).body)
        page = weir.metrics.page().decode()
    assert state["plugins"] == {"telling": {"told by": "telling"}, "quiet": None, "failing": None}
    assert 'weir_plugin_errors_total{plugin="failing"} 1.0' in page
    assert "plugin failed" in caplog.text


async def test_state_shows_what_is_under_way():
    async def script(received, up):
        await up.gone.wait()

    async with house(script) as (upstream, weir), wire.connected(weir.url) as client:
        await client.send(ask("/v1/models"))
        await wire.until(lambda: upstream.requests)
        state = orjson.loads((await admin(weir, "/state")).body)
    assert (state["in_flight"], state["upstreams"]["up"]["in_flight"]) == (1, 1)
    assert state["upstreams"]["up"]["pool"] == {"open": 1, "idle": 0, "waiting": 0}


async def test_no_page_shows_a_secret():
    async with house() as (_, weir):
        pages = [(await admin(weir, path)).body.decode() for path in ("/state", "/metrics", "/readyz", "/livez")]
    assert not [secret for secret in SECRETS if secret in "".join(pages)]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/v1/models", "GET", 404), ("/livez", "POST", 405), ("/state/x", "GET", 404)],
)
async def test_there_is_nothing_else(path, method, status):
    async with house() as (upstream, weir):
        assert (await admin(weir, path, method)).status == status
    assert not upstream.requests


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/state"])
async def test_on_the_data_plane_these_are_the_upstreams_paths(path):
    async with house(testing.answer(b'{"by": "upstream"}')) as (upstream, weir):
        answer = await wire.fetch(weir.url, ask(path))
    assert answer.body == b'{"by": "upstream"}'
    assert upstream.last.target == path


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/state"])
async def test_on_the_data_plane_these_are_404_where_no_route_has_them(path):
    text = CONFIG.partition("  - {{name: rest")[0]
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.configured(text.format(url=upstream.url)) as weir,
    ):
        answer = await wire.fetch(weir.url, ask(path))
    assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (404, "no_route")


async def test_a_slow_reader_of_the_admin_port_holds_up_nothing():
    async with house() as (_, weir), wire.connected(weir.admin_url) as client:
        await client.send(b"GET /livez HTTP/1.1\r\n")
        async with asyncio.timeout(5):
            assert (await admin(weir, "/livez")).status == 200


class Quiet(Plugin[PluginConfig]):
    """Does nothing."""


@pytest.mark.parametrize("path", ["/livez", "/state", "/metrics", "/nowhere"])
async def test_no_answer_tells_a_version(path):
    async with house() as (_, weir):
        assert (await admin(weir, path)).head.get("server") is None


async def test_a_drain_is_asked_for_by_post_and_does_not_end_it():
    go_on = asyncio.Event()
    first, *rest = testing.chat_events(["a", "b"])

    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
        await go_on.wait()
        await up.send(*rest)
        up.close()

    ask_one = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    async with house(script) as (_, weir), wire.connected(weir.url) as client:
        await client.send(ask_one)
        answer = await client.start("POST")
        await answer.until(first)
        assert (await admin(weir, "/drain")).status == 405
        assert (await admin(weir, "/readyz")).status == 200
        assert (await admin(weir, "/drain", "POST")).status == 202
        assert (await admin(weir, "/readyz")).status == 503
        go_on.set()
        assert (await answer.whole()).body == b"".join([first, *rest])
        assert (await admin(weir, "/drain", "POST")).status == 202
        late = await wire.fetch(weir.url, ask_one)
        assert (late.status, late.head.get("connection")) == (200, "close")
