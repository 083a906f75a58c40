"""JSON as a detector sees it, and the way back to its bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.pii.page import BLOBS_FROM, Page, replaced

NEEDLE = "bob@example.com"


def found(raw: str) -> list[str]:
    """What stands in the raw text where the needles are in the one that is read."""
    page, at, places = Page(raw), -1, []
    while (at := page.text.find(NEEDLE, at + 1)) >= 0:
        places.append(raw[slice(*page.span(at, at + len(NEEDLE)))])
    return places


def test_a_text_without_escapes_is_read_as_it_is():
    raw = '{"a":"bob@example.com"}'
    assert Page(raw).text is raw


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (r'{"a":"\nbob@example.com"}', NEEDLE),
        (r'{"a":"bob\u0040example.com\ud83d\ude00"}', r"bob\u0040example.com"),
        (r'{"a":"\\bob@example.com"}', NEEDLE),
        (r'{"a":"{\"b\":\"\\nbob@example.com\"}"}', NEEDLE),
        (r'{"a":"{\"b\":\"bob\\u0040example.com\"}"}', r"bob\\u0040example.com"),
        (r'{"a":" [\"\\\\nbob@example.com\\\"\"]"}', NEEDLE),
    ],
)
def test_escapes_are_undone(raw: str, place: str):
    assert found(raw) == [place] or found(raw) == []
    if found(raw) == []:
        assert r"\\\\n" in raw  # a backslash and an n, in JSON within JSON
    else:
        assert orjson.loads(replaced(raw, [(raw.index(place), raw.index(place) + len(place), "<X>")]))


TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\/\n{[@'), max_size=12)


@given(st.dictionaries(TEXT, TEXT | st.lists(TEXT, max_size=3), max_size=4), TEXT, TEXT, st.booleans(), st.booleans())
def test_every_needle_is_found_and_can_be_replaced(
    around: dict[str, Any], before: str, after: str, ascii_only: bool, inner: bool
):
    value: Any = {"x": f"{before} {NEEDLE} {after}"}
    if inner:
        value = json.dumps(value, ensure_ascii=ascii_only)
    raw = json.dumps({**around, "it": value}, ensure_ascii=ascii_only)
    places, page = [], Page(raw)
    at = page.text.index(NEEDLE)
    places.append(page.span(at, at + len(NEEDLE)))
    changed = orjson.loads(replaced(raw, [(*places[0], "<X>")]))["it"]
    if inner:
        changed = orjson.loads(changed)
    assert changed == {"x": f"{before} <X> {after}"}


def test_pictures_and_sound_are_left_out():
    blob = "QUJD" * 2000
    raw = f'{{"url":"data:image/png;base64,{blob}","a":{{"data": "{blob}"}},"t":"\\u0041"}}'
    assert len(raw) > BLOBS_FROM
    assert Page(raw).text == '{"url":"data:image/png;base64,","a":{"data": ""},"t":"A"}'
    assert raw[Page(raw).place(Page(raw).text.index("A")) :].startswith("\\u0041")


def test_a_binary_value_is_left_out_wherever_it_stands():
    blob = "QUJD" * 2000
    for before in ('{"data":"', '{"b64_json": "', '{"a":"data:;base64,', '{"\\\\":"\\n","file_data":"'):
        page = Page(f'{before}{blob}","to":"{NEEDLE}"}}')
        assert (blob in page.text, NEEDLE in page.text) == (False, True)
        at = page.text.index(NEEDLE)
        assert page.raw[slice(*page.span(at, at + len(NEEDLE)))] == NEEDLE
    assert "QUJD" in Page(f'{{"\\"data":"{blob}"}}').text, "what only looks like such a key is read"


def test_a_long_text_is_skipped_through_to_its_escapes():
    raw = '{"a":"%s"}' % ("what is it that you want to know? " * 500_000)
    began = time.process_time()
    assert Page(raw).text == raw
    assert time.process_time() - began < 2, "a look at each letter would take seconds, and hold the loop's thread up"


def test_many_values_in_one_string_cost_by_the_byte():
    raw = '{"a":"%s"}' % (f"{NEEDLE}, " * 20_000)
    began = time.process_time()
    assert found(raw) == [NEEDLE] * 20_000
    assert time.process_time() - began < 5, "a look at the rest of the string for each value would take a minute"


def test_a_value_ends_with_its_string_whatever_is_behind_it():
    raw = r'{"a":"bob\x@\\ex\"","b":"c"}'
    page, start, closing = Page(raw), raw.index("bob"), raw.index('","b')
    for stop in range(page.text.index("bob") + 1, len(page.text)):
        assert page.span(page.text.index("bob"), stop) == (start, min(page.place(stop), closing))


def test_halves_of_letters_can_be_read_by_nobody():
    assert Page(r'"\ud83d \ud83d\ude00 \ude00"').text == '"\ufffd \U0001f600 \ufffd"'


def test_long_words_elsewhere_are_read():
    raw = '{"content":"' + "a" * (2 * BLOBS_FROM) + '"}'
    assert Page(raw).text == raw


def test_a_finding_ends_with_its_string():
    raw = '{"a":"one","b":"two"}'
    page = Page(raw)
    start = raw.index("one")
    assert page.span(start, raw.index("two") + 3) == (start, start + 3)


def test_a_number_is_replaced_whole():
    raw = '{"a":-12345.5,"b":1}'
    page = Page(raw)
    start, end = page.span(raw.index("234"), raw.index("234") + 3)
    assert raw[start:end] == "-12345.5"
    assert page.is_bare(start)
    assert not page.is_bare(raw.index("b"))


def test_places_and_offsets_agree():
    page = Page(r'{"a":"\u0041\nb","c":"\\"}')
    for offset in range(len(page.text)):
        assert page.offset(page.place(offset)) == offset
