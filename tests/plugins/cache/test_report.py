"""Usage and model out of the bytes, in each form and shape."""

import orjson
import pytest

from plugins.cache.report import report_of
from proxy import testing
from proxy.plugin import Usage
from tests.plugins.cache.house import EVENTS, usage_event

USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 4}}
TOLD = Usage(5, 6, 4)
RESPONSE = {
    "model": "m",
    "output": [{"text": '"usage": {"prompt_tokens": 99}'}],
    "usage": {"input_tokens": 5, "output_tokens": 6},
}
LOOKS_LIKE = testing.chat_event({"content": 'say "usage": {"prompt_tokens": 99} and "model": "evil"'})
BODIES = {
    "JSON": (orjson.dumps({"model": "m", "usage": USAGE}), TOLD),
    "JSON with spaces": (b'{"model": "m", "usage": {"prompt_tokens": 5}}', Usage(5)),
    "a stream": (b"".join([*EVENTS[:-1], usage_event(USAGE), EVENTS[-1]]), TOLD),
    "a stream of nulls first": (
        b"".join([EVENTS[0].replace(b'"choices"', b'"usage":null,"choices"'), usage_event(USAGE)]),
        TOLD,
    ),
    "nulls last": (b"".join([usage_event(USAGE), EVENTS[0].replace(b'"choices"', b'"usage":null,"choices"')]), TOLD),
    "text that looks like one": (b"".join([LOOKS_LIKE, *EVENTS]), None),
    "behind text that looks like one": (b"".join([LOOKS_LIKE, usage_event(USAGE)]), TOLD),
    "none": (b"".join(EVENTS), None),
    "a response": (orjson.dumps(RESPONSE), Usage(5, 6)),
    "a response's stream": (b"event: x\ndata: %b\n\n" % orjson.dumps({"type": "x", "response": RESPONSE}), Usage(5, 6)),
    "long": (orjson.dumps({"data": [0.5] * 50_000, "model": "m", "usage": {"prompt_tokens": 7}}), Usage(7)),
}


@pytest.mark.parametrize(("body", "usage"), BODIES.values(), ids=BODIES)
def test_both_are_found(body, usage):
    assert report_of(body) == (usage, "m")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"usage":{}}', b'data: {"usage": {"prompt', b'{"usage":'])
def test_where_there_is_none_there_is_none(body):
    assert report_of(body) == (None, None)


def test_a_model_is_read_as_json():
    assert report_of(b'{"model":"a\\"b"}').served == 'a"b'
