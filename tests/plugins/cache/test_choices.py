"""From deltas to messages and back: nothing is lost, nothing is said twice."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from plugins.cache.choices import chat_events, chat_of, completion_events, completion_of

SHELL = {"id": "c", "created": 1, "model": "m", "object": "chat.completion", "service_tier": None}
text = st.text(max_size=6)
maybe = st.none() | text.filter(bool)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": text.filter(bool),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": text.filter(bool), "arguments": text}),
        }
    ),
    max_size=3,
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": maybe, "refusal": maybe},
    optional={"reasoning_content": text.filter(bool), "tool_calls": calls.filter(bool)},
)
logprobs = st.none() | st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": text}), min_size=1, max_size=2), "refusal": st.none()}
)
wholes = st.lists(st.tuples(messages, logprobs, st.sampled_from(["stop", "tool_calls"])), min_size=1, max_size=3)


def whole(made):
    choices = [
        {"index": index, "message": message, "logprobs": probs, "finish_reason": reason, "stop_reason": 7}
        for index, (message, probs, reason) in enumerate(made)
    ]
    return {**SHELL, "choices": choices, "usage": {"prompt_tokens": 1}}


@given(wholes)
def test_json_that_was_made_a_stream_is_the_same_json_again(made):
    json = whole(made)
    again = chat_of(b"".join(chat_events(json, wants_usage=True)))
    assert again == json


@given(st.lists(st.text(max_size=8), min_size=1, max_size=3))
def test_completions_likewise(texts):
    choices = [
        {"index": index, "text": said, "logprobs": {"tokens": [said], "text_offset": [0]}, "finish_reason": "stop"}
        for index, said in enumerate(texts)
    ]
    json = {**SHELL, "object": "text_completion", "choices": choices, "usage": {"prompt_tokens": 1}}
    assert completion_of(b"".join(completion_events(json, wants_usage=True))) == json


def stream(*deltas):
    chunks = [{**SHELL, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)


def message(*deltas):
    return chat_of(stream(*deltas))["choices"][0]["message"]


def test_what_servers_repeat_in_each_delta_is_said_once():
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    rest = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "}"}}
    told = message({"role": "assistant", "tool_calls": [call]}, {"role": "assistant", "tool_calls": [rest]})
    assert (told["role"], told["content"]) == ("assistant", None)
    assert told["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_what_is_empty_or_null_later_takes_nothing_away():
    told = message({"content": "a", "role": "assistant"}, {"content": None, "role": ""}, {"content": "", "role": None})
    assert (told["content"], told["role"]) == ("a", "assistant")


def test_padding_is_not_part_of_an_answer():
    assert "obfuscation" not in chat_of(b'data: {"choices":[{"index":0,"delta":{}}],"obfuscation":"xyz"}\n\n')


def test_choices_that_come_in_any_order_stand_in_theirs():
    told = b"".join(b'data: {"choices":[{"index":%d,"text":"%d"}]}\n\n' % (index, index) for index in (2, 0, 1, 0))
    assert [choice["text"] for choice in completion_of(told)["choices"]] == ["00", "1", "2"]


def test_a_stream_says_its_role_first_and_its_reason_last():
    events = list(chat_events(whole([({"role": "assistant", "content": "hi"}, None, "stop")]), wants_usage=False))
    first, *_, last, done = events
    assert orjson.loads(first[6:])["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert orjson.loads(last[6:])["choices"][0]["finish_reason"] == "stop"
    assert done == b"data: [DONE]\n\n"
    assert not any(b'"usage"' in event for event in events)
