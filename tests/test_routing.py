"""Which route a request takes, what is read to find out, and what a target's own model changes."""

import pytest

from proxy import config, testing
from proxy.attempt import Target
from proxy.chain import Chain
from proxy.errors import ClientFault, NotFound
from proxy.routing import Route, Router, Rule, glob, model_of, path_glob, read_model
from tests import wire

CHAT = "/v1/chat/completions"
FORM = (
    b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff{"model":"no"}\r\n--edge--\r\n'
)
MULTIPART = {"content-type": "multipart/form-data; boundary=edge"}


class Untouchable:
    """A body that nobody may read."""

    async def readany(self):
        raise AssertionError("the body was read")

    def is_eof(self):
        return False


def route(name, **match):
    return Route(name, Rule(config.Match(**match)), Chain((), str), [Target("up")])


def asked(target=CHAT, *, method="POST", body=b"{}", **headers):
    return testing.exchange(method, target, headers=headers, body=body).request


def unread(target=CHAT):
    request = asked(target)
    request.at_hand, request._upload = None, Untouchable()
    return request


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("/v1/models", ["/v1/models"], ["/v1/models/", "/v1/models/a", "/v1/model", "/V1/models", "/x/v1/models"]),
        ("/v1/*", ["/v1/", "/v1/a", "/v1/a/b", "/v1/*"], ["/v1", "/v10/a", "/"]),
        ("/*", ["/", "/v1/a"], []),
        ("/v1/models/org%2Fname", ["/v1/models/org%2Fname"], ["/v1/models/org/name", "/v1/models/org%2fname"]),
        ("/v1/*/content", ["/v1/files/content", "/v1/files/a/content"], ["/v1/files/content/", "/v1/content"]),
        ("/v?/models", ["/v1/models", "/v2/models"], ["/v10/models", "/v/models"]),
        ("/v[12]/models", ["/v1/models", "/v2/models"], ["/v3/models", "/v[12]/models"]),
        ("/*/models/*", ["/v1/models/a", "/a/b/models/c/d"], ["/v1/models", "/models/a"]),
        ("/a.b", ["/a.b"], ["/aXb"]),
    ],
)
def test_paths_are_exact_prefixes_or_globs_over_the_raw_path(pattern, matched, others):
    match = path_glob(pattern)
    assert [path for path in [*matched, *others] if match(path)] == matched


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("gpt-4o", ["gpt-4o"], ["gpt-4o-mini", "GPT-4o", ""]),
        ("gpt-4o-mini*", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18"], ["gpt-4o"]),
        ("*/Llama-?", ["meta/Llama-3"], ["meta/Llama-31", "Llama-3"]),
        ("*", ["", "a", "a\nb"], []),
        ("ft:gpt-3.5:*", ["ft:gpt-3.5:a:b"], ["ft:gpt-305:a"]),
    ],
)
def test_models_are_exact_or_globs(pattern, matched, others):
    match = glob(pattern)
    assert [model for model in [*matched, *others] if match(model)] == matched


@pytest.mark.parametrize(
    ("wanted", "headers", "matches"),
    [
        ({"x-tier": "free"}, {"X-Tier": "free"}, True),
        ({"x-tier": "free"}, {"x-tier": "Free"}, False),
        ({"x-tier": "fr*"}, {"x-tier": "free"}, True),
        ({"x-tier": "*"}, {}, False),
        ({"x-tier": "*"}, {"x-tier": ""}, True),
        ({"x-tier": "free", "x-team": "a"}, {"x-tier": "free"}, False),
        ({"x-tier": "free", "x-team": "a"}, {"x-tier": "free", "x-team": "a"}, True),
    ],
)
def test_headers_must_all_match(wanted, headers, matches):
    rule = Rule(config.Match(header=wanted))
    assert rule.matches_head(asked(**headers)) is matches


def test_one_of_repeated_fields_is_enough():
    request = asked()
    headers = request.headers.copy()
    headers.extend([("x-tier", "paid"), ("x-tier", "free")])
    request.headers = headers
    assert Rule(config.Match(header={"x-tier": "free"})).matches_head(request)


def test_the_query_plays_no_part():
    assert Router([route("a", path="/v1/models")]).find(asked("/v1/models?x=/v1/*")).name == "a"


def test_the_first_match_wins():
    router = Router([route("a", path="/v1/*"), route("b", path=CHAT), route("c")])
    assert router.find(asked()).name == "a"
    assert router.find(asked("/health")).name == "c"


def test_nobody_asks_for_a_model_that_no_rule_needs():
    assert Router([route("a", path=CHAT), route("b", model="m")]).find(unread()).name == "a"


async def test_a_rule_whose_path_does_not_match_needs_no_model():
    router = Router([route("a", path="/v1/embeddings", model="m"), route("b")])
    assert router.find(unread()).name == "b"


async def test_a_rule_that_could_match_asks_for_the_model_once():
    router = Router([route("small", model="small*"), route("big", model="big"), route("rest")])
    for body, name in [
        (b'{"model":"small-1"}', "small"),
        (b'{"model":"big"}', "big"),
        (b'{"model":"x"}', "rest"),
        (b"{}", "rest"),
    ]:
        request = asked(body=body)
        assert router.find(request) is None
        await read_model(request)
        assert router.find(request).name == name


async def test_a_request_without_a_model_matches_no_glob():
    router = Router([route("any", model="*")])
    request = asked("/v1/models", method="GET", body=b"")
    await read_model(request)
    with pytest.raises(NotFound, match=r"^no route matches GET /v1/models$"):
        router.find(request)


async def test_no_match_says_so():
    router = Router([route("a", path="/v1/embeddings"), route("b", model="big")])
    request = asked(body=b'{"model":"small"}')
    await read_model(request)
    with pytest.raises(NotFound, match=r"^no route matches POST /v1/chat/completions with model 'small'$") as refused:
        router.find(request)
    assert (refused.value.status, refused.value.error_code) == (404, "no_route")


async def test_a_refusal_shows_no_more_than_a_log_line_can_bear():
    request = asked("/" + "p" * 5000, body=b'{"model":"' + b"m" * 5000 + b'"}')
    await read_model(request)
    with pytest.raises(NotFound) as refused:
        Router([route("a", model="x")]).find(request)
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("body", "headers", "model"),
    [
        (b'{"model":"m"}', {}, "m"),
        (b'{"mod\\u0065l":"m"}', {}, "m"),
        (b'{"model":"a","model":"b"}', {}, "b"),
        (b'{"model":7}', {}, None),
        (b'{"model":null}', {}, None),
        (b'{"x":{"model":"m"}}', {}, None),
        (b'[{"model":"m"}]', {}, None),
        (b"", {}, None),
        (b'{"model":"m"}', {"content-type": "Application/JSON; charset=utf-8"}, "m"),
        (b'{"model":"m"}', {"content-type": "application/vnd.api+json"}, "m"),
        (b'  {"model":"m"}', {"content-type": "text/plain"}, "m"),
        (b'{"model":', {"content-type": "text/plain"}, None),
        (b"model=m", {"content-type": "application/x-www-form-urlencoded"}, None),
        (FORM, MULTIPART, "whisper-1"),
        (b"no form at all", MULTIPART, None),
    ],
)
async def test_the_model_that_a_request_names(body, headers, model):
    assert await model_of(asked(body=body, **headers)) == model


@pytest.mark.parametrize("body", [b'{"model":', b"not json", b"\xff\xfe{", b'{"model":"\xff"}'])
async def test_json_that_is_none_is_the_clients_fault(body):
    with pytest.raises(ClientFault, match="the request body is not valid JSON") as refused:
        await model_of(asked(body=body))
    assert refused.value.error_code == "invalid_json"


# -- the same over the wire


def routes(upstream, listed):
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{up: {{base_url: "{upstream.url}/v1"}}}}\nroutes: {listed}\n'
    )


async def test_a_body_that_is_not_json_is_400_where_a_rule_needs_it_and_passes_where_none_does():
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        by_model = '[{name: a, match: {path: /v1/chat/*, model: "m*"}, targets: [up]}, {name: b, targets: [up]}]'
        async with testing.configured(routes(upstream, by_model)) as weir:
            refused = await testing.ask(weir, b'{"model": "m')
            passed = await testing.ask(weir, b'{"model": "m', path="/v1/embeddings")
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_json")
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert (passed.status, passed.headers["x-weir-route"]) == (200, "b")
    assert [received.body for received in upstream.requests] == [b'{"model": "m']


async def test_an_upload_that_no_rule_asks_about_streams_on_before_it_is_complete():
    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with testing.upstream(script) as upstream:
        listed = '[{name: a, match: {path: /v1/embeddings, model: "m"}, targets: [up]}, {name: b, targets: [up]}]'
        async with testing.configured(routes(upstream, listed)) as weir, wire.connected(weir.url) as client:
            await client.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n" + bytes(500_000))
            await wire.until(lambda: upstream.wires)
            await client.send(bytes(500_000))
            assert (await client.answer()).status == 200
    assert len(upstream.last.body) == 1_000_000


async def test_no_route_is_a_404_that_says_so():
    async with (
        testing.upstream(testing.answer(b"{}")) as upstream,
        testing.configured(routes(upstream, "[{name: a, match: {model: x}, targets: [up]}]")) as weir,
    ):
        answer = await testing.ask(weir, {"model": "y"})
    assert answer.status == 404
    assert answer.json()["error"] == {
        "message": "no route matches POST /v1/chat/completions with model 'y'",
        "type": "invalid_request_error",
        "code": "no_route",
        "param": None,
    }
    assert "x-weir-route" not in answer.headers
    assert not upstream.requests


async def test_a_targets_own_model_replaces_the_apps_and_nothing_else():
    body = (
        '{ "x": 1.0,\t"model" : "small" , "messages":[{"content":"\\u263a ☺","model":"small"}], "x": 2e1 }\n'.encode()
    )
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        listed = "[{name: a, match: {model: small}, targets: [{upstream: up, model: org/Größer}]}]"
        async with testing.configured(routes(upstream, listed)) as weir:
            assert (await testing.ask(weir, body)).status == 200
    expected = body.replace(b'"model" : "small"', '"model" : "org/Größer"'.encode())
    assert upstream.last.body == expected
    assert upstream.last.headers["content-length"] == str(len(expected))


async def test_a_forms_model_is_routed_and_replaced_too():
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        listed = '[{name: a, match: {model: "whisper*"}, targets: [{upstream: up, model: large}]}]'
        async with testing.configured(routes(upstream, listed)) as weir:
            answer = await testing.ask(weir, FORM, path="/v1/audio/transcriptions", headers=MULTIPART)
    assert answer.status == 200
    assert upstream.last.body == FORM.replace(b"whisper-1", b"large")
    assert upstream.last.headers["content-length"] == str(len(upstream.last.body))


@pytest.mark.parametrize(
    "body",
    [b'{"messages": []}', b"not json", b'["model"]', b'{"model": "m"', b""],
    ids=lambda body: body.decode() or "-",
)
async def test_a_body_that_names_no_model_gets_none(body):
    async with testing.upstream(testing.answer(b"{}")) as upstream:
        listed = "[{name: a, targets: [{upstream: up, model: big}]}]"
        async with testing.configured(routes(upstream, listed)) as weir:
            assert (await testing.ask(weir, body)).status == 200
    assert upstream.last.body == body
