"""What is kept, judged on the bytes: most answers with a look, the others choice by choice, both with the same verdict."""

import orjson
import pytest

from plugins.cache.verdict import is_kept
from proxy import testing
from tests.plugins.cache.house import EVENTS


def judged(body, *, shape="chat", one=True, is_stream=True, tool_calls=False):
    return is_kept(shape, body, is_stream=is_stream, has_one_choice=one, tool_calls=tool_calls)


SAYS = testing.chat_event({"content": 'he said: "finish_reason": "length", "tool_calls": [{, "error": {"x'})
STREAMS = {
    "text that looks like keys": (b"".join([SAYS, *EVENTS]), True),
    "with spaces": (b"".join(EVENTS).replace(b'":', b'": '), True),
    "no finish": (b"".join([*EVENTS[:-2], EVENTS[-1]]), False),
    "length": (b"".join(EVENTS).replace(b'"stop"', b'"length"'), False),
    "an error object": (b"".join([EVENTS[0], b'data: {"error":{"message":"x"}}\n\n', *EVENTS]), False),
    "an error of null": (b"".join([EVENTS[0].replace(b'"model"', b'"error":null,"model"'), *EVENTS[1:]]), True),
    "nothing": (b"", False),
}


@pytest.mark.parametrize(("body", "kept"), STREAMS.values(), ids=STREAMS)
def test_streams(body, kept):
    assert judged(body) is judged(body, one=False) is kept


def test_every_choice_must_have_finished():
    """Case 115: finish on one only."""
    other = testing.chat_event({"content": "x"}).replace(b'"index":0', b'"index":1')
    assert not judged(b"".join([other, *EVENTS]), one=False)
    ends = testing.chat_event({}, "stop").replace(b'"index":0', b'"index":1')
    assert judged(b"".join([other, ends, *EVENTS]), one=False)


def test_embeddings_are_taken_without_a_parse():
    made = orjson.dumps({"object": "list", "data": [{"embedding": [0.5] * 100}], "model": "e"})
    assert judged(made, shape="embeddings", is_stream=False)
    assert not judged(made[:-3], shape="embeddings", is_stream=False)
    assert not judged(made[:-1] + b',"error":{"message":"x"}}', shape="embeddings", is_stream=False)


def json(*reasons, **more):
    choices = [
        {"index": index, "message": {"content": "x"}, "finish_reason": reason} for index, reason in enumerate(reasons)
    ]
    return orjson.dumps({"choices": choices, **more})


JSON = {
    "one choice": (json("stop"), True),
    "three": (json("stop", "stop", "stop"), True),
    "one of three at a length": (json("stop", "length", "stop"), False),
    "one of three open": (json("stop", None, "stop"), False),
    "none": (json(), False),
    "an error beside it": (json("stop", error={"message": "x"}), False),
    "an error of null": (json("stop", error=None), True),
    "cut": (json("stop")[:-1], False),
    "a list": (b"[" + json("stop") + b"]", False),
}


@pytest.mark.parametrize(("body", "kept"), JSON.values(), ids=JSON)
def test_json(body, kept):
    assert judged(body, is_stream=False) is judged(body, is_stream=False, one=False) is kept


def response(**more):
    item = {"type": "message", "content": []}
    return {
        "object": "response",
        "status": "completed",
        "error": None,
        "model": "m",
        "output": [item],
        "usage": {"input_tokens": 1, "output_tokens": 2},
        **more,
    }


RESPONSES = {
    "completed": (response(), True),
    "incomplete": (response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), False),
    "failed": (response(status="failed", error={"message": "x"}), False),
    "queued": (response(status="queued"), False),
    "with an error": (response(error={"message": "x"}), False),
    "a call": (response(output=[{"type": "function_call"}]), False),
    "a search": (response(output=[{"type": "web_search_call"}]), False),
    "empty": (response(output=[]), False),
}


@pytest.mark.parametrize(("made", "kept"), RESPONSES.values(), ids=RESPONSES)
def test_responses(made, kept):
    stream = b"event: x\ndata: %b\n\n" % orjson.dumps({"type": f"response.{made['status']}", "response": made})
    for body, is_stream in ((orjson.dumps(made), False), (stream, True)):
        assert judged(body, shape="responses", is_stream=is_stream) is kept


def test_a_response_that_never_completed_is_not_kept():
    assert not judged(b"", shape="responses")
    assert not judged(b'data: {"type":"response.created","response":{}}\n\n', shape="responses")
    assert not judged(b"[]", shape="responses", is_stream=False)


def test_a_call_is_kept_where_that_is_wanted_and_a_search_never():
    assert judged(orjson.dumps(RESPONSES["a call"][0]), shape="responses", is_stream=False, tool_calls=True)
    assert not judged(orjson.dumps(RESPONSES["a search"][0]), shape="responses", is_stream=False, tool_calls=True)
