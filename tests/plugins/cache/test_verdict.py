"""What is kept, judged on the bytes: most streams with two looks, the others event by event, both with the same verdict."""

import orjson
import pytest

from plugins.cache.request import Asked
from plugins.cache.verdict import verdict
from proxy import testing
from proxy.plugin import Usage
from tests.plugins.cache.house import EVENTS, usage_event

WHOLE = b"".join([*EVENTS[:-1], usage_event(), EVENTS[-1]])


def judged(body, *, shape="chat", choices=1, is_stream=True, tool_calls=False):
    asked = Asked(shape, "k", "m", is_stream, wants_usage=False, choices=choices)
    return verdict(asked, body, is_stream=is_stream, tool_calls=tool_calls)


@pytest.mark.parametrize("choices", [1, 0], ids=["at a glance", "event by event"])
def test_a_whole_stream_tells_usage_and_model(choices):
    assert judged(WHOLE, choices=choices) == (True, Usage(5, 6), "m")
    assert judged(b"".join(EVENTS), choices=choices) == (False, Usage(), "m")


SAYS = testing.chat_event({"content": 'he said: "finish_reason": "length", "tool_calls": [{, "error": {"x'})
STREAMS = {
    "text that looks like keys": (b"".join([SAYS, *EVENTS]), True),
    "with spaces": (b"".join(EVENTS).replace(b'":', b'": '), True),
    "two choices, one finished": (
        b"".join([testing.chat_event({"content": "x"}).replace(b'"index":0', b'"index":1'), *EVENTS]),
        True,
    ),
    "no finish": (b"".join([*EVENTS[:-2], EVENTS[-1]]), False),
    "length": (b"".join(EVENTS).replace(b'"stop"', b'"length"'), False),
    "an error object": (b"".join([EVENTS[0], b'data: {"error":{"message":"x"}}\n\n', *EVENTS]), False),
    "an error of null": (b"".join([EVENTS[0].replace(b'"model"', b'"error":null,"model"'), *EVENTS[1:]]), True),
    "nothing": (b"", False),
}


@pytest.mark.parametrize(("body", "kept"), STREAMS.values(), ids=STREAMS)
def test_streams(body, kept):
    assert (judged(body) is not None) is kept
    if "two choices" not in str(body):
        assert kept or judged(body, choices=0) is None


def test_every_choice_must_have_finished():
    """Case 115: finish on one only."""
    other = testing.chat_event({"content": "x"}).replace(b'"index":0', b'"index":1')
    assert judged(b"".join([other, *EVENTS]), choices=2) is None
    ends = testing.chat_event({}, "stop").replace(b'"index":0', b'"index":1')
    assert judged(b"".join([other, ends, *EVENTS]), choices=2) is not None


def embeddings(**more):
    return orjson.dumps(
        {
            "object": "list",
            "data": [{"embedding": [0.5] * 30_000}],
            "model": "e",
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
            **more,
        }
    )


def test_embeddings_are_taken_without_a_parse():
    assert judged(embeddings(), shape="embeddings", is_stream=False) == (True, Usage(7, 0), "e")
    assert judged(embeddings(error={"message": "x"}), shape="embeddings", is_stream=False) is None
    assert judged(embeddings()[:-9], shape="embeddings", is_stream=False) is None


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
        found = judged(body, shape="responses", is_stream=is_stream)
        assert (found == (True, Usage(1, 2), "m")) is kept
        assert (found is not None) is kept


def test_a_call_is_kept_where_that_is_wanted_and_a_search_never():
    assert judged(orjson.dumps(RESPONSES["a call"][0]), shape="responses", is_stream=False, tool_calls=True)
    assert not judged(orjson.dumps(RESPONSES["a search"][0]), shape="responses", is_stream=False, tool_calls=True)
