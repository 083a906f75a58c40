"""How texts of an answer are read: placeholders before findings, and JSON through a view of the same length."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from plugins.pii.sight import PLACEHOLDER, view, whole_escapes
from tests.plugins.pii.conversation import EMAIL, MADE_UP, QUOTED, answers, known, named, table


def test_a_placeholder_wins_over_what_a_detector_would_find_there():
    made = known()
    text = f"password={named(made, QUOTED)} and {MADE_UP}"
    found = answers(made).sight.plain.find(text)
    assert [(text[one.start : one.end], one.entity) for one in found] == [
        (named(made, QUOTED), PLACEHOLDER),
        (MADE_UP, "email"),
    ]


def test_placeholders_of_others_are_text():
    assert answers(table(("url", "x"))).sight.plain.find(named(known(), EMAIL)) == []


def test_without_masking_only_placeholders_are_found():
    made = known()
    sight = answers(made, masks=False).sight
    assert [one.entity for one in sight.plain.find(f"{MADE_UP} {named(made, EMAIL)}")] == [PLACEHOLDER]


@given(st.text(max_size=20))
def test_a_view_has_the_length_of_its_text(text: str):
    written = orjson.dumps(text).decode()[1:-1]
    assert len(view(written)) == len(written)
    assert view(written).replace("\0", "") == text.replace("\0", "")


def test_halves_of_letters_cannot_be_read_and_keep_their_place():
    made = known()
    text = rf"\ud83d\ude00 \ud83d {named(made, EMAIL)} \u00e9"
    assert len(view(text)) == len(text)
    assert [one.start for one in answers(made).sight.json.find(view(text))] == [text.index("<")]


@given(st.text('\\u0041nx"', max_size=20), st.integers(0, 20))
def test_half_escapes_wait_for_their_other_half(text: str, at: int):
    end = whole_escapes(text[:at])
    assert len(text[:at]) - end < 6
    assert view(text[:end]) == view(text[:at])[:end]
