"""What Weir adds to an answer's header, what it takes away, and how the body is framed on its way down."""

import gzip
import re

import orjson
import pytest

from proxy import testing
from proxy.plugin import BodyFilter, EventFilter, EventTap, Plugin, PluginConfig, Tap, Usage
from proxy.testing import chat_event, chat_events
from tests import wire

ASK = {"model": "m", "messages": []}
OWN = ["x-weir-request-id", "x-request-id", "x-weir-route", "x-weir-upstream", "x-weir-attempts"]
GET = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"
STREAM = b"".join(chat_events(["a", "b"]))


class StageConfig(PluginConfig):
    kind: str


class Upper(BodyFilter):
    async def apply(self, body):
        return body.upper()


STAGES = {"tap": Tap, "event_tap": EventTap, "event_filter": EventFilter, "body_filter": Upper}
SEEN: list[Usage | None] = []


class Staged(Plugin[StageConfig]):
    Config = StageConfig

    async def on_response(self, exchange, response):
        stage = STAGES[self.config.kind]
        return stage() if response.is_event_stream or stage in (Tap, Upper) else None


class Meter(Plugin[PluginConfig]):
    reads_usage = True

    async def on_complete(self, exchange, outcome):
        SEEN.append(exchange.usage)


def staged(kind):
    return {"staged": {"use": f"{__name__}:Staged", "kind": kind}}


METER = {"meter": {"use": f"{__name__}:Meter"}}


async def got(script, request=GET, plugins=()):
    async with testing.upstream(script) as upstream, testing.weir(upstream, plugins) as weir:
        return await wire.fetch(weir.url, request)


def names(answer):
    return [name.decode().lower() for name, _ in answer.head.fields]


async def test_what_weir_adds():
    answer = await got(testing.answer(b"{}", x_tag="1"))
    assert names(answer) == ["content-type", "x-tag", "content-length", *OWN]
    identity = answer.head.get("x-weir-request-id")
    assert re.fullmatch("req_[0-9a-f]{24}", identity)
    added = [answer.head.get(name) for name in OWN]
    assert added == [identity, identity, "default", "up", "1"]


@pytest.mark.parametrize("name", ["x-request-id", "X-Request-ID"])
async def test_the_upstreams_request_id_passes(name):
    answer = await got(testing.answer(b"{}", **{name: "req_theirs"}))
    assert answer.head.all("x-request-id") == [b"req_theirs"]
    assert answer.head.get("x-weir-request-id") != "req_theirs"


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_the_fields_of_a_weir_upstream_are_dropped(status):
    theirs = {"X-Weir-Request-Id": "req_1", "x-weir-route": "theirs", "x-weir-cache": "hit", "x-weir-anything": "1"}
    answer = await got(testing.answer(b"{}", status=status, **theirs))
    assert len(answer.head.all("x-weir-request-id")) == 1
    assert answer.head.get("x-weir-request-id") != "req_1"
    assert answer.head.get("x-weir-route") == "default"
    assert "x-weir-cache" not in names(answer)
    assert "x-weir-anything" not in names(answer)


async def test_an_upstream_that_is_itself_a_weir():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream) as inner:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{next: {{base_url: "{inner.url}/v1"}}}}\nroutes: [{{name: outer, targets: [next]}}]\n'
        )
        async with testing.configured(text) as outer:
            answer = await wire.fetch(outer.url, GET)
    assert sorted(name for name in names(answer) if name.startswith("x-")) == sorted(OWN)
    assert [answer.head.get(name) for name in OWN[2:]] == ["outer", "next", "1"]
    assert answer.head.get("x-request-id") != answer.head.get("x-weir-request-id")


async def test_no_route_means_no_way_lines():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream) as weir:
        answer = await wire.fetch(weir.url, b"GET //x HTTP/1.1\r\nhost: a\r\n\r\n")
    assert [name for name in names(answer) if name.startswith("x-")] == ["x-weir-request-id", "x-request-id"]


async def test_no_answer_tells_a_version():
    answer = await got(testing.answer(b"{}"))
    assert "server" not in names(answer)


# -- framing


async def test_a_length_that_the_upstream_gave_stays():
    answer = await got(testing.answer(b"0123456789"))
    assert (answer.head.get("content-length"), answer.head.get("transfer-encoding")) == ("10", None)


@pytest.mark.parametrize("kind", ["tap", "event_tap", "event_filter"])
async def test_a_stream_is_chunked_whatever_the_upstream_said(kind):
    framed = testing.answer(STREAM, content_type="text/event-stream")
    answer = await got(framed, plugins=[staged(kind)])
    assert (answer.head.get("content-length"), answer.head.get("transfer-encoding")) == (None, "chunked")
    assert (answer.body, answer.is_whole) == (STREAM, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_filtered_body_is_framed_anew(stream):
    script = testing.stream(STREAM) if stream else testing.answer(gzip.compress(b'{"a": "b"}'), content_encoding="gzip")
    answer = await got(script, plugins=[staged("body_filter")])
    body = STREAM.upper() if stream else b'{"A": "B"}'
    assert (answer.body, answer.is_whole) == (body, True)
    assert answer.head.get("content-length") == (None if stream else str(len(body)))
    assert answer.head.get("transfer-encoding") == ("chunked" if stream else None)
    assert answer.head.get("content-encoding") is None


@pytest.mark.parametrize(
    ("kind", "encoding"), [("tap", "gzip"), ("event_tap", "gzip"), ("event_filter", None), ("body_filter", None)]
)
async def test_only_what_changes_a_stream_unpacks_it(kind, encoding):
    packed = testing.answer(gzip.compress(STREAM), content_type="text/event-stream", content_encoding="gzip")
    answer = await got(packed, plugins=[staged(kind)])
    assert answer.head.get("content-encoding") == encoding
    body = gzip.decompress(answer.body) if encoding else answer.body
    assert body == (STREAM.upper() if kind == "body_filter" else STREAM)


@pytest.mark.parametrize(
    ("kind", "status"), [("tap", 200), ("event_tap", 200), ("event_filter", 502), ("body_filter", 502)]
)
async def test_an_encoding_that_nobody_can_read_passes_taps_and_stops_closed_filters(kind, status):
    packed = testing.answer(b"\x8b\x01 br", content_type="text/event-stream", content_encoding="br")
    answer = await got(packed, plugins=[staged(kind)])
    assert answer.status == status
    if status == 200:
        assert (answer.body, answer.head.get("content-encoding")) == (b"\x8b\x01 br", "br")
    else:
        assert orjson.loads(answer.body)["error"]["code"] == "upstream_bad_answer"


@pytest.mark.parametrize("kind", ["tap", "event_filter", "body_filter"])
@pytest.mark.parametrize("status", [204, 304])
async def test_stages_have_nothing_to_do_with_an_answer_without_a_body(kind, status):
    async def script(received, up):
        await up.send(b"HTTP/1.1 %d No\r\ncontent-type: text/event-stream\r\netag: 1\r\n\r\n" % status)

    answer = await got(script, plugins=[staged(kind)])
    assert (answer.status, answer.body, answer.is_whole) == (status, b"", True)
    assert answer.head.get("transfer-encoding") is None


@pytest.mark.parametrize("kind", [None, "tap", "event_filter", "body_filter"])
async def test_head_keeps_the_length_that_a_get_would_have(kind):
    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 77\r\n\r\n")

    answer = await got(script, GET.replace(b"GET", b"HEAD"), [staged(kind)] if kind else [])
    assert (answer.head.get("content-length"), answer.body) == ("77", b"")


@pytest.mark.parametrize("kind", ["event_filter", "body_filter"])
async def test_a_stream_that_is_not_whole_is_never_held_for_a_whole_one(kind):
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
    answer = await got(testing.stream(chat_event({"content": "a"})), request, [staged(kind)])
    if kind == "body_filter":
        assert (answer.status, orjson.loads(answer.body)["error"]["type"]) == (502, "upstream_error")
    else:
        assert not answer.is_whole
        assert b'data: {"error"' in answer.body
    assert b"[DONE]" not in answer.body


# -- usage


USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
COUNTED = b'{"object":"chat.completion","choices":[],"usage":%b}' % orjson.dumps(USAGE)
LAST = b"data: " + COUNTED + b"\n\n"
STREAMED = b"".join([*chat_events(["a"])[:-1], LAST, b"data: [DONE]\n\n"])


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (testing.answer(COUNTED), COUNTED),
        (testing.answer(gzip.compress(COUNTED), content_encoding="gzip"), gzip.compress(COUNTED)),
        (testing.stream(STREAMED[:100], STREAMED[100:]), STREAMED),
        (testing.answer(gzip.compress(STREAMED), content_type="text/event-stream", content_encoding="gzip"), None),
    ],
    ids=["JSON", "packed JSON", "a stream", "a packed stream"],
)
@pytest.mark.parametrize("kind", [None, "tap", "body_filter"])
async def test_usage_is_read_once_for_all_who_ask(script, body, kind):
    SEEN.clear()
    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream, [METER, *([staged(kind)] if kind else [])]) as weir,
    ):
        answer = await testing.ask(weir, ASK)
        await wire.until(lambda: SEEN)
    [usage] = SEEN
    assert (usage.input_tokens, usage.output_tokens) == (11, 5)
    if kind is None and body is not None and b"\x1f\x8b" not in body:
        assert answer.body == body


async def test_an_answer_without_usage_has_none():
    SEEN.clear()
    async with testing.upstream(testing.answer(b"not json")) as upstream, testing.weir(upstream, [METER]) as weir:
        assert (await testing.ask(weir, ASK)).body == b"not json"
        await wire.until(lambda: SEEN)
    assert SEEN == [None]
