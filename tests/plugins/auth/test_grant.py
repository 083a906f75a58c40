"""Until when a key counts, and which routes and models it may use, however a request names its model."""

from datetime import UTC, datetime, timedelta

import pytest

from plugins.auth.grant import Grant
from proxy import testing
from proxy.plugin import ClientFault, Principal, Rejected

from .house import KEY, bearer, code, entry, house

DENIED = (403, "model_not_allowed")
TWICE = (400, "repeated_model")
PASSED = (200, None)
FORM = "multipart/form-data; boundary=edge"
YAML = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams: {{up: {{base_url: "{url}/v1"}}}}
plugins: [{{auth: {{keys: [{{name: team, sha256: "{digest}", {limit}}}]}}}}]
routes:
  - {{name: mini, match: {{model: "*-mini"}}, targets: [{{upstream: up, model: other}}]}}
  - {{name: chat, match: {{path: "/v1/chat/*"}}, targets: [up]}}
"""


def form(*fields: str) -> bytes:
    parts = [f"--edge\r\ncontent-disposition: form-data; {field}\r\n" for field in fields]
    return "".join(parts).encode() + b"--edge--\r\n"


# -- expiry


@pytest.mark.parametrize("expires", ["2020-01-31", "2020-01-31T12:00:00Z", "2020-01-31T12:00+14:00"])
async def test_an_expired_key_is_told_so(expires, caplog):
    async with house(keys=[entry(expires=expires)]) as (weir, upstream):
        answer = await testing.ask(weir, {"model": "m"}, headers=bearer(KEY))
    error = answer.json()["error"]
    assert (answer.status, error["code"], answer.headers["www-authenticate"]) == (401, "invalid_api_key", "Bearer")
    assert error["message"] == "the API key or token of this request has expired; ask for a new one"
    assert upstream.requests == []
    assert [record.key for record in caplog.records if record.message == "a key has expired"] == ["team"]


async def test_a_key_counts_until_the_day_is_over():
    today = datetime.now(UTC).date().isoformat()
    async with house(keys=[entry(expires=today)]) as (weir, _):
        assert await code(weir, bearer(KEY)) == PASSED


async def test_a_key_that_expires_while_it_is_used():
    soon = datetime.now(UTC) + timedelta(milliseconds=30)
    grant = Grant(Principal("team"), expires=soon)
    await grant.check(testing.exchange())
    while datetime.now(UTC) < soon:
        pass
    with pytest.raises(Rejected):
        await grant.check(testing.exchange())


# -- routes


@pytest.mark.parametrize(
    ("routes", "model", "path", "told"),
    [
        ("[chat]", "gpt-4o", testing.CHAT, PASSED),
        ("[chat]", "gpt-4o-mini", testing.CHAT, (403, "route_not_allowed")),
        ("[chat, mini]", "gpt-4o-mini", testing.CHAT, PASSED),
        ("[chat, mini]", "gpt-4o", "/nowhere", (403, "route_not_allowed")),
        ("[cat]", "gpt-4o", testing.CHAT, (403, "route_not_allowed")),
    ],
)
async def test_a_key_for_some_routes(routes, model, path, told):
    async with testing.upstream(testing.chat("hi")) as upstream:
        text = YAML.format(url=upstream.url, digest=entry()["sha256"], limit=f"routes: {routes}")
        async with testing.configured(text) as weir:
            assert await code(weir, bearer(KEY), {"model": model}, path=path) == told
    assert len(upstream.requests) == (told == PASSED)


# -- models


async def test_the_model_that_is_asked_for_counts_and_not_the_one_that_answers():
    async with testing.upstream(testing.chat("hi")) as upstream:
        text = YAML.format(url=upstream.url, digest=entry()["sha256"], limit="models: [gpt-4o-mini]")
        async with testing.configured(text) as weir:
            assert await code(weir, bearer(KEY), {"model": "gpt-4o-mini"}) == PASSED
            assert await code(weir, bearer(KEY), {"model": "other"}) == DENIED
    assert upstream.last.json() == {"model": "other"}


async def test_the_refusal_names_the_model():
    async with house(keys=[entry(models=["gpt-4o*"])]) as (weir, _):
        told = (await testing.ask(weir, {"model": "o3" * 99}, headers=bearer(KEY))).json()["error"]
        nameless = (await testing.ask(weir, {}, headers=bearer(KEY))).json()["error"]
    assert told["message"] == f"this API key is not allowed the model '{'o3' * 50}'"
    assert nameless["message"] == "this API key is not allowed requests that name no model"
    assert (told["param"], told["type"]) == ("model", "invalid_request_error")


JSON = {
    b'{"model":"gpt-4o"}': PASSED,
    b'{"model":"gpt-4o-mini"}': PASSED,
    b'{"messages":[{"content":"model"}],"model":"gpt-4o"}': PASSED,
    b'{"mod\\u0065l":"gpt-4o"}': PASSED,
    b'{"model":"GPT-4o"}': DENIED,
    b'{"model":"o3"}': DENIED,
    b'{"model":" gpt-4o"}': DENIED,
    b'{"model":"x/gpt-4o"}': DENIED,
    b'{"model":""}': DENIED,
    b'{"model":null}': DENIED,
    b'{"model":["gpt-4o"]}': DENIED,
    b'{"model":{"a":"gpt-4o"}}': DENIED,
    b'{"Model":"gpt-4o"}': DENIED,
    b'{"input":"x"}': DENIED,
    b'["gpt-4o"]': DENIED,
    b'"gpt-4o"': DENIED,
    b'{"model":"o3","model":"gpt-4o"}': TWICE,
    b'{"model":"gpt-4o","model":"o3"}': TWICE,
    b'{"model":"gpt-4o","model":"gpt-4o"}': TWICE,
    b'{"mod\\u0065l":"o3","model":"gpt-4o"}': TWICE,
    b'{"model":"gpt-4o","MODEL":"o3"}': TWICE,
    b'{"Model":"o3","model":"gpt-4o"}': TWICE,
    b'{"model":"gpt-4o"': (400, "invalid_json"),
    b'\xef\xbb\xbf{"model":"gpt-4o"}': (400, "invalid_json"),
    '{"model":"gpt-4o"}'.encode("utf-16"): (400, "invalid_json"),
    b"model=gpt-4o": (400, "invalid_json"),
}


async def test_models_of_json_bodies():
    async with house(keys=[entry(models=["gpt-4o*"])]) as (weir, upstream):
        told = {body: await code(weir, bearer(KEY), body) for body in JSON}
    assert told == JSON
    assert [received.body for received in upstream.requests] == [body for body, told in JSON.items() if told == PASSED]


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "application/x-www-form-urlencoded"])
async def test_models_of_bodies_that_do_not_say_what_they_are(kind):
    headers = {**bearer(KEY), "content-type": kind}
    async with house(keys=[entry(models=["gpt-4o"])]) as (weir, upstream):
        assert await code(weir, headers, b'{"model":"gpt-4o"}') == PASSED
        for body in (b'{"model":"o3"}', b"model=gpt-4o", b'{"model":"gpt-4o"', b"\x1f\x8b\x08"):
            assert await code(weir, headers, body) == DENIED
    assert len(upstream.requests) == 1


FORMS = {
    form('name="model"\r\n\r\nwhisper-1'): PASSED,
    form('name="file"; filename="model.wav"\r\n\r\n\0\xff', 'name="model"\r\n\r\nwhisper-1'): PASSED,
    form('name="model"\r\n\r\ngpt-4o'): DENIED,
    form('name="file"; filename="a.wav"\r\n\r\nx'): DENIED,
    form('name="model"\r\n\r\nwhisper-1', 'name="model"\r\n\r\nwhisper-1'): TWICE,
    form('name="model"\r\n\r\ngpt-4o', 'name="model"\r\n\r\nwhisper-1'): TWICE,
    form("name=model\r\n\r\ngpt-4o", 'name="model"\r\n\r\nwhisper-1'): TWICE,
    form("name*=utf-8''model\r\n\r\ngpt-4o", 'name="model"\r\n\r\nwhisper-1'): TWICE,
    form(f'x="{"x" * 5000}"; name="model"\r\n\r\ngpt-4o', 'name="model"\r\n\r\nwhisper-1'): TWICE,
    form('name="model"\r\n\r\nwhisper-1').replace(b"\r\n", b"\n"): DENIED,
    b"": PASSED,
}


async def test_models_of_forms():
    headers = {**bearer(KEY), "content-type": FORM}
    async with house(keys=[entry(models=["whisper-*"])]) as (weir, upstream):
        told = {body: await code(weir, headers, body, path="/v1/audio/transcriptions") for body in FORMS}
    assert told == FORMS
    assert len(upstream.requests) == [*FORMS.values()].count(PASSED)


async def check(method: str, target: str, body: bytes = b"", *, is_upgrade: bool = False) -> None:
    exchange = testing.exchange(method, target, body=body)
    exchange.request.is_upgrade = is_upgrade
    await Grant(Principal("team"), models=["gpt-4o", "a/b"]).check(exchange)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/models", b""),
        ("GET", "/v1/models?model=o3", b""),
        ("DELETE", "/v1/files/f-1", b""),
        ("POST", "/v1/responses/r-1/cancel", b""),
        ("POST", "/openai/deployments/gpt-4o/chat/completions?api-version=1", b'{"messages":[]}'),
        ("POST", "/openai/deployments/a%2Fb/chat/completions", b"{}"),
        ("POST", "/v1/engines/gpt-4o/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/v1/chat/completions", b'{"model":"a/b"}'),
    ],
)
async def test_requests_that_a_key_for_some_models_may_make(method, target, body):
    await check(method, target, body)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/generate", b'{"inputs":"x"}'),
        ("POST", "/v1/batches", b'{"input_file_id":"f-1"}'),
        ("GET", "/v1/models", b"{}"),
        ("POST", "/openai/deployments/o3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/openai/deployments/o3/chat/completions", b""),
        ("POST", "/openai/deployments/gpt-4o/chat/completions", b'{"model":"o3"}'),
        ("POST", "/deployments/o3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/openai/deployment%73/o3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/openai%2Fdeployments%2Fo3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/OpenAI/Deployments/o3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/gateway/openai/deployments/o3/chat/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/v1/engines/o3/completions", b'{"model":"gpt-4o"}'),
        ("POST", "/v1/chat/completions?model=gpt-4o", b"{}"),
    ],
)
async def test_requests_that_it_may_not_make(method, target, body):
    with pytest.raises(Rejected) as refused:
        await check(method, target, body)
    assert refused.value.error_code == "model_not_allowed"


async def test_a_websocket_names_its_model_in_the_query():
    for query in ("?model=gpt-4o", "?deployment=gpt-4o&api-version=1", "?model=a%2Fb"):
        await check("GET", f"/v1/realtime{query}", is_upgrade=True)
    for query in (
        "",
        "?",
        "?model=",
        "?model=o3",
        "?model=gpt-4o&model=o3",
        "?model=gpt-4o&deployment=o3",
        "?MODEL=o3",
    ):
        with pytest.raises(Rejected):
            await check("GET", f"/v1/realtime{query}", is_upgrade=True)


async def test_the_model_that_routing_has_read_is_not_read_again():
    exchange = testing.exchange(body=b'{"model":"gpt-4o"}')
    exchange.request.model, exchange.request.is_model_read = "o3", True
    with pytest.raises(Rejected):
        await Grant(Principal("team"), models=["gpt-4o"]).check(exchange)


async def test_a_body_that_is_no_json_is_the_callers_fault():
    with pytest.raises(ClientFault):
        await check("POST", "/v1/chat/completions", b"{")
