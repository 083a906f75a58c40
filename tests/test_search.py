"""What `weir explain` finds is what the proxy does: the same routes, the same order of targets, for requests of any kind."""

import asyncio
import pathlib
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy import app, testing
from proxy.errors import NotFound
from proxy.plugin import Plugin
from proxy.request import Request
from proxy.routing import Route, Router, Rule, read_model
from proxy.search import find

FOLDER = pathlib.Path(__file__).parent / "golden" / "explain"
PATHS = ["/v1/chat/completions", "/v1/files/a", "/v1/files", "/v1/models", "/generate", "/v1/embeddings"]
MODELS = [None, "gpt-4o", "gpt-4o-mini-1", "llama-3", "claude"]
HEADERS = {"x-tier": ["free", "paid"], "authorization": ["Bearer canary-of-the-caller", "Bearer x"], "x-canary": ["1"]}


def plan_of(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return app.Plan.load(file)


def request_of(path, model, headers):
    body = b"" if model is None else orjson.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    return Request(
        "POST", path, CIMultiDictProxy(CIMultiDict({"content-type": "application/json", **headers})), body=body
    )


@pytest.fixture(scope="module")
def golden():
    return app.Plan.load(FOLDER / "config.yaml", {"OPENAI_API_KEY": "k"})


@settings(max_examples=60)
@given(
    path=st.sampled_from(PATHS),
    model=st.sampled_from(MODELS),
    headers=st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in HEADERS.items()}),
)
def test_the_route_is_the_routers(golden, path, model, headers):
    request = request_of(path, model, headers)
    router = Router([Route(route.name, Rule(route.match), None, ()) for route in golden.config.routes])
    found = asyncio.run(find(golden, request))
    asyncio.run(read_model(request))
    try:
        expected = router.find(request).name
    except NotFound:
        expected = None
    assert found.route == expected
    assert [passed.is_taken for passed in found.routes[:-1]] == [False] * (len(found.routes) - 1)
    assert (found.answer is not None and found.answer.code == "no_route") <= (expected is None)


@pytest.mark.parametrize("balance", ["ordered", "{by: sticky, key: 'header:x-session'}", "prefix"])
async def test_the_first_target_is_the_one_that_is_asked(tmp_path, balance):
    async with testing.upstream(testing.chat("a")) as a, testing.upstream(testing.chat("b")) as b:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{a: {{base_url: "{a.url}/v1"}}, b: {{base_url: "{b.url}/v1"}}}}\n'
            f"routes: [{{name: all, targets: [a, b], balance: {balance}}}]\n"
        )
        plan = plan_of(tmp_path, text)
        async with testing.configured(text) as weir:
            for session in ("1", "2", "3", "4"):
                body = {"model": "m", "messages": [{"role": "user", "content": f"session {session}"}]}
                headers = {"x-session": session}
                answer = await testing.ask(weir, body, headers=headers)
                fields = CIMultiDictProxy(CIMultiDict({"content-type": "application/json", **headers}))
                found = await find(plan, Request("POST", testing.CHAT, fields, body=orjson.dumps(body)))
                assert found.targets[0].upstream == answer.headers["x-weir-upstream"]
                assert urlsplit(found.targets[0].url).path == "/v1/chat/completions"


class Odd(Plugin):
    def explain(self, exchange, services):
        raise ZeroDivisionError("never mind")


async def test_a_plugin_that_cannot_say_is_told_of_and_ends_nothing(tmp_path):
    plan = plan_of(
        tmp_path,
        "upstreams: {a: {base_url: 'http://a/v1'}}\nplugins: [odd: {use: 'tests.test_search:Odd'}]\n"
        "routes: [{name: all, targets: [a]}]\n",
    )
    found = await find(plan, request_of("/v1/chat/completions", "m", {}))
    assert found.chain[0].says == ["cannot say what it would do: ZeroDivisionError: never mind"]
    assert (found.targets[0].url, found.answer) == ("http://a/v1/chat/completions", None)
