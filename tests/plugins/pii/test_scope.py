"""What of a request's JSON is not looked through."""

import orjson

from plugins.pii.scope import elements, kept


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
    assert told(value, {"tool"}) == ['"i"', '"hi"', '{"type":"reasoning"}']
    assert told({"input": "hi"}, {"user"}) == []
    assert told({"input": "hi"}, {"system"}) == ['"hi"']


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
