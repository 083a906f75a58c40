"""No two callers ever share a key, whatever they send; one caller's key hangs on all that shapes the answer (5, 68)."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.cache.key import IGNORED, SHARED, callers, key_of, origin_of, principals, says_once
from proxy import testing
from proxy.plugin import Target

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ORIGIN = ("main", [Target("up")], {"up": "https://api.example/v1"})
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
}

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(
    st.sampled_from(["principal", "scope", "user", "model", "messages", "authorization", ""]), json
)
names = st.text(min_size=1, max_size=12)
headers = st.dictionaries(
    st.sampled_from(["x-weir-user", "openai-organization", "x-principal"]), st.text("abc:1", max_size=6)
)


def made_of(origin, target):
    route, targets, bases = origin
    return origin_of(route, targets, target, bases)


def key(body, *, principal=None, target=PATHS["chat"], origin=ORIGIN, **fields):
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    request = testing.exchange("POST", target, headers=headers).request
    scope = callers(request) if principal is None else principals(principal)
    return None if scope is None else key_of(scope, made_of(origin, target), request, request.endpoint, body)


@given(names, names, bodies, bodies, headers, headers)
def test_no_two_principals_ever_share_a_key(ada, bob, body, other, fields, others):
    if ada != bob:
        assert key(body, principal=ada, **fields) != key(other, principal=bob, **others)
        assert key(body, principal=ada, **fields) != key(body, principal=bob, **fields)


@given(st.text("abc:0123", min_size=1), st.text("abc:0123", min_size=1), bodies)
def test_no_two_credentials_ever_share_a_key(ada, bob, body):
    assert (key(body, authorization=f"Bearer {ada}") == key(body, authorization=f"Bearer {bob}")) is (ada == bob)
    assert key(body, x_api_key=ada) != key(body, api_key=ada)


@given(names, bodies)
def test_a_principal_is_not_a_credential_nor_everybody(name, body):
    request = testing.exchange().request
    own = key(body, principal=name)
    assert own != key(body, authorization=name)
    assert own != key_of(SHARED, made_of(ORIGIN, PATHS["chat"]), request, "chat", body)


@given(bodies)
def test_a_key_is_one_callers_whatever_order_its_body_has(body):
    turned = dict(reversed(body.items()))
    assert key(body, principal="ada") == key(turned, principal="ada")


@pytest.mark.parametrize(
    "fields", [{}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Bearer "}]
)
def test_who_says_nothing_has_no_scope(fields):
    assert key(ASK, **fields) is None


def test_a_cookie_is_a_credential_too():
    assert key(ASK, authorization="a", cookie="session=1") != key(ASK, authorization="a", cookie="session=2")


SHAPING = {
    "audio": {},
    "frequency_penalty": 1,
    "function_call": "auto",
    "functions": [],
    "input": "x",
    "instructions": "x",
    "dimensions": 2,
    "encoding_format": "base64",
    "echo": True,
    "logit_bias": {"1": 1},
    "logprobs": True,
    "max_completion_tokens": 5,
    "max_output_tokens": 5,
    "max_tokens": 5,
    "max_tool_calls": 1,
    "messages": [{"role": "user", "content": "ho"}],
    "modalities": ["text"],
    "model": "m2",
    "moderation": {},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {},
    "presence_penalty": 1,
    "prompt": "x",
    "reasoning": {"effort": "low"},
    "reasoning_effort": "low",
    "response_format": {"type": "json_object"},
    "seed": 1,
    "stop": ["x"],
    "store": False,
    "suffix": "x",
    "temperature": 0,
    "text": {},
    "tool_choice": "none",
    "tools": [],
    "top_k": 1,
    "top_logprobs": 1,
    "top_p": 0.1,
    "truncation": "auto",
    "verbosity": "low",
    "a_future_parameter": 1,
}


@pytest.mark.parametrize("shape", PATHS)
@pytest.mark.parametrize("name", SHAPING)
def test_each_parameter_shapes_the_answer(name, shape):
    target = PATHS[shape]
    assert key({**ASK, name: SHAPING[name]}, principal="a", target=target) != key(ASK, principal="a", target=target)


@pytest.mark.parametrize(
    ("shape", "name"), [(shape, name) for shape, names in IGNORED.items() for name in sorted(names)]
)
def test_but_for_these(shape, name):
    target = PATHS[shape]
    assert key({**ASK, name: "x"}, principal="a", target=target) == key(ASK, principal="a", target=target)


@pytest.mark.parametrize("name", ["metadata", "user", "safety_identifier", "prompt_cache_key"])
def test_what_a_response_repeats_counts_there(name):
    target = PATHS["responses"]
    assert key({**ASK, name: "x"}, principal="a", target=target) != key(ASK, principal="a", target=target)


OTHERWISE = [
    {"target": "/v1/chat/completions?api-version=2"},
    {"openai_organization": "org-1"},
    {"openai_project": "p"},
    {"openai_beta": "x"},
    {"origin": ("other", [Target("up")], {"up": "https://api.example/v1"})},
    {"origin": ("main", [Target("up", "gpt-5")], {"up": "https://api.example/v1"})},
    {"origin": ("main", [Target("up")], {"up": "https://elsewhere.example/v1"})},
    {"origin": ("main", [Target("up"), Target("", static="sorry")], {"up": "https://api.example/v1"})},
]


@pytest.mark.parametrize("other", OTHERWISE)
def test_so_does_where_it_comes_from(other):
    assert key(ASK, principal="a", **other) != key(ASK, principal="a")


@given(bodies)
def test_a_body_that_says_all_once_is_known_for_one(body):
    assert says_once(orjson.dumps(body), body)
    assert says_once(orjson.dumps(body, option=orjson.OPT_INDENT_2), body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "a", "model": "b"}',
        b'{"messages": [{"content": "a", "content": "b"}]}',
        b'{"mod\\u0065l": "a", "model": "b"}',
        b'{"model": "a", "model": "b", "x": "\\u0022\\u0022\\u0022\\u0022"}',
        b'{"a": 1, "a": 2}',
    ],
)
def test_a_body_that_holds_a_key_twice_is_known(body):
    assert not says_once(body, orjson.loads(body))


def test_what_is_nested_too_deeply_has_no_key():
    deep: dict = {}
    for _ in range(300):
        deep = {"a": deep}
    assert key({**ASK, "x": deep}, principal="a") is None
