import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.errors import ApiError
from proxy.demo.schema import written

TREE = {"type": "object", "properties": {"sub": {"$ref": "#"}, "more": {"$ref": "#"}}, "required": ["sub", "more"]}
LIST = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}

FITS = [
    ({"type": "string"}, "word"),
    ({"type": "string", "maxLength": 2}, "wo"),
    ({"type": "string", "minLength": 6}, "word.."),
    ({"type": "string", "format": "date"}, "2026-01-31"),
    ({"type": "integer"}, 1),
    ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
    ({"type": "number", "exclusiveMinimum": 3}, 4),
    ({"type": "integer", "maximum": -2}, -2),
    ({"type": "boolean"}, True),
    ({"type": "null"}, None),
    ({"type": ["string", "null"]}, "word"),
    ({"enum": ["red", "blue"]}, "red"),
    ({"const": 3}, 3),
    ({"type": "integer", "default": 9}, 9),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
    ({"type": "array", "maxItems": 0}, []),
    ({"oneOf": [{"type": "boolean"}, {"type": "string"}]}, True),
    ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
    ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 1}),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}, True),
    ({"type": "object"}, {}),
    ({}, "word"),
]


@pytest.mark.parametrize(("schema", "value"), FITS)
def test_json_fits(schema, value):
    assert orjson.loads(written(schema, "word")) == value


def test_schemas_that_refer_to_themselves_have_an_end():
    assert written(LIST, "word").endswith('{"next":null}}}}')
    assert set(orjson.loads(written(TREE, "word"))) == {"sub", "more"}


NO_SCHEMAS = [
    {"type": "integer", "multipleOf": "three"},
    {"type": "integer", "exclusiveMinimum": 2**64 - 1},
    {"type": "string", "maxLength": "three"},
    {"properties": ["a"], "required": ["a"]},
    {"anyOf": {"a": 1}},
    {"allOf": [3]},
    {"$ref": 3},
]


@pytest.mark.parametrize("schema", NO_SCHEMAS)
def test_what_is_no_schema_is_refused(schema):
    with pytest.raises(ApiError, match="Invalid schema"):
        written(schema, "word")


WORDS = ["type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "const"]
WORDS += ["minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "multipleOf", "format"]
VALUES = st.recursive(
    st.sampled_from(["object", "array", "string", "integer", "#", "#/properties", -1, 2**63, 0.5, None, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5))
def test_whatever_comes_is_answered_or_refused(schema):
    with contextlib.suppress(ApiError):
        orjson.loads(written(schema, "word"))
