"""A response, told event by event, is the response again; every kind of item has its events."""

import itertools

import orjson
import pytest

from plugins.cache.responses import response_events, response_of
from plugins.cache.stream import values_of

TEXT = {"type": "output_text", "text": "Hi", "annotations": [{"type": "url_citation"}], "logprobs": [{"token": "Hi"}]}
ITEMS = {
    "message": {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [TEXT, {"type": "refusal", "refusal": "no"}],
    },
    "reasoning": {
        "id": "2",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "so"}],
        "content": [{"type": "reasoning_text", "text": "hm"}],
        "encrypted_content": None,
    },
    "function": {
        "id": "3",
        "type": "function_call",
        "call_id": "c",
        "name": "f",
        "arguments": "{}",
        "status": "completed",
    },
    "custom": {"id": "4", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
    "unknown": {"id": "5", "type": "something_new", "content": [{"type": "new_part"}]},
}


def response(*items):
    return {
        "id": "r",
        "object": "response",
        "status": "completed",
        "completed_at": 2,
        "output": list(items),
        "usage": {"input_tokens": 1},
    }


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_each_kind_of_item(item):
    whole = response(item)
    stream = b"".join(response_events(whole))
    assert response_of(stream) == whole
    values = list(values_of(stream))
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    assert [value["type"] for value in values[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert values[-2] == {
        "type": "response.output_item.done",
        "sequence_number": len(values) - 2,
        "output_index": 0,
        "item": item,
    }
    assert all(
        event.startswith(b"event: " + orjson.loads(event.partition(b"data: ")[2])["type"].encode())
        for event in response_events(whole)
    )


def test_deltas_say_what_the_item_says():
    values = list(values_of(b"".join(response_events(response(*ITEMS.values())))))
    deltas = [(value["type"], value["delta"]) for value in values if "delta" in value]
    assert deltas == [
        ("response.output_text.delta", "Hi"),
        ("response.refusal.delta", "no"),
        ("response.reasoning_summary_text.delta", "so"),
        ("response.reasoning_text.delta", "hm"),
        ("response.function_call_arguments.delta", "{}"),
        ("response.custom_tool_call_input.delta", "x"),
    ]
    assert [value["annotation"] for value in values if "annotation" in value] == TEXT["annotations"]


def test_nothing_is_said_before_its_delta():
    values = list(values_of(b"".join(response_events(response(*ITEMS.values())))))
    begun = [value["item"] for value in values if value["type"] == "response.output_item.added"]
    said = itertools.chain.from_iterable(
        item.get("content") or item.get("summary") or item.get("arguments", "") for item in begun
    )
    assert not list(said)
    assert values[0]["response"]["output"] == []
    assert values[0]["response"]["status"] == "in_progress"
