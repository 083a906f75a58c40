"""What of a request's JSON is not looked through."""

import time

import orjson

from plugins.pii.scope import Kept, elements, kept


def told(value: object, roles: set[str] | None = None) -> list[str]:
    body = orjson.dumps(value)
    raw = body.decode()
    return [
        raw[start:end] for start, end in kept(body, raw, None if roles is None else frozenset(roles), {"a@b.c", "7"})
    ]


def test_the_model_and_the_seed():
    assert told({"é": "日本", "model": "a@b.c", "seed": 7, "messages": [{"model": "x"}]}) == ['"a@b.c"', "7"]


def test_nothing_of_them_where_nothing_was_found_there():
    assert told({"model": "gpt", "seed": 8}) == []


def test_messages_of_other_roles():
    value = {
        "messages": [
            {"role": "system", "content": "é"},
            {"role": "user", "content": "["},
            {"role": "tool", "content": "]"},
        ],
    }
    assert told(value, {"user"}) == ['{"role":"system","content":"é"}', '{"role":"tool","content":"]"}']
    assert told(value, {"system", "user", "tool"}) == []


def test_items_of_responses():
    value = {
        "input": ["hi", {"type": "function_call_output", "output": "x"}, {"type": "reasoning"}],
        "instructions": "i",
    }
    assert told(value, {"tool"}) == ['"hi"', '{"type":"reasoning"}', '"i"']
    assert told({"input": "hi"}, {"user"}) == []
    assert told({"input": "hi"}, {"system"}) == ['"hi"']


def test_what_is_within_a_place_is_kept():
    places = Kept([(2, 4), (7, 8)])
    assert [at for at in range(10) if at in places] == [2, 3, 7]
    assert 0 not in Kept([])


def test_many_messages_cost_by_the_byte():
    messages = [{"role": ("user", "tool")[number % 2], "content": "é" * 400} for number in range(6000)]
    began = time.process_time()
    assert len(told({"messages": messages}, {"user"})) == 3000
    assert time.process_time() - began < 3, "a look at all of the body for each would take half a minute"


def test_of_what_is_no_json_object_nothing_is_known():
    assert [kept(body, body.decode(), frozenset({"user"}), {"x"}) for body in (b"x", b"[1]", b'{"model":')] == [
        [],
        [],
        [],
    ]


def test_elements():
    array = b'[ {"a":[1,"]"]} , [2,{}],"x,]" ,3]'
    assert [array[start:end].strip() for start, end in elements(array)] == [b'{"a":[1,"]"]}', b"[2,{}]", b'"x,]"', b"3"]
    assert list(elements(b"[ ]")) == []
