"""Logs are JSON lines that hold nothing secret."""

import io
import logging
import re

import orjson
import pytest

from proxy import logs, testing
from proxy.logs import SHOWN_PATH, JsonLines, access_line
from proxy.plugin import Plugin, PluginConfig
from proxy.response import Response
from tests import wire

CANARY = "c4nary-5ecret"


def ended(target="/v1/chat/completions"):
    exchange = testing.exchange(target=target)
    exchange.route, exchange.outcome = "default", "ok"
    exchange.started, exchange.ended, exchange.first_token_at = 10.0, 10.5, 10.12345
    exchange.response, exchange.response_bytes = Response(200), 42
    return exchange


def formatted(**record):
    made = logging.makeLogRecord(
        {"name": "weir", "levelname": "WARNING", "msg": "hello %s", "args": ("you",), **record}
    )
    return orjson.loads(JsonLines().format(made))


def test_what_happened_is_a_json_line():
    line = formatted(created=0.5, upstream="up", count=3)
    assert line == {
        "time": "1970-01-01T00:00:00.500000+00:00",
        "level": "warning",
        "logger": "weir",
        "message": "hello you",
        "upstream": "up",
        "count": 3,
    }


def test_a_failure_has_its_trace_in_the_same_line():
    error = RuntimeError("oh\nno")
    line = formatted(exc_info=(type(error), error, None))
    assert "RuntimeError: oh\nno" in line["exception"]
    assert "exc_info" not in line


def test_a_value_that_json_does_not_know_is_shown_as_text():
    assert formatted(path=io.StringIO)["path"] == "<class '_io.StringIO'>"


def test_the_root_logger_writes_json_to_stderr(capsys):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.configure()
        logging.getLogger("any.library").warning("careful")
        logging.getLogger("any.library").debug("unheard")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert orjson.loads(capsys.readouterr().err)["message"] == "careful"


def test_an_access_line():
    line = orjson.loads(access_line(ended("/v1/models/org%2Fname?key=secret")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("time"))
    assert line == {
        "log": "access",
        "id": "req_test",
        "method": "POST",
        "path": "/v1/models/org%2Fname",
        "route": "default",
        "upstream": None,
        "attempts": 0,
        "status": 200,
        "outcome": "ok",
        "error": None,
        "bytes": 42,
        "duration_ms": 500.0,
        "ttft_ms": 123.45,
    }


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/a\udcffb", "/a?b"), ("/☺", "/☺"), ("/" + "x" * 1000, "/" + "x" * (SHOWN_PATH - 1)), ('/"\\', '/"\\')],
)
def test_a_path_of_any_bytes_makes_a_json_line(path, shown):
    assert orjson.loads(access_line(ended(path)))["path"] == shown


def test_a_path_that_a_plugin_hides_is_not_told():
    exchange = ended("/v1/models/secret")
    exchange.request.hide_path()
    assert b"secret" not in access_line(exchange)


async def test_what_was_not_flushed_is_written_at_the_end():
    out = io.BytesIO()
    text = 'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}\nupstreams: {{up: {{base_url: "{url}"}}}}\n'
    async with testing.upstream(testing.chat("hi")) as upstream:
        config = text.format(url=upstream.url) + "routes: [{name: default, targets: [up]}]\n"
        async with testing.configured(config, out) as weir:
            await testing.ask(weir, {"model": "m"})
    assert orjson.loads(out.getvalue())["status"] == 200


FAILURES = [
    testing.chat("fine"),
    testing.answer(f'{{"error": {{"message": "{CANARY}"}}}}'.encode(), status=500),
    testing.answer(f"<p>{CANARY}".encode(), status=502, content_type="text/html", x_secret=CANARY),
    testing.stream(testing.chat_event({"content": CANARY}), ends=False),
    testing.stream(f'data: {{"error": {{"message": "{CANARY}"}}}}\n\n'.encode()),
]


@pytest.mark.parametrize("script", FAILURES, ids=["fine", "JSON error", "HTML error", "cut", "error event"])
@pytest.mark.parametrize("does", ["", "raises"])
async def test_nothing_of_headers_queries_bodies_or_credentials_is_ever_logged(script, does, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    out = io.BytesIO()
    chain = f'[{{bad: {{use: "{__name__}:Bad"}}}}]' if does else "[]"
    async with testing.upstream(script) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1", api_key: {CANARY}-key}}}}\n'
            f"plugins: {chain}\nroutes: [{{name: default, targets: [up]}}]\n"
        )
        async with testing.configured(text, out) as weir:
            headers = {"authorization": f"Bearer {CANARY}", "cookie": CANARY, "x-any": CANARY, "user-agent": CANARY}
            body = {"model": CANARY, "messages": [{"role": "user", "content": CANARY}], "stream": True}
            await testing.ask(weir, body, path=f"/v1/chat/completions?key={CANARY}", headers=headers)
            await testing.ask(weir, f"{{{CANARY}".encode(), path=f"/v1//x?key={CANARY}", headers=headers)
            await wire.fetch(weir.url, f"{CANARY} nonsense\r\n\r\n".encode())
    formatter = JsonLines()
    told = "".join(formatter.format(record) for record in caplog.records) + "".join(capsys.readouterr())
    assert CANARY in str(upstream.last)
    assert CANARY not in told
    assert CANARY not in out.getvalue().decode()
    assert len(out.getvalue().splitlines()) == 3


class Bad(Plugin[PluginConfig]):
    async def on_response(self, exchange, response):
        raise ValueError("not what was expected")
