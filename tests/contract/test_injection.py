"""Field case 107: no value that somebody sends becomes a header field, a log line or a metric of its own."""

import contextlib
import io
import logging

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import testing
from proxy.logs import JsonLines
from tests import wire
from tests.contract.double import CHAT, OK, asks, at_rest, says, upstream, weir

EVIL = [
    "a\r\nx-evil: 1",
    "a\nx-evil: 1",
    "a\rx-evil: 1",
    "a\r\n\r\nHTTP/1.1 200 OK\r\nx-evil: 1\r\n\r\n",
    "a\r\n x-evil: 1",
    "\u560d\u560ax-evil: 1",  # their low bytes are CR and LF
    "\u2028x-evil: 1\u2029\x85",
    "a\x00x-evil: 1",
    "\x1b[2J\x1b]0;evil\x07\x7f",
    '"}\n{"log":"access","status":200}',
    '"\n# TYPE evil counter\nevil 1\n',
    "%0d%0ax-evil:%201",
    "\\r\\nx-evil: 1",
    "../../evil?x-evil=1#x",
    "a" * 5000,
]
MODELS = [*EVIL, *(f"azure/{evil}" for evil in EVIL)]
OWN = {b"x-weir-request-id", b"x-request-id", b"x-weir-route", b"x-weir-upstream", b"x-weir-attempts"}
PLAIN = OWN | {b"content-type", b"content-length", b"connection"}
CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams:
  up: {{base_url: "{url}/v1"}}
  azure: {{kind: azure, base_url: "{url}", api_key: sk-azure, api_version: "2025-01-01"}}
plugins:
  - metering: {{ledger: stdout}}
  - guard: {{models: ["azure*", "any*", "[!x]*"], aliases: {{any: "any-1"}}}}
routes:
  - {{name: azure, match: {{model: "azure*"}}, targets: [azure]}}
  - {{name: any, match: {{model: "any*"}}, targets: [up]}}
  - {{name: files, match: {{path: "/v1/files/*"}}, targets: [up]}}
"""


@contextlib.contextmanager
def logged():
    """What all loggers write to stderr meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextlib.asynccontextmanager
async def house():
    """Its upstream, Weir, and all that it wrote to stdout and stderr."""
    stdout = io.BytesIO()
    async with upstream(OK) as double:
        with logged() as stderr:
            async with testing.configured(CONFIG.format(url=double.url), stdout) as proxy:
                yield double, proxy, lambda: (stdout.getvalue().decode(), stderr.getvalue())


def is_clean(answer):
    names = {name.lower() for name, _ in answer.head.fields}
    assert names <= PLAIN, names
    assert all(value.isascii() and value.decode().isprintable() for _, value in answer.head.fields)
    assert answer.status in (200, 400, 403, 404)
    assert answer.is_whole


def records(text):
    return [orjson.loads(line) for line in text.split("\n") if line]


async def test_no_model_name_gets_out_of_its_value():
    """Into error messages, an upstream's path, the ledger and the logs."""
    async with house() as (double, proxy, written):
        for model in MODELS:
            body = orjson.dumps({"model": model, "messages": []})
            is_clean(await wire.fetch(proxy.url, asks(f"POST {CHAT}", "Content-Type: application/json", body=body)))
        await at_rest(proxy)
        heads = [request.head for request in double.requests]
        page = (await wire.fetch(proxy.admin_url, asks("GET /metrics"))).body.decode()
    assert len(heads) > len(EVIL) / 2
    for head in heads:
        assert head.start.startswith(b"POST /openai/deployments/azure%2F")
        assert head.start.isascii()
        assert head.start.decode().isprintable()
        assert {name.lower() for name, _ in head.fields} == {b"host", b"content-type", b"content-length", b"api-key"}
    stdout, stderr = written()
    assert sum(record["log"] == "access" for record in records(stdout)) == len(MODELS)
    assert all(record["log"] in {"access", "ledger"} for record in records(stdout))
    assert all(record["logger"] != "evil" for record in records(stderr))
    assert "evil" not in {family.name for family in text_string_to_metric_families(page)}
    assert "evil" not in page


@pytest.mark.parametrize("name", ["x-weir-user", "x-request-id", "traceparent", "user-agent", "openai-organization"])
async def test_no_field_of_a_request_gets_out_of_its_value(name):
    """Those with controls are no HTTP (a whole line end makes two fields of it anywhere); the rest goes up as it is."""
    said = [evil for evil in EVIL if "\r\n" not in evil]
    async with house() as (double, proxy, written):
        for evil in said:
            answer = await wire.fetch(proxy.url, asks("GET /v1/files/f", f"{name}: {evil}"))
            is_clean(answer)
            assert (answer.status == 200) == (not any(ord(letter) < 32 or letter == "\x7f" for letter in evil)), evil
        await at_rest(proxy)
        for request in double.requests:
            assert {field.lower() for field, _ in request.head.fields} == {b"host", name.encode()}
            assert request.head.all(name)[0].decode() in said
    stdout, _ = written()
    assert sum(record["log"] == "access" for record in records(stdout)) == len(said)
    assert all(len(line) < 12_000 for line in stdout.split("\n"))


async def test_no_path_gets_out_of_its_line():
    async with house() as (double, proxy, written):
        for evil in (*EVIL, "\xff\xfe", "ü☺"):
            is_clean(await wire.fetch(proxy.url, asks(f"GET /v1/files/{evil}")))
        await at_rest(proxy)
        assert all(request.head.start.count(b" ") == 2 for request in double.requests)
        assert all({name.lower() for name, _ in r.head.fields} == {b"host"} for r in double.requests)
    stdout, _ = written()
    assert sum(record["log"] == "access" for record in records(stdout)) == len(EVIL) + 2


@pytest.mark.parametrize(
    "field",
    [
        b"X: a\rX-Evil: 1",
        b"X: a\0b",
        b"X: a\x01b",
        b"X-Weir-Route: evil",
        b"X-Weir-Evil: 1",
        b"X : a",
        b"X: a\r\n X-Evil: 1",
    ],
)
async def test_no_field_of_an_answer_gets_out_of_its_value(field):
    answer = b"HTTP/1.1 200 OK\r\n" + field + b"\r\nContent-Length: 2\r\n\r\n{}"
    async with upstream(says(answer)) as double, weir(double.url) as proxy:
        got = await wire.fetch(proxy.url, asks("GET /v1/models"))
    assert got.status in (200, 502)
    assert got.head.all("x-evil") == got.head.all("x-weir-evil") == []
    assert got.head.all("x-weir-route") == [b"default"]
    assert not any(mark in value for _, value in got.head.fields for mark in (b"\r", b"\n", b"\0"))


@pytest.mark.parametrize("reason", [b"OK\rX-Evil: 1", b"OK\0", b"OK\x1b[2J", b"\xff", b""])
async def test_no_reason_gets_out_of_its_line(reason):
    answer = b"HTTP/1.1 200 " + reason + b"\r\nContent-Length: 2\r\n\r\n{}"
    async with upstream(says(answer)) as double, weir(double.url) as proxy:
        got = await wire.fetch(proxy.url, asks("GET /v1/models"))
    assert got.status in (200, 502)
    assert got.head.all("x-evil") == []
    assert b"\r" not in got.head.reason
