"""guard: what it refuses and in which words, what it changes, and that every other byte goes up as it came."""

import contextlib
import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.guard import Guard, GuardConfig
from proxy import testing
from proxy.config import ConfigError
from proxy.plugin import ClientFault
from tests import wire

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, IMAGES, SPEECH = "/v1/embeddings", "/v1/images/generations", "/v1/audio/speech"
FORM = (
    b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n'
    b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff"model"\r\n--edge--\r\n'
)
MULTIPART = {"content-type": "multipart/form-data; boundary=edge"}


@contextlib.asynccontextmanager
async def guarded(*, target="up", **settings):
    """The upstream is of kind tgi: every path goes up as it is."""
    async with testing.upstream(testing.chat("fine")) as upstream:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{up: {{kind: tgi, base_url: {upstream.url!r}}}}}\n"
            f"plugins: {orjson.dumps([{'guard': settings}]).decode()}\n"
            f"routes: [{{name: default, targets: [{target}]}}]\n"
        )
        async with testing.configured(text) as weir:
            yield upstream, weir


async def sent_up(settings, body, path=CHAT, **more):
    """The body that the upstream got; the request passes."""
    async with guarded(**settings) as (upstream, weir):
        answer = await testing.ask(weir, body, path=path, **more)
        assert answer.status == 200, answer.body
        return upstream.last.body


async def refused(settings, body, path=CHAT, **more):
    """Status and error; nothing goes up."""
    async with guarded(**settings) as (upstream, weir):
        answer = await testing.ask(weir, body, path=path, **more)
        assert not upstream.requests, upstream.last
    return answer.status, answer.json()["error"]


def chat(**members):
    return orjson.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}], **members})


# -- what changes nothing

EVERYTHING = {
    "max_tokens": {"ceiling": 100, "over": "reject"},
    "models": ["gpt-4o*", "org/*"],
    "aliases": {"gpt-4o-latest": "gpt-4o"},
    "max_messages": 3,
    "max_message_bytes": 50,
    "max_input_bytes": 100,
    "max_choices": 2,
}
ODD = b' { "x" : 1.0, "x": 2 , "model":"gpt-4o" ,\n"max_tokens":100,"messages":[{"role":"u","content":"\\u00e9"}]}\t'
PASSES = [
    (CHAT, ODD),
    (EMBEDDINGS, b'{"":5,"Max_Tokens":9,"model":"gpt-4o","input":"a"}'),
    (CHAT, chat(max_tokens=1, n=None, max_completion_tokens=None)),
    (CHAT, chat(max_tokens=100, max_completion_tokens=100, n=2, tools=[{"n": 9}], unknown={"model": 1})),
    (CHAT, chat(max_tokens=5, messages=[{"role": "user", "content": [{"type": "hologram", "data": "x" * 500}]}])),
    (CHAT, chat(max_tokens=5, messages=[{"content": [{"type": "image_url", "image_url": {"url": "x" * 500}}]}])),
    (CHAT, chat(max_tokens=5, messages=[{"content": "é" * 25}, 7, None])),
    (CHAT, chat(max_tokens=5, messages=None)),
    (CHAT, orjson.dumps({"model": "gpt-4o", "max_tokens": 5})),
    (COMPLETIONS, b'{"model":"org/m","prompt":["a","b","c","d"],"max_tokens":1,"best_of":2}'),
    (RESPONSES, b'{"model":"gpt-4o","input":"hi","max_output_tokens":1,"max_tokens":9000,"n":9}'),
    (RESPONSES, b'{"model":"gpt-4o","input":[{"role":"user","content":"hi"}],"max_output_tokens":1}'),
    (EMBEDDINGS, b'{"model":"gpt-4o","input":[[1,2,3],[4,5,6]],"max_tokens":"many","messages":1}'),
    ("/v1/moderations", b'{"model":"gpt-4o","input":"hi"}'),
    (IMAGES, b'{"model":"gpt-4o","prompt":"hi","n":2}'),
    (SPEECH, b'{"model":"gpt-4o","input":"hi","n":9}'),
    ("/openai/deployments/gpt-4o/completions", b'{"prompt":"hi","max_tokens":1}'),
    ("/generate", b'{"inputs":"hi","parameters":{"max_new_tokens":100,"best_of":2},"model":7}'),
    ("/invocations", b'{"inputs":"hi","parameters":{"max_new_tokens":100,"best_of":2}}'),
    ("/invocations", b'{"messages":[],"max_tokens":100,"model":"gpt-4o"}'),
    ("/v1/batches", b"not JSON"),
    ("/v1/chat/completions/chatcmpl-1", b'{"metadata": {}}'),
    ("/v1/files", b'{"model":"forbidden","model":"twice"}'),
]


@pytest.mark.parametrize(("path", "body"), PASSES)
async def test_what_is_within_the_limits_goes_up_byte_for_byte(path, body):
    assert await sent_up(EVERYTHING, body, path) == body


@pytest.mark.parametrize("kind", ["", "text/plain", "application/vnd.api+json"])
async def test_the_content_type_decides_nothing(kind):
    headers = {"content-type": kind}
    assert await sent_up(EVERYTHING, ODD, headers=headers) == ODD
    assert (await refused(EVERYTHING, chat(n=9), headers=headers))[0] == 400


async def test_an_empty_guard_wants_nothing_but_json():
    for body in (b"{}", b'{"model":1,"model":2,"messages":{"max_tokens":"many"},"max_tokens":[]}'):
        assert await sent_up({}, body) == body


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b'{"model": ', b"hello", b"[]", b'"text"', b"null", b'{"a":1}x', b'{"a":NaN}', b"\xef\xbb\xbf{}"],
)
async def test_what_is_no_json_object_is_refused_where_the_endpoint_needs_one(body):
    for path in (CHAT, EMBEDDINGS, SPEECH, "/generate", "/"):
        status, error = await refused({}, body, path)
        assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_json"), path


@pytest.mark.parametrize("body", [b"", b"hello", '{"model":"x"}'.encode("utf-16")])
async def test_what_no_rule_can_read_passes_only_where_there_is_no_rule(body):
    assert await sent_up({"require_json": False}, body) == body
    for rule in ({"max_tokens": {"ceiling": 9}}, {"models": ["x"]}, {"max_messages": 9}, {"max_input_bytes": 9}):
        assert (await refused({"require_json": False, **rule}, body))[0] == 400
    assert await sent_up({"require_json": False, "max_choices": 9}, body, EMBEDDINGS) == body


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_methods_that_ask_for_no_work_are_not_judged(method):
    async with guarded(**EVERYTHING) as (upstream, weir):
        request = f"{method} {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nnot JSON"
        assert (await wire.fetch(weir.url, request.encode())).status == 200
        assert upstream.last.body == b"not JSON"


# -- what is refused: settings, body, path, (status, code, param), words of the message

CEILING = {"max_tokens": {"ceiling": 100}}
MODELS = {"models": ["gpt-4o*", "text-embedding-3-*"]}
MESSAGES, BYTES, INPUT = {"max_messages": 2}, {"max_message_bytes": 10}, {"max_input_bytes": 20}
CHOICES = {"max_choices": 8}
ABOVE, BELOW, TYPE = (400, "integer_above_max_value"), (400, "integer_below_min_value"), (400, "invalid_type")
LONG, MANY = (400, "string_above_max_length"), (400, "array_above_max_length")
TWICE, MISSING = (400, "repeated_parameter"), (400, "missing_required_parameter")
ASK_FEWER = "and at most 100 tokens are allowed here; ask for 100 or fewer"


def says(*contents):
    return chat(messages=[{"role": "user", "content": content} for content in contents])


def text(said):
    return {"type": "text", "text": said}


REFUSED = [
    (CEILING, chat(max_tokens=101), CHAT, ABOVE, "max_tokens", f"'max_tokens' is 101, {ASK_FEWER}"),
    (CEILING, chat(max_completion_tokens=999), CHAT, ABOVE, "max_completion_tokens", "is 999, and at most 100"),
    (CEILING, chat(max_tokens=1, max_completion_tokens=101), CHAT, ABOVE, "max_completion_tokens", "is 101"),
    (CEILING, chat(max_tokens="many"), CHAT, TYPE, "max_tokens", "'max_tokens' is 'many'; send a whole number from 1"),
    (CEILING, chat(max_tokens="5"), CHAT, TYPE, "max_tokens", "is '5'"),
    (CEILING, chat(max_tokens=5.0), CHAT, TYPE, "max_tokens", "is 5.0"),
    (CEILING, chat(max_tokens=True), CHAT, TYPE, "max_tokens", "is true"),
    (CEILING, chat(max_tokens=[5]), CHAT, TYPE, "max_tokens", "is a list"),
    (CEILING, chat(max_tokens={}), CHAT, TYPE, "max_tokens", "is an object"),
    (CEILING, b'{"max_tokens":123456789012345678901}', CHAT, TYPE, "max_tokens", "is 1.2345678901234568e+20"),
    (CEILING, chat(max_tokens=0), CHAT, BELOW, "max_tokens", "'max_tokens' is 0; send a number from 1"),
    (CEILING, chat(max_tokens=-1), CHAT, BELOW, "max_tokens", "is -1"),
    (CEILING, b'{"max_tokens":101,"prompt":"a"}', COMPLETIONS, ABOVE, "max_tokens", ASK_FEWER),
    (CEILING, b'{"max_output_tokens":101}', RESPONSES, ABOVE, "max_output_tokens", ASK_FEWER),
    (CEILING, chat(max_tokens=101), "/v1/messages", ABOVE, "max_tokens", ASK_FEWER),
    (
        CEILING,
        b'{"inputs":"a","parameters":{"max_new_tokens":101}}',
        "/generate_stream",
        ABOVE,
        "parameters.max_new_tokens",
        f"'parameters.max_new_tokens' is 101, {ASK_FEWER}",
    ),
    (CEILING, b'{"inputs":"a","parameters":[]}', "/", TYPE, "parameters", "'parameters' must be an object"),
    (CEILING, b'{"inputs":"a","parameters":{"max_new_tokens":"x"}}', "/", TYPE, "parameters.max_new_tokens", "'x'"),
    (CEILING, chat(max_tokens=101), "/invocations", ABOVE, "max_tokens", ASK_FEWER),
    (CEILING, b'{"prompt":"a","max_tokens":101}', "/invocations", ABOVE, "max_tokens", ASK_FEWER),
    (CEILING, b'{"inputs":"a","messages":[]}', "/invocations", (400, "invalid_request"), "messages", "send one of"),
    (MODELS, chat(model="gpt-4"), CHAT, (403, "model_not_allowed"), "model", "'gpt-4' is not allowed here; allowed: "),
    (MODELS, chat(model="GPT-4O"), CHAT, (403, "model_not_allowed"), "model", "gpt-4o*, text-embedding-3-*"),
    (MODELS, chat(model="x" * 500), CHAT, (403, "model_not_allowed"), "model", f"'{'x' * 100}' is not"),
    (MODELS, b'{"model":"m"}', EMBEDDINGS, (403, "model_not_allowed"), "model", "'m'"),
    (MODELS, b'{"model":"m"}', "/v1/messages", (403, "model_not_allowed"), "model", "'m'"),
    (MODELS, b'{"model":"m"}', "/v1/moderations", (403, "model_not_allowed"), "model", "'m'"),
    (MODELS, b'{"model":"m"}', "/v1/responses/compact", (403, "model_not_allowed"), "model", "'m'"),
    (MODELS, b'{"model":"m"}', "/v1/images/edits", (403, "model_not_allowed"), "model", "'m'"),
    (MODELS, b'{"messages":[]}', CHAT, MISSING, "model", "names no 'model'; send one of: gpt-4o*"),
    (MODELS, chat(model=None), CHAT, MISSING, "model", "names no 'model'"),
    (MODELS, chat(model=["gpt-4o"]), CHAT, TYPE, "model", "'model' is a list; send a name"),
    (
        MODELS,
        chat(),
        "/openai/deployments/gpt-4/chat/completions",
        (403, "model_not_allowed"),
        "model",
        "'gpt-4' is not",
    ),
    (MODELS, b"{}", "/v1/engines/gpt%2D4/completions", (403, "model_not_allowed"), "model", "'gpt-4' is not"),
    ({"aliases": {"a": "b"}}, chat(model=5), CHAT, TYPE, "model", "'model' is 5"),
    (
        MESSAGES,
        says("a", "b", "c"),
        CHAT,
        MANY,
        "messages",
        "has 3 entries, and at most 2 are allowed here; send fewer",
    ),
    (MESSAGES, b'{"input":["a","b","c"]}', RESPONSES, MANY, "input", "'input' has 3 entries"),
    (MESSAGES, chat(messages="hello"), CHAT, TYPE, "messages", "'messages' is 'hello'; send a list of messages"),
    (BYTES, chat(messages={"0": "hello"}), CHAT, TYPE, "messages", "is an object"),
    (BYTES, says("a", "x" * 11), CHAT, LONG, "messages[1].content", "has 11 bytes of text, and at most 10 are allowed"),
    (BYTES, says("é" * 6), CHAT, LONG, "messages[0].content", "has 12 bytes of text"),
    (BYTES, says([text("x" * 6), {"type": "new"}, text("y" * 6)]), CHAT, LONG, "messages[0].content", "has 12 bytes"),
    (BYTES, says([["x" * 11]]), CHAT, LONG, "messages[0].content", "has 11 bytes"),
    (
        BYTES,
        chat(messages=[{"tool_calls": [{"function": {"name": "f", "arguments": "x" * 10}}]}]),
        CHAT,
        LONG,
        "messages[0].content",
        "has 11 bytes",
    ),
    (BYTES, b'{"prompt":"%b"}' % (b"x" * 11), COMPLETIONS, LONG, "prompt", "'prompt' has 11 bytes"),
    (BYTES, b'{"prompt":["a","%b"]}' % (b"x" * 11), COMPLETIONS, LONG, "prompt[1]", "'prompt[1]' has 11 bytes"),
    (BYTES, b'{"prompt":[1,2,3]}', COMPLETIONS, LONG, "prompt", "has 12 bytes"),
    (BYTES, b'{"input":[[1,2],[1,2,3]]}', EMBEDDINGS, LONG, "input[1]", "has 12 bytes"),
    (BYTES, b'{"input":[1,2,3]}', EMBEDDINGS, LONG, "input", "has 12 bytes"),
    (BYTES, b'{"input":"hi","instructions":"%b"}' % (b"x" * 11), RESPONSES, LONG, "instructions", "has 11 bytes"),
    (
        BYTES,
        b'{"input":[{"content":[{"type":"input_text","text":"%b"}]}]}' % (b"x" * 11),
        RESPONSES,
        LONG,
        "input[0].content",
        "has 11 bytes",
    ),
    (BYTES, b'{"input":[{"output":"%b"}]}' % (b"x" * 11), RESPONSES, LONG, "input[0].content", "has 11 bytes"),
    (BYTES, b'{"system":"%b"}' % (b"x" * 11), "/v1/messages", LONG, "system", "has 11 bytes"),
    (BYTES, b'{"input":"%b"}' % (b"x" * 11), SPEECH, LONG, "input", "has 11 bytes"),
    (BYTES, b'{"prompt":"%b"}' % (b"x" * 11), IMAGES, LONG, "prompt", "has 11 bytes"),
    (BYTES, b'{"inputs":"%b"}' % (b"x" * 11), "/generate", LONG, "inputs", "has 11 bytes"),
    (INPUT, says("x" * 10, "y" * 11), CHAT, LONG, "messages", "the prompt has 21 bytes of text, and at most 20 are"),
    (INPUT, b'{"input":"%b","instructions":"%b"}' % (b"x" * 20, b"y"), RESPONSES, LONG, "input", "has 21 bytes"),
    (INPUT, chat(tools=[{"type": "function"}]), CHAT, LONG, "messages", "the prompt has 26 bytes"),
    (CHOICES, chat(n=9), CHAT, ABOVE, "n", "'n' is 9, and at most 8 answers are allowed here; ask for 8 or fewer"),
    (CHOICES, b'{"best_of":9}', COMPLETIONS, ABOVE, "best_of", "'best_of' is 9"),
    (CHOICES, b'{"n":9}', IMAGES, ABOVE, "n", "'n' is 9"),
    (CHOICES, b'{"parameters":{"best_of":9}}', "/generate", ABOVE, "parameters.best_of", "'parameters.best_of' is 9"),
    (CHOICES, chat(n="2"), CHAT, TYPE, "n", "'n' is '2'"),
    # a key twice, in whatever order and spelling: some servers take the first
    (CEILING, b'{"max_tokens":9999,"max_tokens":5}', CHAT, TWICE, "max_tokens", "'max_tokens' stands more than once"),
    (CEILING, b'{"max_tokens":5,"max_tokens":9999}', CHAT, TWICE, "max_tokens", "send it once"),
    (CEILING, b'{"max_tokens":9999,"max\\u005ftokens" :5}', CHAT, TWICE, "max_tokens", "more than once"),
    (CEILING, b'{"parameters":{"max_new_tokens":9999},"parameters":{}}', "/", TWICE, "parameters", "more than once"),
    (
        CEILING,
        b'{"parameters":{"max_new_tokens":9999,"max_new_tokens":5}}',
        "/",
        TWICE,
        "max_new_tokens",
        "more than once",
    ),
    (MODELS, b'{"model":"gpt-4","model":"gpt-4o"}', CHAT, TWICE, "model", "more than once"),
    (MESSAGES, b'{"messages":[1,2,3],"messages":[]}', CHAT, TWICE, "messages", "more than once"),
    (BYTES, b'{"messages":[{"content":"%b","content":""}]}' % (b"x" * 11), CHAT, TWICE, "content", "more than once"),
    (CHOICES, b'{"n":99,"n":1}', CHAT, TWICE, "n", "more than once"),
    # a key in other letters: some servers take it for the one
    (
        CEILING,
        chat(Max_Tokens=9999),
        CHAT,
        (400, "unknown_parameter"),
        "Max_Tokens",
        "is not how 'max_tokens' is written",
    ),
    (MODELS, chat(MODEL="gpt-4"), CHAT, (400, "unknown_parameter"), "MODEL", "'MODEL' is not how 'model'"),
    (CEILING, b'{"max_to\xe2\x84\xaaens":9999}', CHAT, (400, "unknown_parameter"), "max_to\u212aens", "max_tokens"),
    (BYTES, chat(messages=[{"Content": "x" * 11}]), CHAT, LONG, "messages[0].content", "has 11 bytes"),
    # a path that is spelled otherwise, and is the same to some server
    (CEILING, chat(max_tokens=101), "/v1/chat/completions/", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/v1/chat/completions?x=1", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/chat/completions", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/openai/deployments/d/chat/completions", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/v1/chat%2Fcompletions", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/v1/%63hat/completions", ABOVE, "max_tokens", ""),
    (CEILING, chat(max_tokens=101), "/V1/Chat/Completions", ABOVE, "max_tokens", ""),
]


@pytest.mark.parametrize(("settings", "body", "path", "expected", "param", "words"), REFUSED)
async def test_what_breaks_a_rule_is_refused(settings, body, path, expected, param, words):
    status, error = await refused(settings, body, path)
    assert ((status, error["code"]), error["param"]) == (expected, param)
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


async def test_no_error_is_long():
    for member in ({"model": "x" * 10**5}, {"max_tokens": "x" * 10**5}):
        _, error = await refused({**MODELS, **CEILING, "max_messages": 1}, chat(**member))
        assert len(error["message"]) < 300


async def test_deep_nesting_is_no_way_out():
    deep = b"[" * 1000 + b'"%b"' % (b"x" * 11) + b"]" * 1000
    status, error = await refused(BYTES, b'{"messages":[{"content":%b}]}' % deep)
    assert (status, error["code"]) == LONG
    for key in (b"model", b"max_tokens", b"messages", b"n"):
        assert (await refused({"models": ["*"], **CEILING, **CHOICES}, b'{"%b":%b}' % (key, deep)))[0] == 400


# -- what is changed


def capped(**settings):
    return {"max_tokens": {"default": 50, "ceiling": 100, "over": "cap", **settings}}


NEWER = capped(field="max_completion_tokens")
PINNED = {"aliases": {"gpt-4o": "gpt-4o-2024-08-06"}}
CHANGED = [
    (capped(), b'{"model":"m"}', CHAT, b'{"max_tokens":50,"model":"m"}'),
    (capped(), b" {}", CHAT, b' {"max_tokens":50}'),
    (capped(), b'{"max_tokens" : null , "x":1.0}', CHAT, b'{"max_tokens" : 50 , "x":1.0}'),
    (capped(), b'{"max_completion_tokens":null}', CHAT, b'{"max_tokens":50,"max_completion_tokens":null}'),
    (capped(), b'{"max_completion_tokens":7}', CHAT, b'{"max_completion_tokens":7}'),
    (capped(), b'{"x": "max_tokens","max_tokens":  101 }', CHAT, b'{"x": "max_tokens","max_tokens":  100 }'),
    (
        capped(),
        b'{"max_completion_tokens":101,"max_tokens":102}',
        CHAT,
        b'{"max_completion_tokens":100,"max_tokens":100}',
    ),
    (capped(), b'{"max_completion_tokens":101,"max_tokens":9}', CHAT, b'{"max_completion_tokens":100,"max_tokens":9}'),
    (capped(), b'{"max_token\\u0073":101}', CHAT, b'{"max_token\\u0073":100}'),
    (NEWER, b'{"model":"m"}', CHAT, b'{"max_completion_tokens":50,"model":"m"}'),
    (NEWER, b'{"prompt":"a"}', COMPLETIONS, b'{"max_tokens":50,"prompt":"a"}'),
    (NEWER, b'{"input":"a"}', RESPONSES, b'{"max_output_tokens":50,"input":"a"}'),
    (capped(), b'{"max_output_tokens":101}', RESPONSES, b'{"max_output_tokens":100}'),
    (
        capped(),
        b'{"inputs":"a"}',
        "/",
        b'{"parameters":{"do_sample":true,"max_new_tokens":50},"inputs":"a"}',
    ),
    (
        capped(),
        b'{"inputs":"a","parameters":null}',
        "/",
        b'{"inputs":"a","parameters":{"do_sample":true,"max_new_tokens":50}}',
    ),
    (
        capped(),
        b'{"inputs":"a", "parameters": { "top_k": 1.0 }}',
        "/generate",
        b'{"inputs":"a", "parameters": {"max_new_tokens":50, "top_k": 1.0 }}',
    ),
    (
        capped(),
        b'{"parameters": {"a":{"max_new_tokens":999},"max_new_tokens":999} ,"max_new_tokens":999}',
        "/generate",
        b'{"parameters": {"a":{"max_new_tokens":999},"max_new_tokens":100} ,"max_new_tokens":999}',
    ),
    (
        capped(),
        b'{"inputs":"a"}',
        "/invocations",
        b'{"parameters":{"do_sample":true,"max_new_tokens":50},"inputs":"a"}',
    ),
    (capped(), b'{"messages":[]}', "/invocations", b'{"max_tokens":50,"messages":[]}'),
    (capped(), b'{"input":"a"}', "/invocations", b'{"input":"a"}'),
    (capped(), b'{"input":"a"}', EMBEDDINGS, b'{"input":"a"}'),
    # a ceiling that is dodged by saying nothing would be none
    ({"max_tokens": {"ceiling": 100}}, b'{"model":"m"}', CHAT, b'{"max_tokens":100,"model":"m"}'),
    ({"max_tokens": {"default": 9}}, b'{"max_tokens":"many"}', CHAT, b'{"max_tokens":"many"}'),
    (PINNED, b'{"x":1.0, "model": "gpt-4o" }', CHAT, b'{"x":1.0, "model": "gpt-4o-2024-08-06" }'),
    (PINNED, b'{"model":"gpt-4o-mini"}', CHAT, b'{"model":"gpt-4o-mini"}'),
    (PINNED, b'{"messages":[]}', CHAT, b'{"messages":[]}'),
    (PINNED, b'{"model":"gpt-4o","input":"a"}', EMBEDDINGS, b'{"model":"gpt-4o-2024-08-06","input":"a"}'),
    (
        {**PINNED, **capped(), "models": ["gpt-4o-2024-*"]},
        b'{"model":"gpt-4o"}',
        CHAT,
        b'{"max_tokens":50,"model":"gpt-4o-2024-08-06"}',
    ),
]


@pytest.mark.parametrize(("settings", "body", "path", "expected"), CHANGED)
async def test_a_change_is_that_of_one_value(settings, body, path, expected):
    assert await sent_up(settings, body, path) == expected


async def test_a_changed_body_has_a_length_of_its_own():
    async with guarded(**capped()) as (upstream, weir):
        await testing.ask(weir, b'{"model":"m"}')
        assert upstream.last.headers["content-length"] == str(len(upstream.last.body))


async def test_a_chunked_body_is_changed_too():
    async with guarded(**capped()) as (upstream, weir):
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = await wire.fetch(weir.url, head.encode() + b'd\r\n{"model":"m"}\r\n0\r\n\r\n')
        assert (answer.status, upstream.last.body) == (200, b'{"max_tokens":50,"model":"m"}')


async def test_the_routes_own_model_goes_up_in_place_of_the_pinned_one():
    async with guarded(target="{upstream: up, model: own}", **PINNED, **capped()) as (upstream, weir):
        await testing.ask(weir, b'{"model":"gpt-4o"}')
        assert upstream.last.body == b'{"max_tokens":50,"model":"own"}'


async def test_what_is_allowed_is_the_model_that_goes_up():
    settings = {"aliases": {"fast": "gpt-4o-mini"}, "models": ["gpt-4o*"]}
    assert await sent_up(settings, b'{"model":"fast"}') == b'{"model":"gpt-4o-mini"}'
    assert (await refused(settings, b'{"model":"slow"}'))[0] == 403


async def test_the_exchange_knows_the_pinned_model():
    guard = Guard(GuardConfig(aliases={"gpt-4o": "gpt-4o-2024-08-06"}), name="guard")
    exchange = testing.exchange(body=b'{"model":"gpt-4o"}')
    assert await guard.on_request(exchange) is None
    assert (exchange.request.model, exchange.request.is_model_read) == ("gpt-4o-2024-08-06", True)


# -- no reading of a body is above the ceiling

KEYS = ["max_tokens", "max_completion_tokens", "Max_Tokens", "n", "x"]
VALUES = st.none() | st.booleans() | st.integers(-2, 300) | st.sampled_from(["9999", 50.0, 9999.0, [9999], {}])


@st.composite
def spelled_members(draw):
    """Members in any order, any number and any spelling."""
    members = []
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=5)):
        letters = [f"\\u{ord(letter):04x}" if draw(st.integers(0, 19)) == 0 else letter for letter in key]
        blank = draw(st.sampled_from(["", " ", "\n\t"]))
        members.append(f'"{"".join(letters)}"{blank}:{blank}{orjson.dumps(draw(VALUES)).decode()}')
    return ("{" + ",".join(members) + "}").encode()


def readings(body):
    """As parsers take it: the last of a name counts, or the first, and upper and lower case may be the same."""
    pairs = json.loads(body, object_pairs_hook=list)
    yield dict(pairs)
    yield dict(reversed(pairs))
    yield {key.lower(): value for key, value in pairs}


@given(spelled_members(), st.sampled_from(["reject", "cap"]))
async def test_however_it_is_read_no_answer_is_asked_for_above_the_ceiling(body, over):
    rules = {"max_tokens": {"ceiling": 100, "over": over}}
    guard = Guard(GuardConfig.model_validate_json(orjson.dumps(rules)), name="guard")
    exchange = testing.exchange(body=body)
    try:
        await guard.on_request(exchange)
    except ClientFault:
        return
    for reading in readings(await exchange.request.body()):
        asked = [reading[key] for key in KEYS[:2] if reading.get(key) is not None]
        assert asked
        assert all(type(value) is int and 1 <= value <= 100 for value in asked)


# -- forms


async def test_the_model_of_a_form_is_judged_and_pinned():
    transcriptions = "/v1/audio/transcriptions"
    settings = {"models": ["whisper-*"], "aliases": {"whisper": "whisper-1"}}
    for asked, expected in (("whisper-1", "whisper-1"), ("whisper", "whisper-1")):
        body = await sent_up(settings, FORM % asked.encode(), transcriptions, headers=MULTIPART)
        assert body == FORM % expected.encode()
    status, error = await refused(settings, FORM % b"other", transcriptions, headers=MULTIPART)
    assert (status, error["code"], error["param"]) == (403, "model_not_allowed", "model")


async def test_a_form_names_its_model_once():
    twice = FORM.partition(b'--edge\r\ncontent-disposition: form-data; name="file"')[0] % b"whisper-1" + FORM % b"other"
    for body, code in ((twice, "repeated_parameter"), (b"--edge--\r\n", "missing_required_parameter")):
        status, error = await refused({"models": ["*"]}, body, "/v1/audio/translations", headers=MULTIPART)
        assert (status, error["code"]) == (400, code)


async def test_a_form_that_no_rule_looks_at_is_not_read():
    assert await sent_up({**CEILING, **MESSAGES}, b"any", "/v1/images/edits", headers=MULTIPART) == b"any"


async def test_a_form_is_no_json():
    assert (await refused({}, FORM % b"m", CHAT, headers=MULTIPART))[0] == 400


# -- outcomes and settings


async def test_refusals_are_counted_as_what_they_are():
    async with guarded(**MODELS, **CEILING) as (_, weir):
        await testing.ask(weir, chat(model="other"))
        await testing.ask(weir, chat(max_tokens=101))
        page = weir.metrics.page()
    assert b'weir_requests_total{endpoint="chat",outcome="rejected",route="default"} 1.0' in page
    assert b'weir_requests_total{endpoint="chat",outcome="client_error",route="default"} 1.0' in page


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": {}}, "plugins[0].guard.max_tokens: has neither default nor ceiling; set one of them"),
        ({"max_tokens": {"default": 9, "ceiling": 8}}, "plugins[0].guard.max_tokens.default: the default is above"),
        ({"max_tokens": {"ceiling": 0}}, "plugins[0].guard.max_tokens.ceiling: must be 1 or more, not 0"),
        ({"max_tokens": {"ceiling": 9, "over": "clip"}}, "plugins[0].guard.max_tokens.over: 'clip' is not valid here"),
        ({"max_tokens": {"ceilings": 9}}, "unknown key 'ceilings'; did you mean 'ceiling'?"),
        ({"max_tokens": 9}, "plugins[0].guard.max_tokens: must be a mapping, not a number"),
        ({"models": []}, "plugins[0].guard.models: must have 1 or more entries"),
        ({"models": ["a*"], "aliases": {"x": "b"}}, "plugins[0].guard.aliases: 'x' stands for a model that 'models'"),
        ({"max_message_bytes": "256"}, "plugins[0].guard.max_message_bytes: '256' is not a size"),
        ({"max_messages": 0}, "plugins[0].guard.max_messages: must be 1 or more, not 0"),
        ({"max_choices": "8"}, "plugins[0].guard.max_choices: must be a whole number, not text"),
    ],
)
async def test_a_wrong_setting_is_told_with_its_place(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        async with guarded(**settings):
            pass
