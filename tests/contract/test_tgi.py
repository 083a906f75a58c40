"""A TGI server behind Weir: its routes, its errors with the status that they should have, and what passes as it came."""

from __future__ import annotations

import asyncio
import contextlib
import io
import pathlib

import openai
import orjson
import pytest

from proxy import testing
from tests import wire
from tests.contract.double import asks
from tests.contract.tgi_double import INFO, METRICS, WORDS, Tgi

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tgi"
"""Answers of real servers, where they are at hand; parsed by a client before they were recorded."""

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "Hi"}]
STREAM = {"stream": True}


class House:
    """Weir before TGI; the access lines are in `lines`."""

    def __init__(self, upstream, weir, log) -> None:
        self.upstream, self.weir, self._log = upstream, weir, log
        self._client = None

    @property
    def client(self):
        if self._client is None:
            self._client = openai.AsyncOpenAI(base_url=f"{self.weir.url}/v1", api_key="k", max_retries=0)
        return self._client

    async def aclose(self):
        if self._client is not None:
            await self._client.close()

    async def ask(self, body, path=CHAT, **headers):
        return await testing.ask(self.weir, body, path=path, headers=headers)

    async def direct(self, body, path=CHAT, **headers):
        class Direct:
            url = self.upstream.url

        return await testing.ask(Direct, body, path=path, headers=headers)

    async def get(self, path):
        return await wire.fetch(self.weir.url, asks(f"GET {path}"))

    async def ledger(self, count):
        """The last of so many lines of what was metered."""
        await wire.until(lambda: len(self._lines("tokens")) == count)
        return self._lines("tokens")[-1]

    def _lines(self, key):
        self.weir.gateway.settle()
        lines = [orjson.loads(line) for line in self._log.getvalue().splitlines()]
        return [line for line in lines if key in line]

    async def outcome(self):
        await wire.until(lambda: not self.weir.in_flight)
        self.weir.gateway.settle()
        await wire.until(lambda: self._log.getvalue().count(b"\n"))
        return orjson.loads(self._log.getvalue().splitlines()[-1])["outcome"]


@contextlib.asynccontextmanager
async def house(script=None, plugins=(), settings="", **quirks):
    log = io.BytesIO()
    async with testing.upstream(script or Tgi(**quirks).script) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{gpu: {{kind: tgi, base_url: {upstream.url!r}{settings and ', '}{settings}}}}}\n"
            f"plugins: {orjson.dumps(list(plugins)).decode()}\nroutes: [{{name: default, targets: [gpu]}}]\n"
        )
        async with testing.configured(text, log) as weir, contextlib.aclosing(House(upstream, weir, log)) as home:
            yield home


def said(prompt: str, **more) -> dict:
    return {"model": "tgi", "messages": [{"role": "user", "content": prompt}], **more}


# -- routes


async def test_its_own_paths_pass():
    async with house() as home:
        for path in ("/", "/health", "/ping"):
            answer = await home.get(path)
            assert (answer.status, answer.body) == (200, b"")
        assert orjson.loads((await home.get("/info")).body) == INFO
        assert (await home.get("/metrics")).body == METRICS
        assert orjson.loads((await home.get("/v1/models")).body)["data"][0]["created"] == 0


NATIVE = {
    "/": ("/", {"inputs": "Hi you", "parameters": {"details": True}}),
    "/, streamed": ("/", {"inputs": "Hi you", "stream": True}),
    "/generate": ("/generate", {"inputs": "Hi you", "parameters": {"max_new_tokens": 3, "details": True}}),
    "/generate_stream": ("/generate_stream", {"inputs": "Hi you", "parameters": {"details": True}}),
    "/invocations": ("/invocations", {"inputs": "Hi you"}),
    "/invocations, chat": ("/invocations", said("Hi")),
    "/invocations, streamed chat": ("/invocations", said("Hi", stream=True, tools=[{}])),
    "/tokenize": ("/tokenize", {"inputs": "Hi you"}),
    "/chat_tokenize": ("/chat_tokenize", said("Hi you")),
    "overloaded": ("/generate", {"inputs": "overloaded"}),
    "failed": ("/generate", {"inputs": "failed"}),
    "overloaded, streamed": ("/generate_stream", {"inputs": "overloaded"}),
    "fails later": ("/generate_stream", {"inputs": "later: failed"}),
    "invalid, streamed": ("/", {"inputs": "invalid", "stream": True}),
}


@pytest.mark.parametrize("quirks", [{}, {"space": False, "comments": 2, "pieces": 7}], ids=["3.x", "1.x, in pieces"])
@pytest.mark.parametrize(("path", "body"), NATIVE.values(), ids=NATIVE)
async def test_native_answers_pass_byte_for_byte(path, body, quirks):
    async with house(**quirks) as home:
        direct, through = await home.direct(body, path), await home.ask(body, path)
        received, forwarded = home.upstream.requests
    assert (through.status, through.body) == (direct.status, direct.body)
    assert forwarded.body == received.body
    told = {name: value for name, value in direct.headers.items() if name.lower().startswith(("x-", "content-type"))}
    assert {name: through.headers.get(name) for name in told} == told


REFUSALS = {
    "no JSON": (b"{", {}, 400, "Failed to parse the request body as JSON", "validation"),
    "no content type": (b"{}", {"content-type": "text/plain"}, 415, "Expected request with", "validation"),
    "too large": (b'{"inputs":"%b"}' % (b"x" * 20_000), {}, 413, "Failed to buffer", "validation"),
    "wrong type": (b'{"inputs":"x","stop":"x"}', {}, 422, "Failed to deserialize", "validation"),
    "wrong key": (b'{"inputs":"x"}', {"authorization": "Bearer other"}, 401, "Unauthorized", "refused"),
}


@pytest.mark.parametrize(("body", "headers", "status", "message", "word"), REFUSALS.values(), ids=REFUSALS)
async def test_what_the_framework_refuses_is_told_in_tgis_shape_on_native_routes(body, headers, status, message, word):
    async with house(api_key="k", settings="auth: passthrough") as home:
        answer = await home.ask(body, "/generate", **{"authorization": "Bearer k", **headers})
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["error"].startswith(message)
    assert answer.json()["error_type"] == word


@pytest.mark.parametrize(("body", "headers", "status", "message", "word"), REFUSALS.values(), ids=REFUSALS)
async def test_and_in_openais_on_openais(body, headers, status, message, word):
    async with house(api_key="k", settings="auth: passthrough") as home:
        answer = await home.ask(body, CHAT, **{"authorization": "Bearer k", **headers})
    assert answer.status == (400 if status == 422 else status)
    error = answer.json()["error"]
    assert message in error["message"] or status == 401
    assert error["type"] == ("upstream_error" if status == 401 else "invalid_request_error")


# -- what is counted

DETAILS = {"details": True, "max_new_tokens": 3}
COUNTED = {
    "/": ("/", {"inputs": "Hi you", "parameters": DETAILS}, (2, 3, False)),
    "/, prefill": ("/", {"inputs": "Hi you", "parameters": {**DETAILS, "decoder_input_details": True}}, (2, 3, False)),
    "/, streamed": ("/", {"inputs": "Hi you", "stream": True, "parameters": DETAILS}, (2, 3, False)),
    "/generate": ("/generate", {"inputs": "Hi you"}, (2, 7, False)),
    "/generate_stream": ("/generate_stream", {"inputs": "Hi you", "parameters": DETAILS}, (2, 3, False)),
    "/generate_stream, without details": ("/generate_stream", {"inputs": "Hi you!!"}, (2, 7, True)),
    "/invocations": ("/invocations", {"inputs": "Hi you"}, (2, 7, False)),
    "/invocations, chat": ("/invocations", said("Hi", max_tokens=3), (5, 3, False)),
    "chat": (CHAT, said("Hi", max_tokens=3), (5, 3, False)),
    "chat, streamed": (CHAT, said("Hi", **STREAM), (5, 7, False)),
    "prompts": (COMPLETIONS, {"prompt": ["a", "b c"], "max_tokens": 2, **STREAM}, (3, 4, False)),
    "overloaded": ("/generate", {"inputs": "overloaded"}, (0, 0, False)),
    "overloaded, streamed": ("/generate_stream", {"inputs": "overloaded"}, (0, 0, False)),
    "overloaded chat": (CHAT, said("overloaded", **STREAM), (0, 0, False)),
    "/tokenize": ("/tokenize", {"inputs": "Hi you"}, (0, 0, False)),
    "/info": ("/info", None, (0, 0, False)),
}


@pytest.mark.parametrize("settings", ["", "normalize: false"], ids=["normalized", "as it came"])
async def test_tokens_are_counted_on_every_route(settings):
    async with house(plugins=[{"metering": {"ledger": "stdout"}}], settings=settings) as home:
        for place, (name, (path, body, tokens)) in enumerate(COUNTED.items(), 1):
            await (home.get(path) if body is None else home.ask(body, path))
            line = await home.ledger(place)
            assert (name, (line["tokens"]["input"], line["tokens"]["output"], line["estimated"])) == (name, tokens)


async def test_limits_count_native_routes_as_they_do_chats():
    limit = {"rate_limit": {"by": "route", "requests": "3/hour", "tokens": "1000/hour"}}
    async with house(plugins=[limit]) as home:
        asked = [("/generate", {"inputs": "Hi you"}), ("/generate_stream", {"inputs": "Hi you", "parameters": DETAILS})]
        for path, body in (*asked, (CHAT, said("Hi", max_tokens=3))):
            assert (await home.ask(body, path)).status == 200
            await home.outcome()
        refused = await home.ask({"inputs": "Hi you"}, "/")
    assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(1000 - 9 - 5 - 8, abs=1)


# -- errors on OpenAI's routes


ERRORS = {
    "overloaded": (429, "overloaded_error", "overloaded", "client_error"),
    "failed": (500, "server_error", "generation", "upstream_error"),
    "incomplete": (500, "server_error", "incomplete_generation", "upstream_error"),
    "invalid": (400, "invalid_request_error", "validation", "client_error"),
    "too long": (400, "invalid_request_error", "context_length_exceeded", "client_error"),
    "no tool": (400, "invalid_request_error", "tool_error", "client_error"),
    "no template": (400, "invalid_request_error", "template_error", "client_error"),
}


@pytest.mark.parametrize("streams", [False, True], ids=["JSON", "stream"])
@pytest.mark.parametrize(("prompt", "told"), ERRORS.items(), ids=ERRORS)
async def test_errors_have_openais_shape_and_the_right_status(prompt, told, streams):
    """In a stream they came behind a 200, as `http_status_code: 422` whatever they are."""
    async with house() as home:
        answer = await home.ask(said(prompt, stream=streams))
        direct = await home.direct(said(prompt, stream=streams))
        outcome = await home.outcome()
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"], outcome) == told
    assert orjson.dumps(error["message"]) in direct.body
    assert answer.headers["content-type"] == "application/json"
    assert direct.status == (200 if streams and prompt != "no template" else direct.status)


@pytest.mark.parametrize("quirks", [{"pieces": 1}, {"space": False, "pieces": 5}], ids=["bytes", "no space"])
async def test_an_error_in_pieces(quirks):
    async with house(**quirks) as home:
        answer = await home.ask({"model": "m", "prompt": "too long", "stream": True}, COMPLETIONS)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


EXCEPTIONS = {
    "overloaded": openai.RateLimitError,
    "failed": openai.InternalServerError,
    "invalid": openai.BadRequestError,
}


@pytest.mark.parametrize(("prompt", "exception"), EXCEPTIONS.items(), ids=EXCEPTIONS)
async def test_openais_client_raises_what_it_should(prompt, exception):
    async with house() as home:
        with pytest.raises(exception):
            await home.client.chat.completions.create(**said(prompt, stream=True))


async def test_once_the_header_is_down_an_error_is_told_in_the_stream():
    """A keep-alive has passed: the app has its 200, and hears of the queue."""
    async with house(comments=1) as home:
        answer = await home.ask(said("overloaded", **STREAM))
        outcome = await home.outcome()
    assert answer.status == 200
    assert answer.body.startswith(b':\n\ndata: {"error":{"message":"Model is overloaded","type":"overloaded_error",')
    assert outcome == "stream_interrupted"


async def test_an_error_amid_an_answer():
    async with house() as home:
        stream = await home.client.chat.completions.create(**said("later: failed", **STREAM))
        heard = []
        with pytest.raises(openai.APIError, match="CUDA out of memory") as told:
            heard.extend([chunk.choices[0].delta.content async for chunk in stream])
        assert (told.value.type, told.value.code) == ("server_error", "generation")
        assert await home.outcome() == "stream_interrupted"


async def test_a_connection_whose_stream_was_an_error_is_not_lost_and_not_shared():
    async with house() as home:
        for _ in range(3):
            assert (await home.ask(said("overloaded", **STREAM))).status == 429
            assert (await home.ask(said("Hi"))).json()["choices"][0]["message"]["content"] == "".join(WORDS[:-1])
        await home.outcome()
        assert home.weir.gateway.upstreams["gpu"].in_flight == 0


async def test_a_silent_stream_is_not_waited_for_forever(monkeypatch):
    """Its header goes down, and what comes then passes."""
    monkeypatch.setattr("proxy.upstream.tgi.COMMIT_SECONDS", 0.05)
    heard = asyncio.Event()

    async def script(received, wire):
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await heard.wait()
        event = b'data: {"id":"","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
        await wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))

    async with house(script) as home:
        stream = await home.client.chat.completions.create(**said("Hi", **STREAM))
        heard.set()
        assert [chunk.choices[0].finish_reason async for chunk in stream] == ["stop"]


async def test_an_app_that_leaves_before_the_first_event_stops_the_work():
    here = asyncio.Event()
    wires = []

    async def script(received, wire):
        wires.append(wire)
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        here.set()
        await asyncio.sleep(30)

    async with house(script) as home:
        asking = asyncio.ensure_future(home.ask(said("Hi", **STREAM)))
        await here.wait()
        asking.cancel()
        async with asyncio.timeout(5):
            await wires[0].gone.wait()
        assert await home.outcome() == "client_abort"


# -- failover and breaker


@contextlib.asynccontextmanager
async def pair(plugins, first: Tgi, second: Tgi):
    """Two servers, in that order."""
    async with testing.upstream(first.script) as one, testing.upstream(second.script) as other:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams:\n  one: {{kind: tgi, base_url: {one.url!r}}}\n  other: {{kind: tgi, base_url: {other.url!r}}}\n"
            f"plugins: {orjson.dumps(plugins).decode()}\nroutes: [{{name: default, targets: [one, other]}}]\n"
        )
        async with testing.configured(text) as weir:
            yield weir


FULL = {
    "chat": (CHAT, said("Hi")),
    "chat, streamed": (CHAT, said("Hi", **STREAM)),
    "completion, streamed": (COMPLETIONS, {"prompt": "Hi", **STREAM}),
    "/generate": ("/generate", {"inputs": "Hi"}),
    "/generate_stream": ("/generate_stream", {"inputs": "Hi"}),
    "/, streamed": ("/", {"inputs": "Hi", **STREAM}),
}


@pytest.mark.parametrize(("path", "body"), FULL.values(), ids=FULL)
async def test_another_server_serves_what_a_full_one_does_not(path, body):
    async with pair([{"failover": {"max_attempts": 2}}], Tgi(permits=0), Tgi()) as weir:
        answer = await testing.ask(weir, body, path=path)
    assert (answer.status, answer.headers["x-weir-upstream"]) == (200, "other")
    assert b"error" not in answer.body


class Silent(Tgi):
    """Sends its header, and has its request wait."""

    async def _stream(self, wire, events, *, done=True):
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await wire.gone.wait()


@pytest.mark.parametrize("path", [CHAT, "/generate_stream"])
async def test_another_server_serves_where_no_token_comes_in_time(path):
    async with pair([{"failover": {"max_attempts": 2, "first_token": "100ms"}}], Silent(), Tgi()) as weir:
        answer = await testing.ask(weir, {**said("Hi", **STREAM), "inputs": "Hi"}, path=path)
    assert (answer.status, answer.headers["x-weir-upstream"]) == (200, "other")


@pytest.mark.parametrize(("path", "body"), FULL.values(), ids=FULL)
async def test_where_all_are_full_the_app_is_told(path, body):
    async with pair([{"failover": {"max_attempts": 2}}], Tgi(permits=0), Tgi(permits=0)) as weir:
        answer = await testing.ask(weir, body, path=path)
    is_in_band = path == "/generate_stream" or (path == "/" and body.get("stream"))
    assert answer.status == (200 if is_in_band else 429)
    assert b"Model is overloaded" in answer.body


def breaks(prompt: str) -> dict:
    return {"chat": (CHAT, said(prompt)), "stream": (CHAT, said(prompt, **STREAM)), "native": ("/generate", {"inputs": prompt})}  # fmt: skip


@pytest.mark.parametrize("way", ["chat", "stream", "native"])
@pytest.mark.parametrize(("prompt", "opens"), [("failed", True), ("overloaded", False), ("invalid", False)])
async def test_what_opens_a_breaker(prompt, opens, way):
    """A full server is well; one that fails is not; the request is nobody's fault but the app's."""
    async with house(plugins=[{"circuit_breaker": {"fail_max": 2, "reset_timeout": "60s"}}]) as home:
        path, body = breaks(prompt)[way]
        for _ in range(2):
            await home.ask(body, path)
        answer = await home.ask(breaks("Hi")[way][1], path)
    assert answer.status == (503 if opens else 200)


# -- answers on OpenAI's routes


QUIRKS = {"3.x": {}, "2.x": {"objects": True}, "no space, in pieces": {"space": False, "pieces": 11, "comments": 1}}


@pytest.mark.parametrize("quirks", QUIRKS.values(), ids=QUIRKS)
async def test_openais_client_joins_the_deltas_of_tools(quirks):
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    async with house(**quirks) as home:
        completions = home.client.chat.completions
        async with completions.stream(model="tgi", messages=HI, tools=tools) as stream:
            streamed = await stream.get_final_completion()
        whole = await completions.create(model="tgi", messages=HI, tools=tools)
    for answer in (streamed, whole):
        [choice] = answer.choices
        [call] = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.role) == ("tool_calls", "assistant")
        assert (call.function.name, orjson.loads(call.function.arguments)) == ("get_weather", {"city": "Rome"})
        assert call.id == "0" or call.id.startswith("call_")
        assert answer.id.startswith("chatcmpl-")


@pytest.mark.parametrize("quirks", QUIRKS.values(), ids=QUIRKS)
async def test_openais_client_joins_the_deltas_of_text(quirks):
    async with house(**quirks) as home:
        options = {"include_usage": True}
        async with home.client.chat.completions.stream(model="tgi", messages=HI, stream_options=options) as stream:
            answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "".join(WORDS[:-1])
    assert (answer.choices[0].message.role, answer.choices[0].finish_reason) == ("assistant", "stop")
    assert answer.usage.completion_tokens == len(WORDS)


async def test_each_answer_has_an_id_of_its_own():
    async with house() as home:
        ids = {(await home.ask(said("Hi"))).json()["id"] for _ in range(3)}
    assert len(ids) == 3


async def test_completions_of_many_prompts():
    async with house() as home:
        body = {"model": "tgi", "prompt": ["a", "b c"], "max_tokens": 2}
        whole = await home.client.completions.create(**body)
        counted = {"include_usage": True}
        chunks = [c async for c in await home.client.completions.create(**body, stream=True, stream_options=counted)]
        plain = [c async for c in await home.client.completions.create(**body, stream=True)]
    assert [choice.text for choice in whole.choices] == ["a: A weir", "b c: A weir"]
    assert {choice.finish_reason for c in chunks for choice in c.choices} == {None, "length"}
    assert [c.usage and c.usage.total_tokens for c in chunks] == [None] * 4 + [7]
    assert [c.usage and c.usage.total_tokens for c in plain] == [None, None, 3, 4]


async def test_the_usage_that_only_metering_asked_for_is_hidden():
    async with house(plugins=["metering"]) as home:
        answer = await home.ask({"prompt": ["a", "b c"], "max_tokens": 2, **STREAM}, COMPLETIONS)
    assert b'"usage":{' not in answer.body


OFF = {
    "chat": (CHAT, said("Hi")),
    "stream": (CHAT, said("Hi", stream=True, stop=["x"])),
    "tools": (CHAT, said("Hi", tools=[{}])),
    "streamed tools": (CHAT, said("Hi", stream=True, tools=[{}])),
    "prompts": (COMPLETIONS, {"prompt": ["a", "b"]}),
    "streamed prompts": (COMPLETIONS, {"prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}),
    "overloaded": (CHAT, said("overloaded")),
    "overloaded, streamed": (CHAT, said("overloaded", stream=True)),
    "fails later": (CHAT, said("later: failed", stream=True)),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body"), OFF.values(), ids=OFF)
async def test_without_normalize_all_passes_byte_for_byte(path, body):
    async with house(settings="normalize: false", objects=True) as home:
        direct, through = await home.direct(body, path), await home.ask(body, path)
    assert (through.status, through.body) == (direct.status, direct.body)


async def test_what_another_server_says_in_openais_way_passes_byte_for_byte():
    said_by_openai = testing.stream(*testing.chat_events(["Hello", "there"]))
    async with house(said_by_openai) as home:
        direct, through = await home.direct(said("Hi", **STREAM)), await home.ask(said("Hi", **STREAM))
    assert through.body == direct.body


# -- recorded answers


def recorded(*beginnings: str) -> list[pathlib.Path]:
    files = sorted(SHARED.glob("*.json")) if SHARED.is_dir() else []
    return [file for file in files if file.name.startswith(beginnings)]


def streams(file: pathlib.Path) -> bool:
    return isinstance(orjson.loads(file.read_bytes()), list)


CHATS = [file for file in recorded("chat", "tools") if streams(file)]
WHOLES = [file for file in recorded("chat", "tools", "completion_single") if not streams(file) and "last_chunk" not in file.name]  # fmt: skip


@pytest.mark.skipif(not CHATS, reason="no recorded answers here")
@pytest.mark.parametrize("file", CHATS, ids=lambda file: file.stem)
async def test_recorded_streams(file):
    chunks = orjson.loads(file.read_bytes())
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        choice["delta"] = {"role": "assistant", **choice["delta"]}  # the recorder has sorted the keys
    pieces = [b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks]
    async with house(testing.stream(*pieces, b"data: [DONE]\n\n")) as home:
        async with home.client.chat.completions.stream(model="tgi", messages=HI) as stream:
            await stream.until_done()
            answer = stream.current_completion_snapshot
        assert await home.outcome() == "ok"
    [choice] = answer.choices
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert answer.id.startswith("chatcmpl-")
    assert ((choice.message.content or ""), choice.message.role) == (text, "assistant")
    calls = [call for chunk in chunks for c in chunk["choices"] for call in c["delta"].get("tool_calls") or ()]
    assert choice.finish_reason == ("tool_calls" if calls else chunks_reason(chunks))
    if calls:
        [call] = choice.message.tool_calls
        assert (call.id, call.function.name) == (calls[0]["id"], calls[0]["function"]["name"])
        assert orjson.loads(call.function.arguments)


def chunks_reason(chunks):
    [reason] = {c["finish_reason"] for chunk in chunks for c in chunk["choices"]} - {None}
    return reason


@pytest.mark.skipif(not WHOLES, reason="no recorded answers here")
@pytest.mark.parametrize("file", WHOLES, ids=lambda file: file.stem)
async def test_recorded_answers(file):
    body = orjson.loads(file.read_bytes())
    async with house(testing.answer(orjson.dumps(body))) as home:
        answer = (await home.ask(said("Hi"))).json()
    calls = body["choices"][0].get("message", {}).get("tool_calls")
    assert answer.pop("id").startswith("chatcmpl-")
    if calls:
        assert answer["choices"][0].pop("finish_reason") == "tool_calls"
        body["choices"][0].pop("finish_reason")
    body.pop("id")
    assert answer == body


@pytest.mark.skipif(not recorded("completion_many"), reason="no recorded answers here")
async def test_recorded_prompts():
    """Four prompts in one stream; each tells its own usage at its end."""
    chunks = orjson.loads((SHARED / "completion_many_prompts_stream.json").read_bytes())
    pieces = [b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks]
    body = {"model": "tgi", "prompt": ["a"] * 4, "stream_options": {"include_usage": True}, "stream": True}
    async with house(testing.stream(*pieces, b"data: [DONE]\n\n")) as home:
        heard = [chunk async for chunk in await home.client.completions.create(**body)]
    summed = sum(chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage"))
    assert [chunk.usage.total_tokens for chunk in heard if chunk.usage] == [summed]
    assert {c.finish_reason for chunk in heard for c in chunk.choices} <= {None, "stop", "length"}
