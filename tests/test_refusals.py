"""An upstream's error answer (field case 50): JSON passes, the rest is told in OpenAI's shape, the status stays."""

import gzip
import zlib

import openai
import orjson
import pytest

from proxy import testing
from tests import wire

ASK = {"model": "m", "messages": []}
KEY = "sk-Our0wn/Secret+Key=="
PAGE = """<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>p {color: red}</style></head>
<body><script>alert("x")</script><h1>502   Bad&nbsp;Gateway</h1><p>The <b>model</b> is
&lt;loading&gt;</p><hr>nginx</body></html>"""


async def refused(script, *, method="POST", **headers):
    async with testing.upstream(script) as upstream, testing.weir(upstream, settings=f'api_key: "{KEY}"') as weir:
        if method == "POST":
            return await testing.ask(weir, ASK, headers=headers)
        return await wire.fetch(weir.url, f"{method} /v1/models HTTP/1.1\r\nhost: a\r\n\r\n".encode())


def message(answer):
    return answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": {"message": "bad", "type": "invalid_request_error", "code": null, "param": null}}'),
        (401, b'{"error":{"message":"Incorrect API key provided: sk-other."}}'),
        (404, b'{"detail":"Not Found"}'),
        (413, b'{"object":"error","message":"too long","code":413}'),
        (
            422,
            b'{"error":"Input validation error: `inputs` must have less than 4096 tokens","error_type":"validation"}',
        ),
        (424, b'{"error":"Request failed during generation","error_type":"generation"}\n'),
        (429, b' {"error": "Model is overloaded", "error_type": "overloaded", "x": 1.0, "x": 2} \n'),
        (500, b"[]"),
        (503, '{"error": "größer ☺"}'.encode()),
    ],
)
async def test_json_passes_byte_for_byte(status, body):
    answer = await refused(testing.answer(body, status=status, x_request_id="up-1", retry_after="2"))
    assert (answer.status, answer.body) == (status, body)
    assert (answer.headers["x-request-id"], answer.headers["retry-after"]) == ("up-1", "2")
    assert answer.headers["content-type"] == "application/json"


async def test_json_passes_whatever_it_calls_itself():
    answer = await refused(testing.answer(b'{"error": {}}', status=500, content_type="text/plain"))
    assert (answer.body, answer.headers["content-type"]) == (b'{"error": {}}', "text/plain")


@pytest.mark.parametrize(
    ("status", "content_type", "body", "said"),
    [
        (502, "text/html", PAGE.encode(), "502 Bad Gateway The model is <loading> nginx"),
        (503, "text/html", b"", "nothing"),
        (503, "application/json", b"", "nothing"),
        (400, "text/plain", b"  context\n\tlength exceeded ", "context length exceeded"),
        (413, "text/html", b"<center><h1>413 Request Entity Too Large</h1></center>", "413 Request Entity Too Large"),
        (500, "application/json", b'{"error": "cut', '{"error": "cut'),
        (500, "application/json", b'"just text"', '"just text"'),
        (500, "application/json", b"null", "null"),
        (529, "text/plain", b"Gr\xfc\xdfe", "Gr\ufffd\ufffde"),
        (504, "text/html", b"<html><head><title>a</title>unclosed", "aunclosed"),
        (500, "text/html", b"<p" * 1000, ""),
    ],
)
async def test_anything_else_is_told_in_openais_shape(status, content_type, body, said):
    answer = await refused(testing.answer(body, status=status, content_type=content_type, etag='"1"'))
    error = answer.json()["error"]
    assert answer.status == status
    assert (error["type"], error["code"], error["param"]) == ("upstream_error", f"upstream_{status}", None)
    assert error["message"].startswith(f"upstream 'up' answered {status} and said: ")
    if said:
        assert "".join(error["message"].partition("said: ")[2].split()) == "".join(said.split())
    assert "etag" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["x-weir-request-id"]


async def test_a_status_line_is_all_that_some_send():
    async def script(received, up):
        await up.send(b"HTTP/1.1 503 Busy\r\n\r\n")
        up.close()

    answer = await refused(script)
    assert (answer.status, message(answer)) == (503, "upstream 'up' answered 503 and said: nothing")


async def test_an_error_that_breaks_off_keeps_its_status():
    async def script(received, up):
        await up.send(b'HTTP/1.1 500 Oh\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{"error"')
        up.close()

    answer = await refused(script)
    assert (answer.status, answer.is_whole, message(answer)[:24]) == (500, True, "upstream 'up' answered 5")


async def test_a_long_page_is_cut():
    answer = await refused(testing.answer(b"word " * 10_000, status=500, content_type="text/plain"))
    assert message(answer).endswith("…")
    assert len(message(answer)) < 600


async def test_a_page_of_endless_markup_holds_nobody_up():
    answer = await refused(testing.answer(b"<script>" * 10**6, status=500, content_type="text/html"))
    assert answer.status == 500


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("gzip, gzip", lambda b: gzip.compress(gzip.compress(b)))],
)
async def test_packed_errors_are_read(encoding, pack):
    packed = pack(b'{"error": {"message": "no"}}')
    answer = await refused(testing.answer(packed, status=400, content_encoding=encoding))
    assert (answer.body, answer.headers["content-encoding"]) == (packed, encoding)
    answer = await refused(
        testing.answer(pack(b"<p>no"), status=502, content_type="text/html", content_encoding=encoding)
    )
    assert message(answer) == "upstream 'up' answered 502 and said: no"
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_what_cannot_be_unpacked_is_not_shown(encoding):
    answer = await refused(testing.answer(b"\x00\xff junk", status=502, content_encoding=encoding))
    assert (answer.status, message(answer)) == (502, "upstream 'up' answered 502 and said: nothing")
    assert "content-encoding" not in answer.headers


# -- our own credential


async def test_our_own_key_is_masked_in_json():
    said = f'{{"error": {{"message": "Incorrect API key: {KEY}", "key": "{KEY}"}}}}\n'
    answer = await refused(testing.answer(said.encode(), status=401))
    assert answer.body.decode() == said.replace(KEY, "***")
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["content-type"] == "application/json"


async def test_our_own_key_is_masked_in_text():
    answer = await refused(testing.answer(f"<p>bad key {KEY}".encode(), status=403, content_type="text/html"))
    assert message(answer) == "upstream 'up' answered 403 and said: bad key ***"


async def test_our_own_key_is_masked_where_it_is_packed():
    packed = gzip.compress(orjson.dumps({"error": {"message": f"bad key {KEY}"}}))
    answer = await refused(testing.answer(packed, status=401, content_encoding="gzip"))
    assert answer.json() == {"error": {"message": "bad key ***"}}
    assert "content-encoding" not in answer.headers


async def test_our_own_key_is_masked_in_header_values():
    answer = await refused(
        testing.answer(b'{"error": {}}', status=401, www_authenticate=f'Bearer error="{KEY} is wrong"', x_key=KEY)
    )
    assert answer.headers["www-authenticate"] == 'Bearer error="*** is wrong"'
    assert answer.headers["x-key"] == "***"
    answer = await refused(testing.answer(b"no", status=401, content_type="text/plain", x_key=KEY))
    assert answer.headers["x-key"] == "***"


async def test_our_own_key_is_masked_where_json_escapes_it():
    said = orjson.dumps({"error": {"message": f"bad key {KEY}"}}).replace(b"/", b"\\/").replace(b"+", b"\\u002b")
    answer = await refused(testing.answer(said, status=401))
    assert answer.json() == {"error": {"message": "bad key ***"}}


async def test_our_own_key_is_masked_where_a_page_escapes_it():
    page = f"<p>bad key {KEY}".replace("/", "&#x2F;").replace("=", "&equals;")
    answer = await refused(testing.answer(page.encode(), status=403, content_type="text/html"))
    assert message(answer) == "upstream 'up' answered 403 and said: bad key ***"


async def refused_by(settings, script):
    async with testing.upstream(script) as upstream, testing.weir(upstream, settings=settings) as weir:
        return await testing.ask(weir, ASK)


async def test_our_own_key_is_masked_where_an_address_holds_it():
    async def script(received, up):
        said = orjson.dumps({"error": f"Method doesn't allow {received.target}", "documentation": received.target})
        await testing.answer(said.replace(b"&", b"\\u0026"), status=403, x_url=received.target)(received, up)

    answer = await refused_by(f'api_key: "{KEY}", api_key_in: "query:key"', script)
    assert answer.json() == {
        "error": "Method doesn't allow /v1/chat/completions?key=***",
        "documentation": "/v1/chat/completions?key=***",
    }
    assert answer.headers["x-url"] == "/v1/chat/completions?key=***"


async def test_our_own_key_is_masked_where_a_redirect_holds_it():
    async def script(received, up):
        await testing.answer(b"", status=308, location=f"https://other{received.target}&a=1")(received, up)

    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream, settings=f'api_key: "{KEY}", api_key_in: "query:key"') as weir,
    ):
        answer = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (answer.status, answer.head.get("location")) == (308, "https://other/v1/models?key=***&a=1")


async def test_our_own_key_is_masked_where_the_status_line_tells_it():
    async def script(received, up):
        await up.send(f"HTTP/1.1 401 Bad key {KEY}\r\ncontent-length: 2\r\n\r\n{{}}".encode())

    async with testing.upstream(script) as upstream, testing.weir(upstream, settings=f'api_key: "{KEY}"') as weir:
        answer = await wire.fetch(weir.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (answer.status, answer.head.reason) == (401, b"Bad key ***")


async def test_a_key_that_was_ours_a_moment_ago_is_masked():
    said = orjson.dumps({"error": {"message": f"{KEY} was revoked, sk-the-next-one is unknown"}})
    async with (
        testing.upstream(testing.answer(said, status=401)) as upstream,
        testing.weir(upstream, settings=f'api_key: "{KEY}"') as weir,
    ):
        weir.gateway.upstreams["up"].credential.put("sk-the-next-one")
        answer = await testing.ask(weir, ASK)
    assert answer.json() == {"error": {"message": "*** was revoked, *** is unknown"}}
    assert upstream.last.headers["authorization"] == "Bearer sk-the-next-one"


async def test_a_key_that_is_a_word_spoils_no_error():
    said = b'{"error": {"message": "many errors: no company has any quota", "type": "any"}}'
    answer = await refused_by("api_key: any", testing.answer(said, status=429))
    assert answer.body == said.replace(b"has any", b"has ***").replace(b'"any"', b'"***"')


# -- in a stream that has begun


async def streamed(*pieces, settings=f'api_key: "{KEY}"', **fields):
    async with (
        testing.upstream(testing.stream(*pieces, pause=0.01, **fields)) as upstream,
        testing.weir(upstream, settings=settings) as weir,
    ):
        return await testing.ask(weir, {**ASK, "stream": True})


FAILED = b"data: " + orjson.dumps({"error": {"message": f"bad key {KEY}", "code": 401}}) + b"\n\n"


@pytest.mark.parametrize("at", [0, 12, 40, 50, len(FAILED) - 1])
async def test_our_own_key_is_masked_in_error_events(at):
    first, *rest = testing.chat_events(["Hi"])
    pieces = [piece for piece in (first, FAILED[:at], FAILED[at:], *rest) if piece]
    answer = await streamed(*pieces)
    assert answer.body == b"".join(pieces).replace(KEY.encode(), b"***")


async def test_our_own_key_is_masked_in_what_ends_a_stream_that_was_cut_by_an_error():
    first, *_ = testing.chat_events(["Hi"])
    answer = await streamed(first, FAILED, ends=False)
    assert not answer.is_whole
    assert KEY.encode() not in answer.body
    assert answer.body.count(b"bad key ***") >= 1


async def test_what_a_model_says_is_not_searched():
    events = testing.chat_events([KEY, "and more"])
    assert (await streamed(*events)).body == b"".join(events)


async def test_a_stream_that_is_packed_passes_as_it_came():
    packed = gzip.compress(FAILED + b"".join(testing.chat_events(["Hi"])))
    assert (await streamed(packed, content_encoding="gzip")).body == packed


async def test_our_own_key_is_masked_before_a_long_page_is_cut():
    answer = await refused(testing.answer(b"w" * 495 + KEY.encode(), status=500, content_type="text/plain"))
    assert message(answer).endswith("w***")


async def test_a_callers_own_key_is_nobodys_to_mask():
    said = b'{"error": {"message": "model sk-ours not found"}}'
    assert (await refused(testing.answer(said, status=404))).body == said


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_head_has_the_status_and_no_body(status):
    answer = await refused(testing.answer(b"", status=status, content_type="text/html"), method="HEAD")
    assert (answer.status, answer.body) == (status, b"")


# -- what an SDK makes of it


@pytest.mark.parametrize(
    ("script", "raises"),
    [
        (testing.answer(PAGE.encode(), status=502, content_type="text/html"), openai.InternalServerError),
        (testing.answer(b"", status=503), openai.InternalServerError),
        (testing.answer(b"no", status=400, content_type="text/plain"), openai.BadRequestError),
        (testing.answer(b'{"error":"x","error_type":"validation"}', status=422), openai.UnprocessableEntityError),
        (testing.answer(b'{"error":{"code":"rate_limit_exceeded"}}', status=429), openai.RateLimitError),
        (testing.answer(b"<p>who?", status=401, content_type="text/html"), openai.AuthenticationError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_raises_what_it_would_raise_without_us(script, raises, stream):
    async with (
        testing.upstream(script) as upstream,
        testing.weir(upstream) as weir,
        openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="k", max_retries=0, timeout=10) as client,
    ):
        with pytest.raises(raises) as refusal:
            await client.chat.completions.create(model="m", messages=[], stream=stream)
    assert refusal.value.request_id


async def test_our_own_key_is_masked_in_the_header_of_an_answer_without_a_body():
    answer = await refused(testing.answer(b"", status=401, x_seen=KEY), method="HEAD")
    assert answer.status == 401
    assert KEY.encode() not in b"".join(value for _, value in answer.head.fields)
    assert answer.head.all("x-seen") == [b"***"]
