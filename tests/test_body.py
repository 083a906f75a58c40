"""What is replaced in a body, and that every other byte stays as it was."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import (
    multipart_field,
    multipart_fields,
    repeated_key,
    replace_multipart_field,
    replace_value,
    top_level_values,
)

BLANKS = st.text(" \t\r\n", max_size=2)
TEXTS = st.text(max_size=6) | st.sampled_from(["model", '"model":', "}", "\\", 'a"b', "ключ", "☺"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ASK = '{"stream":true,"model":"small","messages":[{"model":"inner","x":"}\\"{"}], "n":1.0}'


@st.composite
def spelled_keys(draw, key):
    """A key of the wanted name as some client may write it, `\\u` escapes included."""
    letters = [f"\\u{ord(letter):04x}" if draw(st.booleans()) else letter for letter in key]
    return f'"{"".join(letters)}"'


@st.composite
def spelled_values(draw):
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(["1.0", "-0", "1e5", "1.50E+2", "123456789012345678901234567890", '"\\/"']))
    value, indent = draw(VALUES), draw(st.sampled_from([None, 1]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()), indent=indent)


@st.composite
def objects(draw):
    """A JSON object as pieces; the values of `model` among them are None, and so are written by whoever joins them."""
    pieces = [draw(BLANKS), "{"]
    for place in range(draw(st.integers(0, 4))):
        is_wanted = draw(st.booleans())
        key = draw(spelled_keys("model") if is_wanted else TEXTS.filter(lambda text: text != "model").map(json.dumps))
        value = None if is_wanted else draw(spelled_values())
        pieces += ["," if place else "", draw(BLANKS), key, draw(BLANKS), ":", draw(BLANKS), value, draw(BLANKS)]
    return [*pieces, "}", draw(BLANKS)]


def joined(pieces, value):
    return "".join(value if piece is None else piece for piece in pieces).encode()


@given(objects(), spelled_values(), VALUES)
def test_a_replaced_value_leaves_every_other_byte_as_it_was(pieces, before, after):
    body, written = joined(pieces, before), orjson.dumps(after) if after_fits(after) else b"0"
    after = after if after_fits(after) else 0
    replaced = replace_value(body, "model", after)
    if None in pieces:
        assert replaced == joined(pieces, written.decode())
    else:
        front, _, rest = body.partition(b"{")
        comma = b"" if rest.strip() == b"}" else b","
        assert replaced == front + b'{"model":' + written + comma + rest
    assert json.loads(replaced) == {**json.loads(body), "model": json.loads(written)}


def after_fits(value):
    """What a caller can ask for: orjson writes integers of 64 bits."""
    try:
        return bool(orjson.dumps(value))
    except TypeError:
        return False


@pytest.mark.parametrize(
    ("body", "replaced"),
    [
        ('{"model":"a"}', '{"model":"big"}'),
        ('{"model" \n:\t "a" ,"x":1}', '{"model" \n:\t "big" ,"x":1}'),
        ('{"model":"a","x":1,"model":"b"}', '{"model":"big","x":1,"model":"big"}'),
        ('{"mod\\u0065l":"a"}', '{"mod\\u0065l":"big"}'),
        ('{"x":{"model":"a"},"y":[{"model":"b"}]}', '{"model":"big","x":{"model":"a"},"y":[{"model":"b"}]}'),
        ('{"model":{"a":[1,{"model":2}]},"z":0}', '{"model":"big","z":0}'),
        ('{"model":null}', '{"model":"big"}'),
        ('{"x":"model","y":"\\"model\\":"}', '{"model":"big","x":"model","y":"\\"model\\":"}'),
        ('{"Model":"a"}', '{"model":"big","Model":"a"}'),
        ("{}", '{"model":"big"}'),
        (" { } ", ' {"model":"big" } '),
    ],
)
def test_what_counts_as_the_key(body, replaced):
    assert replace_value(body.encode(), "model", "big").decode() == replaced


def test_where_values_lie():
    body = ASK.encode()
    assert [body[start:end] for start, end in top_level_values(body, "model")] == [b'"small"']
    assert [body[start:end] for start, end in top_level_values(body, "n")] == [b"1.0"]
    assert list(top_level_values(body, "x")) == []


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("{}", None),
        ('{"model":1,"n":1}', None),
        ('{"model":1,"n":{"model":1},"x":[{"model":1},{"model":1}]}', None),
        ('{"model":1,"x":"\\"model\\":","y":"model","z":{"n":"model"}}', None),
        ('{"other":1,"other":2}', None),
        ('{"model":1,"model":1}', "model"),
        ('{"model" \n: 1 , "n":1, "model":null}', "model"),
        ('{"model":1,"mod\\u0065l":1}', "model"),
        ('{"\\u006e":1,"\\u006E":1}', "n"),
        ('{"x":[{"y":{"n":1,"z":"}","n":2}}]}', "n"),
        ('{"x":"\\u0041","n":1,"y":{"n":1}}', None),
        ('[{"n":"a"},"n","n",{"n":["n","n"]}]', None),
    ],
)
def test_a_key_that_stands_twice(body, key):
    assert repeated_key(body.encode(), frozenset({"model", "n"})) == key


@given(objects(), spelled_values())
def test_a_repeated_key_is_seen_in_any_spelling(pieces, value):
    """Judged by the library's own parser, which hands out every member."""
    seen = []
    json.loads(joined(pieces, value), object_pairs_hook=lambda pairs: seen.append([key for key, _ in pairs]))
    is_twice = any(keys.count("model") > 1 for keys in seen)
    assert (repeated_key(joined(pieces, value), frozenset({"model"})) == "model") is is_twice


def form(*parts):
    return b"".join(b"--edge\r\n" + part + b"\r\n" for part in parts) + b"--edge--\r\n"


def text_part(name, value):
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


FILE = b'content-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n' + bytes(
    range(256)
)
MULTIPART = "multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (form(text_part("model", "whisper")), "whisper"),
        (form(FILE, text_part("model", "whisper")), "whisper"),
        (form(text_part("model", "whisper"), FILE), "whisper"),
        (form(text_part("model", "")), ""),
        (form(text_part("model", "Ä☺")), "Ä☺"),
        (form(b"CONTENT-DISPOSITION: form-data; NAME=model\r\n\r\nwhisper"), "whisper"),
        (form(b'content-type: text/plain\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper'), "whisper"),
        (b"a preamble\r\n" + form(text_part("model", "whisper")), "whisper"),
        (form(text_part("model", "first"), text_part("model", "last")), "last"),
        (form(text_part("x-model", "whisper")), None),
        (form(text_part("model2", "whisper")), None),
        (form(text_part("file", 'name="model"\r\n\r\nwhisper')), None),
        (form(b'content-disposition: form-data; name="file"; filename="a; name=model"\r\n\r\nx'), None),
        (form(FILE), None),
        (form(), None),
        (b"", None),
        (b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\ncut', None),
    ],
)
def test_a_field_of_a_form(body, model):
    assert multipart_field(body, MULTIPART, "model") == model


def test_all_fields_of_a_name():
    body = form(text_part("model", "a"), FILE, text_part("x", "b"), text_part("model", "c"))
    assert multipart_fields(body, MULTIPART, "model") == ["a", "c"]
    assert multipart_fields(body, MULTIPART, "other") == []


@pytest.mark.parametrize(
    "content_type", ['multipart/form-data; boundary="edge"', "Multipart/Form-Data; charset=utf-8; BOUNDARY=edge"]
)
def test_how_a_boundary_may_be_written(content_type):
    assert multipart_field(form(text_part("model", "whisper")), content_type, "model") == "whisper"


@pytest.mark.parametrize("content_type", ["multipart/form-data", "", "text/plain; boundary=other"])
def test_a_form_without_its_boundary_has_no_fields(content_type):
    body = form(text_part("model", "whisper"))
    assert multipart_field(body, content_type, "model") is None
    assert replace_multipart_field(body, content_type, "model", "big") == body


def test_a_replaced_field_leaves_every_other_byte_as_it_was():
    body = form(FILE, text_part("model", "whisper"), text_part("language", "de"))
    replaced = replace_multipart_field(body, MULTIPART, "model", "größer")
    assert replaced == form(FILE, text_part("model", "größer"), text_part("language", "de"))


def test_a_field_that_is_there_twice_is_replaced_twice():
    body = form(text_part("model", "a"), FILE, text_part("model", "b"))
    assert replace_multipart_field(body, MULTIPART, "model", "c") == form(
        text_part("model", "c"), FILE, text_part("model", "c")
    )


def test_a_form_without_the_field_stays_as_it_is():
    assert replace_multipart_field(form(FILE), MULTIPART, "model", "big") == form(FILE)
