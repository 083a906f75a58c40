"""Start and stop in order, ports that are taken, the demo's stand-in, and the drain."""

import asyncio
import contextlib
import io
import logging
import socket
import time

import orjson
import pytest

from proxy import app, testing
from proxy.lines import Lines
from proxy.plugin import BodyFilter, Plugin, PluginConfig
from proxy.source import ConfigError
from proxy.testing import chat_event, chat_events
from tests import wire

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
HAPPENED: list[str] = []


class OrderConfig(PluginConfig):
    fails: bool = False


class Order(Plugin[OrderConfig]):
    Config = OrderConfig

    @contextlib.asynccontextmanager
    async def lifespan(self, services):
        if self.config.fails:
            raise RuntimeError("the store is away")
        HAPPENED.append(f"{self.name} in")
        try:
            yield
        finally:
            HAPPENED.append(f"{self.name} out")

    async def on_request(self, exchange):
        HAPPENED.append(f"{self.name} asked")

    async def on_complete(self, exchange, outcome):
        await asyncio.sleep(0.01)
        HAPPENED.append(f"{self.name} completed")


class Holding(Plugin[PluginConfig]):
    async def on_response(self, exchange, response) -> BodyFilter | None:
        return None


class Quiet(Plugin[PluginConfig]):
    """Does nothing."""


@pytest.fixture(autouse=True)
def _nothing_happened():
    HAPPENED.clear()


def order(name, **settings):
    return {name: {"use": f"{__name__}:Order", **settings}}


def text(url, *, listen="127.0.0.1:0", admin="127.0.0.1:0", plugins=(), more=""):
    return (
        f'server: {{listen: "{listen}", admin: "{admin}"}}\n{more}'
        f'upstreams: {{up: {{base_url: "{url}/v1"}}}}\n'
        f"plugins: {orjson.dumps(list(plugins)).decode()}\nroutes: [{{name: default, targets: [up]}}]\n"
    )


def plan(folder, yaml, environ=None):
    file = folder / "config.yaml"
    file.write_text(yaml)
    return app.Plan.load(file, environ or {})


async def test_plugins_start_in_order_and_stop_in_reverse_after_their_last_completion():
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.configured(text(upstream.url, plugins=[order("a"), order("b")])) as weir,
    ):
        await testing.ask(weir, ASK)
    assert HAPPENED[:4] == ["a in", "b in", "a asked", "b asked"]
    assert sorted(HAPPENED[4:6]) == ["a completed", "b completed"]
    assert HAPPENED[6:] == ["b out", "a out"]


async def test_a_plugin_that_cannot_start_is_told_with_its_line_and_what_started_stops(caplog):
    yaml = text("http://127.0.0.1:1", plugins=[order("a"), order("b", fails=True)])
    with pytest.raises(ConfigError) as refused:
        async with testing.configured(yaml):
            pytest.fail("it started")
    assert ":3 plugins[1].b: plugin 'b' cannot start: RuntimeError: the store is away" in str(refused.value)
    assert HAPPENED == ["a in", "a out"]
    assert len(asyncio.all_tasks()) == 1


async def test_both_ports_answer_where_they_say(tmp_path):
    async with app.running(plan(tmp_path, text("http://127.0.0.1:1")), Lines(io.BytesIO())) as weir:
        assert (await wire.fetch(weir.admin_url, b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")).status == 200
        assert (await wire.fetch(weir.url, b"GET //x HTTP/1.1\r\nhost: a\r\n\r\n")).status == 400
    for url in (weir.url, weir.admin_url):
        with pytest.raises(ConnectionRefusedError):
            await wire.fetch(url, b"")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("", "http://127.0.0.1:80"),
        ("a", "http://a:80"),
    ],
)
def test_where_it_listens_as_a_client_would_write_it(host, url):
    assert app.url_of(host, 80) == url


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_port_in_use_stops_the_start_and_leaves_nothing_behind(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        yaml = text("http://127.0.0.1:1", **{which: address}, plugins=[order("a")])
        with pytest.raises(OSError, match="address already in use"):
            async with app.running(plan(tmp_path, yaml), Lines(io.BytesIO())):
                pytest.fail("it started")
    assert HAPPENED == ["a in", "a out"]
    assert len(asyncio.all_tasks()) == 1


async def test_nothing_is_left_after_a_stop():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.configured(text(upstream.url)) as weir:
        await asyncio.gather(*(testing.ask(weir, {**ASK, "stream": True}) for _ in range(5)))
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert weir.gateway.upstreams["up"].pool.open == 0


# -- the demo stands in


DEMO = """
server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}
upstreams: {openai: {base_url: "https://api.openai.com/v1", api_key: "${KEY:-}", without_api_key: demo}}
routes: [{name: default, targets: [openai]}]
"""


async def test_without_a_key_the_demo_answers_and_the_log_says_how_to_leave_it(tmp_path, caplog):
    async with app.running(plan(tmp_path, DEMO), Lines(io.BytesIO())) as weir:
        answer = await testing.ask(weir, ASK)
        url = weir.gateway.upstreams["openai"].settings.base_url
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert url.startswith("http://127.0.0.1:")
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == (
        "upstream 'openai' has no API key: the built-in demo answers; set the variable of its api_key in the environment, "
        "or another base_url, to reach a real one"
    )


async def test_with_a_key_it_does_not(tmp_path, caplog):
    async with app.running(plan(tmp_path, DEMO, {"KEY": "sk-1"}), Lines(io.BytesIO())) as weir:
        assert weir.gateway.upstreams["openai"].settings.base_url == "https://api.openai.com/v1"
    assert not caplog.records


# -- warnings


@pytest.mark.parametrize(
    ("yaml", "warnings"),
    [
        (text("http://a"), []),
        (text("http://a", plugins=[{"quiet": {"use": f"{__name__}:Quiet"}}]), []),
        (
            text("http://a", plugins=[{"pii": {"use": f"{__name__}:Holding"}}]),
            ["plugin 'pii' holds whole bodies: on streams its routes lose the time to the first token"],
        ),
        (
            text("http://a", more="redis: redis://127.0.0.1\n"),
            ["redis is set, but no plugin of this config keeps anything in a store"],
        ),
        (
            text("http://a", plugins=[{"cache": {"scope": "shared"}}]).replace("{listen", "{workers: 3, listen"),
            ["limits are divided by the 3 workers, each counts for itself; with redis they are exact"],
        ),
    ],
    ids=["none", "a quiet plugin", "a plugin that holds bodies", "redis for nobody", "workers"],
)
def test_what_works_but_not_as_one_may_think(tmp_path, yaml, warnings):
    assert plan(tmp_path, yaml).warnings() == warnings


# -- the drain


async def test_a_running_stream_completes_while_new_requests_are_told_that_the_connection_closes():
    go_on = asyncio.Event()
    first, *rest = chat_events(["a", "b"])

    async def script(received, up):
        if received.method == "GET":
            await up.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            return
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
        await go_on.wait()
        await up.send(*rest)
        up.close()

    async with testing.upstream(script) as upstream, testing.weir(upstream) as weir, wire.connected(weir.url) as client:
        await client.send(POST)
        answer = await client.start("POST")
        await answer.until(first)
        draining = asyncio.ensure_future(weir.drain(10))
        await wire.until(weir.readiness)
        other = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (other.status, other.body, other.head.get("connection")) == (200, b"ok", "close")
        assert not draining.done()
        go_on.set()
        message = await answer.whole()
        await asyncio.wait_for(draining, 5)
    assert (message.body, message.is_whole) == (b"".join([first, *rest]), True)


async def test_an_idle_weir_drains_at_once():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream) as weir:
        await testing.ask(weir, ASK)
        await asyncio.wait_for(weir.drain(600), 5)


async def test_what_still_streams_after_the_drain_ends_with_an_error_event():
    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", chat_event({"content": "a"}))
        await up.gone.wait()

    log = io.BytesIO()
    async with (
        testing.upstream(script) as upstream,
        testing.configured(text(upstream.url), log) as weir,
        wire.connected(weir.url) as client,
    ):
        await client.send(POST)
        answer = await client.start("POST")
        await answer.until(b"}\n\n")
        began = time.monotonic()
        await weir.drain(0.05)
        message = await answer.whole()
        assert time.monotonic() - began < 10
        await wire.until(lambda: not weir.in_flight)
    last = message.body.rstrip().splitlines()[-1]
    assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert not message.is_whole
    assert orjson.loads(log.getvalue())["outcome"] == "stream_interrupted"


async def test_a_stop_waits_for_no_answer_that_never_begins():
    async def script(received, up):
        await up.gone.wait()

    async with testing.upstream(script) as upstream:
        async with testing.weir(upstream) as weir, wire.connected(weir.url) as client:
            await client.send(POST)
            await wire.until(lambda: upstream.requests)
            await asyncio.wait_for(weir.drain(0.05), 5)
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 10
        await asyncio.wait_for(upstream.wires[0].gone.wait(), 5)


@pytest.mark.parametrize(
    ("yaml", "models"),
    [
        ("[{name: a, targets: [up]}]", set()),
        ("[{name: a, match: {model: m}, targets: [{upstream: up, model: big}]}]", {"m", "big"}),
        ('[{name: a, match: {model: "m*"}, targets: [up]}]', set()),
    ],
)
async def test_models_that_the_config_names_are_the_label_set(yaml, models):
    head = text("http://127.0.0.1:1").partition("routes:")[0]
    async with testing.configured(f"{head}routes: {yaml}\n") as weir:
        assert weir.metrics._models == models
