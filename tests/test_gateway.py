"""However an exchange ends: one completion, one access line, one count, all with the same outcome (DESIGN §10)."""

import asyncio
import contextlib
import io
import re
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from proxy import app, gateway, testing
from proxy.plugin import Outcome, Plugin, PluginConfig, Rejected, Response
from proxy.testing import chat_event, chat_events
from tests import wire

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": []}
DONE = b"data: [DONE]\n\n"
COUNTED = re.compile(
    rb'^weir_requests_total\{endpoint="([^"]*)",outcome="([^"]*)",route="([^"]*)"\} (\S+)$', re.MULTILINE
)
ENDINGS: list[str] = []
HELD: list[Any] = []


class Witness(Plugin[PluginConfig]):
    """Stands first in the chain and keeps how each exchange ended."""

    async def on_complete(self, exchange, outcome):
        assert exchange.outcome is outcome
        ENDINGS.append(f"{exchange.id} {outcome}")


class TroubleConfig(PluginConfig):
    does: str


class Trouble(Plugin[TroubleConfig]):
    Config = TroubleConfig

    async def on_request(self, exchange):
        match self.config.does:
            case "refuse":
                raise Rejected("not today")
            case "answer":
                return Response.of_json(200, {"by": "plugin"})
            case "fail":
                raise RuntimeError("sk-secret")
            case "wait":
                await asyncio.sleep(30)
            case "hold":
                exchange.hold()
                HELD.append(exchange)
        return None

    async def on_response(self, exchange, response):
        if self.config.does == "fail late":
            raise RuntimeError("sk-secret")


@pytest.fixture(autouse=True)
def _no_endings():
    ENDINGS.clear()


@dataclass
class House:
    upstream: testing.Upstream
    weir: app.Weir
    log: io.BytesIO = field(default_factory=io.BytesIO)

    def counts(self):
        """(route, endpoint, outcome) -> how often."""
        found = COUNTED.findall(self.weir.metrics.page())
        return {(route.decode(), end.decode(), out.decode()): float(count) for end, out, route, count in found}

    def gauge(self, name):
        values = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.weir.metrics.page().decode(), re.MULTILINE)
        return [float(value) for value in values]


@contextlib.asynccontextmanager
async def house(script, *, does="", settings="", match=""):
    log = io.BytesIO()
    chain = [{"witness": {"use": f"{__name__}:Witness"}}]
    if does:
        chain.append({"trouble": {"use": f"{__name__}:Trouble", "does": does}})
    async with testing.upstream(script) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0", max_request_bytes: 100KB}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1"{", " if settings else ""}{settings}}}}}\n'
            f"plugins: {orjson.dumps(chain).decode()}\n"
            f"routes: [{{name: main, match: {{{match}}}, targets: [up]}}]\n"
        )
        async with testing.configured(text, log) as weir:
            yield House(upstream, weir, log)


def lines(home):
    return [orjson.loads(line) for line in home.log.getvalue().splitlines()]


async def is_over(home):
    await wire.until(lambda: not home.weir.in_flight and home.counts())


def ended_once(home, outcome, *, route="main", endpoint="chat", completes=True):
    """To be asked after Weir has stopped, when everything has been written."""
    assert home.counts() == {(route, endpoint, outcome): 1.0}
    [line] = lines(home)
    assert line["outcome"] == outcome
    assert line["route"] == (None if route == "none" else route)
    assert ([f"{line['id']} {outcome}"] if completes else []) == ENDINGS
    assert set(home.gauge("weir_in_flight_requests")) <= {0.0}
    assert home.gauge("weir_upstream_in_flight") == [0.0]
    return line


async def garbage(received, up):
    await up.send(b"SSH-2.0-OpenSSH_9.9\r\n")


async def silence(received, up):
    await up.gone.wait()


async def hang_up(received, up):
    up.close()


async def cut_json(received, up):
    await up.send(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id": "')
    up.close()


async def stalled_stream(received, up):
    await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", chat_event({"content": "a"}))
    await up.gone.wait()


ERROR_EVENT = b'data: {"error": {"message": "overloaded", "type": "server_error", "code": 503}}\n\n'


@dataclass
class Ending:
    name: str
    script: Any
    status: int
    outcome: str
    code: str | None = None
    is_whole: bool = True
    settings: str = ""
    does: str = ""
    body: Any = field(default_factory=lambda: dict(ASK))
    attempts: int = 1


JSON, STREAM = testing.chat("hello there"), {**ASK, "stream": True}
ENDS = [
    Ending("an answer", JSON, 200, "ok"),
    Ending("a stream", JSON, 200, "ok", body=STREAM),
    Ending("a stream without [DONE] but with its finish", testing.stream(*chat_events(["a"])[:-1]), 200, "ok"),
    Ending("an answer without a body", testing.answer(b"", status=204), 204, "ok"),
    Ending("a redirect", testing.answer(b"", status=302), 302, "ok"),
    Ending("upstream 400", testing.answer(b'{"error": {}}', status=400), 400, "client_error"),
    Ending("upstream 401", testing.answer(b'{"error": {}}', status=401), 401, "client_error"),
    Ending("upstream 404", testing.answer(b'{"error": {}}', status=404), 404, "client_error"),
    Ending("upstream 429", testing.answer(b'{"error": {}}', status=429), 429, "client_error"),
    Ending("upstream 500", testing.answer(b'{"error": {}}', status=500), 500, "upstream_error"),
    Ending(
        "upstream 503 in HTML", testing.answer(b"<p>no", status=503, content_type="text/html"), 503, "upstream_error"
    ),
    Ending("upstream 529", testing.answer(b"", status=529), 529, "upstream_error"),
    Ending("garbage", garbage, 502, "upstream_error", "upstream_bad_answer"),
    Ending("closed without a word", hang_up, 502, "upstream_error", "upstream_closed"),
    Ending("too slow", silence, 504, "upstream_error", "upstream_timeout", settings="timeouts: {first_byte: 50ms}"),
    Ending(
        "too slow altogether", silence, 504, "upstream_error", "upstream_timeout", settings="timeouts: {total: 50ms}"
    ),
    Ending("cut JSON", cut_json, 200, "stream_interrupted", "upstream_stream_interrupted", is_whole=False),
    Ending(
        "cut stream",
        testing.stream(*chat_events(["a"], ends=False), ends=False),
        200,
        "stream_interrupted",
        "upstream_stream_interrupted",
        is_whole=False,
    ),
    Ending(
        "a stream that ends in order but is not whole",
        testing.stream(*chat_events(["a"], ends=False)),
        200,
        "stream_interrupted",
        "upstream_stream_interrupted",
        is_whole=False,
    ),
    Ending(
        "silence in a stream",
        stalled_stream,
        200,
        "stream_interrupted",
        "upstream_timeout",
        is_whole=False,
        settings="timeouts: {idle: 50ms}",
    ),
    Ending(
        "an error in a stream", testing.stream(chat_event({"content": "a"}), ERROR_EVENT), 200, "stream_interrupted"
    ),
    Ending("a policy's refusal", JSON, 403, "rejected", "forbidden", does="refuse", attempts=0),
    Ending("a plugin's answer", JSON, 200, "ok", does="answer", attempts=0),
    Ending("a plugin that fails", JSON, 500, "upstream_error", "plugin_failed", does="fail", attempts=0),
    Ending("a plugin that fails on the answer", JSON, 500, "upstream_error", "plugin_failed", does="fail late"),
]


@pytest.mark.parametrize("case", ENDS, ids=lambda case: case.name)
async def test_every_way_of_ending_is_told_exactly_once(case):
    async with house(case.script, does=case.does, settings=case.settings) as home:
        answer = await testing.ask(home.weir, case.body)
        await is_over(home)
    line = ended_once(home, case.outcome)
    assert (answer.status, answer.is_whole) == (case.status, case.is_whole)
    assert answer.headers["x-weir-request-id"] == line["id"]
    assert (line["status"], line["error"], line["attempts"]) == (case.status, case.code, case.attempts)
    assert line["bytes"] == len(answer.body)
    assert b"sk-secret" not in answer.body


@pytest.mark.parametrize(
    ("body", "path", "headers", "status", "code"),
    [
        (ASK, "/other", {}, 404, "no_route"),
        (ASK, "/v1/../x", {}, 400, "bad_target"),
        (b"x" * 100_001, CHAT, {}, 413, "request_too_large"),
        (ASK, CHAT, {"host": "a@b"}, 400, "bad_target"),
    ],
)
async def test_our_own_refusals_at_the_door_are_the_clients_faults(body, path, headers, status, code):
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = {"host": "localhost", **headers, "content-length": str(len(data)), "content-type": "application/json"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with house(JSON, match='path: "/v1/*"') as home:
        answer = await wire.fetch(home.weir.url, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        await is_over(home)
        endpoint = "chat" if path == CHAT else "other"
    line = ended_once(home, "client_error", route="none", endpoint=endpoint, completes=code == "no_route")
    assert (answer.status, line["status"], line["error"], line["upstream"]) == (status, status, code, None)
    assert not home.upstream.requests


async def test_json_that_a_rule_cannot_read_is_the_clients_fault():
    async with house(JSON, match="model: m") as home:
        assert (await testing.ask(home.weir, b"{")).status == 400
        await is_over(home)
    assert ended_once(home, "client_error", route="none")["error"] == "invalid_json"


async def test_an_upstream_that_is_not_there_is_a_502_that_names_it():
    async with testing.upstream(JSON) as gone:
        pass
    log = io.BytesIO()
    text = (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{gpu: {{base_url: "{gone.url}/secret/v1", api_key: sk-secret}}}}\n'
        f'plugins: [{{witness: {{use: "{__name__}:Witness"}}}}]\n'
        "routes: [{name: main, targets: [gpu]}]\n"
    )
    async with testing.configured(text, log) as weir:
        home = House(gone, weir, log)
        answer = await testing.ask(weir, ASK)
        await is_over(home)
    line = ended_once(home, "upstream_error")
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"]) == (502, "upstream_error", "upstream_unreachable")
    assert "'gpu'" in error["message"]
    assert "secret" not in answer.body.decode() + str(line)


LEAVING = [
    ("before the answer", silence, "", None),
    ("in a plugin", JSON, "wait", None),
    ("in the stream", stalled_stream, "", 200),
]


@pytest.mark.parametrize(("when", "script", "does", "status"), LEAVING, ids=[row[0] for row in LEAVING])
async def test_an_app_that_leaves_is_told_once_and_frees_the_upstream(when, script, does, status):
    request = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}" % CHAT.encode()
    async with house(script, does=does) as home:
        async with wire.connected(home.weir.url) as client:
            await client.send(request)
            if status:
                await (await client.start("POST")).until(b"}\n\n")
            else:
                await wire.until(lambda: home.weir.in_flight and (does or home.upstream.requests))
            client.leave()
        await is_over(home)
        if not does:
            await asyncio.wait_for(home.upstream.wires[0].gone.wait(), 5)
        await wire.until(lambda: ENDINGS)
    line = ended_once(home, "client_abort")
    assert line["status"] == status


async def test_a_drained_upstream_is_read_to_its_end():
    go_on, sent = asyncio.Event(), asyncio.Event()
    first, *rest = chat_events(["a"] * 20)

    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
        await go_on.wait()
        await up.send(*rest)
        assert not up.gone.is_set()
        up.close()
        sent.set()

    async with house(script, settings="on_disconnect: drain") as home:
        async with wire.connected(home.weir.url) as client:
            await client.send(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}" % CHAT.encode())
            await (await client.start("POST")).until(b"}\n\n")
            client.leave()
        await wire.until(lambda: home.weir.gateway._drains)
        assert not home.counts()
        go_on.set()
        await asyncio.wait_for(sent.wait(), 5)
        await is_over(home)
    ended_once(home, "client_abort")


async def test_no_more_than_so_many_answers_are_read_for_nobody(monkeypatch):
    monkeypatch.setattr(gateway, "MAX_DRAINS", 0)
    async with house(stalled_stream, settings="on_disconnect: drain") as home:
        async with wire.connected(home.weir.url) as client:
            await client.send(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}" % CHAT.encode())
            await (await client.start("POST")).until(b"}\n\n")
            client.leave()
        await asyncio.wait_for(home.upstream.wires[0].gone.wait(), 5)
        await is_over(home)
    ended_once(home, "client_abort")


async def test_many_at_once_are_each_told_once():
    async with house(JSON) as home:
        bodies = [{**ASK, "stream": bool(number % 2)} for number in range(40)]
        answers = await asyncio.gather(*(testing.ask(home.weir, body) for body in bodies))
        await wire.until(lambda: not home.weir.in_flight)
    assert {answer.status for answer in answers} == {200}
    assert home.counts() == {("main", "chat", "ok"): 40.0}
    identities = [line["id"] for line in lines(home)]
    assert len(set(identities)) == len(identities) == 40
    assert sorted(ENDINGS) == sorted(f"{identity} {Outcome.OK}" for identity in identities)
    assert set(identities) == {answer.headers["x-weir-request-id"] for answer in answers}


async def held(home):
    """An app that has left, and whose exchange a plugin holds."""
    async with wire.connected(home.weir.url) as client:
        await client.send(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}" % CHAT.encode())
        await wire.until(lambda: home.upstream.requests)
        client.leave()
    await wire.until(lambda: HELD[-1].goes_on)
    assert home.weir.in_flight == 1
    return HELD[-1]


async def test_what_a_plugin_holds_goes_on_without_its_app():
    """Also when it has left before the upstream said a word."""
    go_on = asyncio.Event()

    async def script(received, up):
        await go_on.wait()
        await JSON(received, up)

    async with house(script, does="hold") as home:
        await held(home)
        go_on.set()
        await is_over(home)
        assert not home.upstream.wires[0].gone.is_set()
    assert ended_once(home, "client_abort")["status"] == 200


async def test_what_nobody_holds_any_longer_stops_at_once():
    async with house(silence, does="hold") as home:
        (await held(home)).release()
        await asyncio.wait_for(home.upstream.wires[0].gone.wait(), 1)
        await is_over(home)
    ended_once(home, "client_abort")


async def test_a_stop_ends_what_goes_on_for_nobody():
    async with house(silence, does="hold") as home:
        await held(home)
    ended_once(home, "client_abort")
