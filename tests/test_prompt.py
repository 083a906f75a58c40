"""Prompts as bytes to compare, in every API's shape."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.prompt import beginning, opening

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "What is a weir?"}
MORE = [{"role": "assistant", "content": "A dam."}, {"role": "user", "content": "Where?"}]


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ({"messages": [SYSTEM, ASKED]}, {"messages": [SYSTEM, ASKED, *MORE]}),
        ({"instructions": "Be brief.", "input": "Hi"}, {"instructions": "Be brief.", "input": ["Hi", *MORE]}),
        ({"input": [ASKED]}, {"input": [ASKED, {"type": "reasoning", "summary": []}, *MORE]}),
        ({"prompt": "Once upon"}, {"prompt": "Once upon", "temperature": 1}),
        ({"inputs": "Once upon"}, {"inputs": "Once upon", "parameters": {"seed": 2}}),
        ({"messages": [{"role": "user", "content": "Hi"}]}, {"messages": [{"content": "Hi", "role": "user"}]}),
        (
            {"messages": [ASKED]},
            {"messages": [{"role": "user", "content": [{"text": "What is a weir?", "type": "text"}]}]},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
            {"messages": [{"role": "user", "content": [{"image_url": {"url": "data:,x"}, "type": "image_url"}]}]},
        ),
    ],
)
def test_a_conversation_opens_alike_over_its_turns(first, later):
    assert opening(first) == opening(later) != b""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"messages": [SYSTEM, ASKED]}, {"messages": [ASKED]}),
        ({"messages": [ASKED]}, {"messages": [{"role": "user", "content": "What is a lock?"}]}),
        ({"prompt": "a"}, {"prompt": "b"}),
        ({"prompt": [1, 2]}, {"prompt": [2, 1]}),
        ({"instructions": "x", "input": "y"}, {"instructions": "y", "input": "x"}),
    ],
)
def test_other_words_are_another_conversation(one, other):
    assert opening(one) != opening(other)


@pytest.mark.parametrize("body", [None, [], "text", 5, {}, {"messages": []}, {"messages": None}])
def test_without_a_prompt_there_is_nothing(body):
    assert (opening(body), beginning(body, 100)) == (b"", b"")


def test_the_beginning_is_as_long_as_wanted():
    body = {"messages": [{"role": "user", "content": "x" * 10}, {"role": "user", "content": "y" * 10}]}
    whole = beginning(body, 1000)
    assert whole == b"user\0" + b"x" * 10 + b"\0user\0" + b"y" * 10 + b"\0"
    assert [beginning(body, size) for size in range(40)] == [whole[:size] for size in range(40)]


def test_what_is_nested_too_deeply_does_no_harm():
    deep = orjson.loads(b'{"messages": [{"role": "user", "content": [' + b"[" * 900 + b"]" * 900 + b"]}]}")
    assert opening(deep) == b"user\0\0"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3), lambda x: st.lists(x, max_size=3)
)
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "text", "type"]), JSON, max_size=4) | JSON


@given(st.dictionaries(st.sampled_from(["messages", "input", "prompt", "instructions"]), st.lists(MESSAGE) | JSON))
def test_no_body_makes_it_fail(body):
    assert beginning(body, 10_000).startswith(opening(body)[:10_000])
