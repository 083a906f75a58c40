"""What surely fits nowhere is told at once, and what may fit is never turned away."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import testing
from proxy.attempt import Target
from proxy.errors import ClientFault
from proxy.fit import Capacity, fewest_asked, fewest_tokens, fitting


class Limited:
    def __init__(self, **told):
        self.capacity = Capacity(**told) if told else None


def fits(body, **loads):
    exchange = testing.exchange(body=orjson.dumps(body))
    targets = [Target(name) for name in loads]
    return "".join(t.upstream for t in fitting(exchange.request, targets, loads))


def chat(words, **more):
    return {"messages": [{"role": "user", "content": "word " * words}], **more}


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a weir?"}]}, 6),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "one two"}, {"type": "image_url"}]}]}, 2),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a b c"}]}]}, 0),
        ({"inputs": "one two three", "parameters": {"max_new_tokens": 5}}, 3),
        ({"inputs": "one two three", "parameters": {"truncate": 2}}, 0),
        ({"inputs": "one two three", "parameters": {"truncate": None}}, 3),
        ({"prompt": ["one two three", "one two"]}, 3),
        ({"prompt": [1, 2, 3, 4]}, 4),
        ({"prompt": [[1, 2], [1, 2, 3]]}, 3),
        ({"prompt": "one two three", "truncate_prompt_tokens": 2}, 0),
        ({"input": ["one two", "one"]}, 2),
        ({"instructions": "Be brief.", "input": [{"role": "user", "content": [{"text": "one two"}]}]}, 4),
        ({"input": "one two three", "truncation": "auto"}, 0),
        ({"input": "one two three", "truncation": "disabled"}, 3),
        ({"messages": "no list", "prompt": {"a": 1}}, 2),
        ([1, 2], 0),
        (None, 0),
    ],
)
def test_a_prompt_has_at_least_as_many_tokens_as_words(body, tokens):
    assert fewest_tokens(body) == tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 5}, 5),
        ({"parameters": {"max_new_tokens": 7}}, 7),
        ({"max_tokens": None}, 0),
        ({"max_tokens": True, "max_output_tokens": "9"}, 0),
        ("text", 0),
    ],
)
def test_an_answer_may_have_what_is_asked_for(body, tokens):
    assert fewest_asked(body) == tokens


json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["messages", "content", "text", "prompt", "input", "parameters", "truncate", "max_tokens"]), x))  # fmt: skip


@given(json)
def test_whatever_an_app_sends_is_measured(body):
    assert fewest_tokens(body) >= 0
    assert fewest_asked(body) >= 0


def test_what_fits_goes_to_all():
    assert fits(chat(50, max_tokens=50), a=Limited(total_tokens=100), b=Limited()) == "ab"


def test_what_does_not_fit_one_goes_to_the_others():
    loads = {"a": Limited(input_tokens=10), "b": Limited(input_tokens=100), "c": Limited()}
    assert fits(chat(50), **loads) == "bc"


@pytest.mark.parametrize(
    ("body", "limits", "message", "param"),
    [
        (
            chat(101),
            {"input_tokens": 100},
            "the maximum context length for prompts is 100 tokens here, and this one has at least 101: make it shorter",
            "messages",
        ),
        (
            chat(60, max_tokens=50),
            {"input_tokens": 100, "total_tokens": 100},
            (
                "the maximum context length is 100 tokens here, and this request has at least 60 in its prompt and asks "
                "for 50 more: make the prompt shorter, or ask for fewer"
            ),
            "max_tokens",
        ),
    ],
)
def test_what_fits_nowhere_is_a_400_that_says_why(body, limits, message, param):
    with pytest.raises(ClientFault) as caught:
        fits(body, a=Limited(**limits), b=Limited(**limits))
    error = caught.value
    assert (error.status, error.error_code, error.param, error.message) == (
        400,
        "context_length_exceeded",
        param,
        message,
    )


def test_where_nobody_says_what_it_takes_nothing_is_read():
    exchange = testing.exchange(body=b"not read {")
    targets = [Target("a")]
    assert fitting(exchange.request, targets, {"a": Limited(concurrent=4)}) is targets
    assert fitting(exchange.request, targets, {"a": Limited(total_tokens=4)}) == targets
