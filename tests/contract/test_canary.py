"""Field cases 29 and 30: canaries for secrets are nowhere to be found, whatever fails, with everything logged.

Ours at the upstream, sent in each way, must not come back; the caller's must not go up; neither may be told to others.
"""

from __future__ import annotations

import contextlib
import gzip
import html
import io
import logging
import re
import urllib.parse
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from proxy import cli, testing
from proxy.logs import JsonLines
from tests import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from proxy import app
    from proxy.testing import Received, Script, Wire

OURS = "sk-c4nary/Our-0wn+c4nary~=="
CALLERS = "sk-c4ller"
ASKED = "c4query"
SAID = "c4body"

WAYS = {
    "bearer": f'api_key: "{OURS}"',
    "a usual header": f'api_key: "{OURS}", api_key_in: header:x-goog-api-key',
    "a header of its own": f'api_key: "{OURS}", api_key_in: header:X-Team-Key',
    "query": f'api_key: "{OURS}", api_key_in: query:key',
    "a file": 'api_key: "${file:key}"',
    "a token's command": "token: {command: [cat, key], refresh: 1s}",
    "a token's file": "token: {file: token.json}",
    "passthrough": "auth: passthrough",
}
CREDENTIALS = [
    f"Authorization: Bearer {CALLERS}",
    f"Api-Key: {CALLERS}",
    f"X-API-Key: {CALLERS}",
    f"Cookie: sid={CALLERS}",
    f"X-Goog-Api-Key: {CALLERS}",
]


# -- an upstream that says whatever it was told


def heard(received: Received) -> str:
    fields = " ".join(f"{name.decode()}: {value.decode()}" for name, value in received.fields)
    return f"{received.method} {received.target} {fields}"


def as_json(received: Received) -> bytes:
    return orjson.dumps({"error": {"message": heard(received), "url": f"http://up{received.target}"}})


def as_codes(received: Received) -> bytes:
    return b'{"error":{"message":"%b"}}' % b"".join(b"\\u%04X" % ord(letter) for letter in heard(received))


def as_percents(received: Received) -> bytes:
    return orjson.dumps({"error": urllib.parse.quote(heard(received), safe="")})


def as_page(received: Received) -> bytes:
    return f"<html><body><h1>Forbidden</h1><p>{html.escape(heard(received))}</p></body></html>".encode()


def tells(
    say: Callable[[Received], bytes], status: int, content_type: str = "application/json", **fields: str
) -> Script:
    async def script(received: Received, up: Wire) -> None:
        told = heard(received).replace("\n", " ")
        body = b"" if received.method == "HEAD" else say(received)
        await testing.answer(body, status=status, content_type=content_type, x_heard=told, **fields)(received, up)

    return script


async def redirects(received: Received, up: Wire) -> None:
    await testing.answer(b"", status=307, location=f"https://elsewhere{received.target}")(received, up)


async def shouts(received: Received, up: Wire) -> None:
    await up.send(f"HTTP/1.1 401 Bad {heard(received)}\r\ncontent-length: 2\r\n\r\n{{}}".encode())


async def babbles(received: Received, up: Wire) -> None:
    await up.send(heard(received).encode())
    up.close()


async def is_silent(received: Received, up: Wire) -> None:
    await up.gone.wait()


async def resets(received: Received, up: Wire) -> None:
    up.reset()


def streams(*makes: Callable[[Received], bytes], ends: bool = True) -> Script:
    async def script(received: Received, up: Wire) -> None:
        first, *_ = testing.chat_events(["Hi"], ends=False)
        await testing.stream(first, *(make(received) for make in makes), pause=0.01, ends=ends)(received, up)

    return script


def event(received: Received) -> bytes:
    return b"data: " + as_json(received) + b"\n\n"


def named_event(received: Received) -> bytes:
    return b"event: error\r\ndata: " + as_codes(received) + b"\r\n\r\n"


def first_part(received: Received) -> bytes:
    """Up to the middle of the first credential in it."""
    return event(received)[: event(received).index(b"sk-c4") + 12]


def second_part(received: Received) -> bytes:
    return event(received)[len(first_part(received)) :]


GET, POST, HEAD = "GET", "POST", "HEAD"
FAILURES: dict[str, tuple[str, int, Script]] = {
    "400-page": (POST, 400, tells(as_page, 400, "text/html")),
    "401-json": (POST, 401, tells(as_json, 401)),
    "401-codes": (POST, 401, tells(as_codes, 401)),
    "401-percents": (GET, 401, tells(as_percents, 401)),
    "401-head": (HEAD, 401, tells(as_json, 401)),
    "401-reason": (GET, 401, shouts),
    "403-packed": (POST, 403, tells(lambda received: gzip.compress(as_json(received)), 403, content_encoding="gzip")),
    "403-opaque": (POST, 403, tells(lambda received: as_json(received)[::-1], 403, content_encoding="br")),
    "404-text": (GET, 404, tells(lambda received: heard(received).encode(), 404, "text/plain")),
    "500-half": (POST, 500, tells(lambda received: as_json(received)[:-5], 500)),
    "307": (GET, 307, redirects),
    "garbage": (POST, 502, babbles),
    "silence": (POST, 504, is_silent),
    "reset": (POST, 502, resets),
    "stream-error": (POST, 200, streams(event)),
    "stream-named-error": (POST, 200, streams(named_event)),
    "stream-error-in-parts": (POST, 200, streams(first_part, second_part)),
    "stream-cut": (POST, 200, streams(event, ends=False)),
    "stream-cut-within": (POST, 200, streams(first_part, ends=False)),
}
OWN = {
    "/gone/x": 502,
    "/v1/../x": 400,
    "/nowhere": 404,
    "/v1/by-model": 400,
    "/v1/large": 413,
}


async def fails(received: Received, up: Wire) -> None:
    await FAILURES[received.target.partition("?")[0].rpartition("/")[2]][2](received, up)


# -- the house, and everything that it says


class Heard:
    """All that left Weir but for what went to the upstream."""

    def __init__(self) -> None:
        self.answers: dict[str, wire.Message] = {}
        self.access = io.BytesIO()
        self.log = io.StringIO()
        self.pages: list[bytes] = []

    def texts(self) -> Iterator[tuple[str, str]]:
        for name, answer in self.answers.items():
            is_packed = answer.head.get("content-encoding") == "gzip"
            body = gzip.decompress(answer.body) if is_packed else answer.body
            yield f"the answer to {name}", repr((answer.head, answer.interim, answer.trailers)) + body.decode()
        yield "the access log", self.access.getvalue().decode()
        yield "the log", self.log.getvalue()
        for page in self.pages:
            yield "the admin port", page.decode()


def undone(text: str) -> str:
    """Without any escape, also where one hides another, so that no spelling hides a canary."""
    for _ in range(3):
        text = re.sub(r"\\u00([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})", lambda code: chr(int(code[1] or code[2], 16)), text)
    return html.unescape(text).replace("\\", "")


@contextlib.contextmanager
def logging_everything(out: io.StringIO) -> Iterator[None]:
    handler, root = logging.StreamHandler(out), logging.getLogger()
    handler.setFormatter(JsonLines())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def house(url: str, gone: str, settings: str) -> str:
    timeouts = "timeouts: {connect: 2s, first_byte: 300ms, idle: 2s}"
    return f"""
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0", max_request_bytes: 1000B}}
upstreams:
  up: {{base_url: "{url}/v1", {timeouts}, {settings}}}
  gone: {{base_url: "{gone}/v1", {timeouts}, {settings}}}
routes:
  - {{name: gone, match: {{path: "/gone/*"}}, targets: [gone]}}
  - {{name: by-model, match: {{path: /v1/by-model, model: m}}, targets: [up]}}
  - {{name: rest, match: {{path: "/v1/*"}}, targets: [up]}}
"""


@contextlib.asynccontextmanager
async def running(settings: str, everything: Heard, folder: Any) -> AsyncIterator[tuple[app.Weir, testing.Upstream]]:
    (folder / "key").write_text(f"{OURS}\n")
    (folder / "token.json").write_text(orjson.dumps({"access_token": OURS, "expires_in": 3600}).decode())
    settings = settings.replace("${file:key}", f"${{file:{folder / 'key'}}}").replace(
        "token.json", f"{folder / 'token.json'}"
    )
    settings = settings.replace("cat, key", f"cat, {folder / 'key'}")
    async with testing.upstream(fails) as gone:
        pass
    with logging_everything(everything.log):
        async with (
            testing.upstream(fails) as upstream,
            testing.configured(house(upstream.url, gone.url, settings), everything.access) as weir,
        ):
            yield weir, upstream
            for page in ("/metrics", "/state"):
                everything.pages.append((await wire.fetch(weir.admin_url, asking("GET", page))).body)


def asking(method: str, target: str, fields: Any = (), body: bytes = b"") -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: a", "Content-Type: application/json", *fields]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def run(settings: str, folder: Any) -> tuple[Heard, testing.Upstream]:
    """Every failure once, with every credential."""
    everything = Heard()
    body = orjson.dumps({"model": "m", "messages": [SAID]})
    credentials = [*CREDENTIALS, f"x-team-key: {CALLERS}"] if "X-Team-Key" in settings else CREDENTIALS
    query = f"a={ASKED}&key={CALLERS}" if "query:" in settings else f"a={ASKED}"
    async with running(settings, everything, folder) as (weir, upstream):
        for name, (method, status, _) in FAILURES.items():
            sent = asking(method, f"/v1/{name}?{query}", credentials, body if method == POST else b"")
            answer = everything.answers[name] = await wire.fetch(weir.url, sent)
            assert answer.status == status, name
        for path, status in OWN.items():
            content = body * 100 if path == "/v1/large" else b'{"model": ' + SAID.encode()
            answer = everything.answers[path] = await wire.fetch(
                weir.url, asking(POST, f"{path}?{query}", credentials, content)
            )
            assert answer.status == status, path
        sent = f"GET /v1/x?{ASKED} HTTP/1.1\r\nAuthorization : {CALLERS}\r\n\r\n".encode()
        everything.answers["bad HTTP"] = await wire.fetch(weir.url, sent)
        await wire.until(lambda: not weir.in_flight)
    return everything, upstream


@pytest.mark.parametrize("way", [way for way in WAYS if way != "passthrough"])
async def test_no_canary_is_found_whatever_fails(way: str, tmp_path: Any) -> None:
    everything, upstream = await run(WAYS[way], tmp_path)
    assert len(upstream.requests) == len(FAILURES)
    for received in upstream.requests:
        assert undone(heard(received)).count(OURS) == 1, "each request had its credential"
        assert "c4ller" not in undone(heard(received)), "the caller's stayed here"
    found = [
        (where, text) for where, text in everything.texts() for canary in ("c4nary", "c4ller") if canary in undone(text)
    ]
    assert found == []


async def test_what_the_caller_asked_for_is_told_to_nobody_else(tmp_path: Any) -> None:
    everything, _ = await run(WAYS["bearer"], tmp_path)
    told = [(where, text) for where, text in everything.texts() if not where.startswith("the answer")]
    assert [(where, text) for where, text in told for canary in (ASKED, SAID, "c4ller") if canary in text] == []
    own = [everything.answers[path] for path in (*OWN, "bad HTTP", "garbage", "silence", "reset")]
    assert not any(ASKED.encode() in answer.body or SAID.encode() in answer.body for answer in own)


async def test_with_passthrough_the_callers_goes_up_and_is_still_told_to_nobody_else(tmp_path: Any) -> None:
    everything, upstream = await run(WAYS["passthrough"], tmp_path)
    assert all(heard(received).count(CALLERS) == len(CREDENTIALS) for received in upstream.requests)
    told = [text for where, text in everything.texts() if not where.startswith("the answer")]
    assert not any("c4ller" in undone(text) for text in told)


def test_the_search_would_find_a_canary() -> None:
    received = testing.Received(
        "GET", f"/v1/x?key={urllib.parse.quote(OURS, safe='')}", [(b"Authorization", OURS.encode())]
    )
    for said in (as_json, as_codes, as_percents, as_page, event, named_event):
        assert undone(said(received).decode()).count(OURS) >= 2, said.__name__


WRONG = {
    "a broken key": f'api_key: "{OURS}\\nX: y"',
    "a key that is none": f"api_key: [{OURS}]",
    "two credentials": f'api_key: "{OURS}", token: {{file: x}}',
    "a key and passthrough": f'api_key: "{OURS}", auth: passthrough',
    "a key from a variable, in a place for others": 'api_key_in: "${CANARY}"',
    "a variable as a version": 'kind: azure, api_version: "${CANARY}&"',
    "a variable as a duration": 'token: {file: x, refresh: "${CANARY}"}',
    "a variable as a URL": 'kind: azure, base_url: "https://${CANARY}/openai"',
    "a key within a URL": f'base_url: "https://user:{OURS.replace("/", "")}@host"',
    "a key beside a typing error": f'api_key: "{OURS}", ap_key: x',
    "a variable as a command": 'token: {command: "${CANARY}"}',
    "a key from a broken file": 'api_key: "${file:key}", timeouts: {connect: "${file:key}"}',
}


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG)
def test_a_bad_config_is_told_without_its_secrets(settings: str, tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANARY", OURS)
    (tmp_path / "key").write_text(f"{OURS}\nand more")
    base = "" if "base_url" in settings else 'base_url: "https://host", '
    file = tmp_path / "config.yaml"
    file.write_text(f"upstreams:\n  up: {{{base}{settings}}}\nroutes: [{{name: all, targets: [up]}}]\n")
    assert cli.main(["check", str(file)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"{file}:2 upstreams.up")
    assert "c4nary" not in undone(said.out + said.err)
