"""Chunked equals whole: for every text and every cut, what a tail gives out is what the detector finds in one piece."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.pii import pem
from plugins.pii.custom import Custom
from plugins.pii.detector import Detector
from plugins.pii.findings import ENTITIES
from plugins.pii.tail import CAP, Tail
from tests.plugins.pii import secret_texts
from tests.plugins.pii.found import streamed
from tests.plugins.pii.texts import TEXTS, texts

DETECTOR = Detector(ENTITIES, [Custom(name="employee_id", pattern=r"EMP-\d{6}")])
READING = DETECTOR.reading


def cut(text: str, at: list[int]) -> list[str]:
    places = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


@pytest.mark.parametrize("text", TEXTS)
def test_cut_at_every_place(text):
    whole = (text, DETECTOR.find(text))
    assert streamed(READING, text) == whole
    for place in range(len(text)):
        assert streamed(READING, [text[:place], text[place:]]) == whole


@given(texts, st.lists(st.integers(0, 500), max_size=12))
def test_any_text_and_any_cuts(text, at):
    assert streamed(READING, cut(text, at)) == (text, DETECTOR.find(text))
    assert streamed(READING, text) == (text, DETECTOR.find(text))


@pytest.mark.parametrize("seed", range(3))
def test_secrets_in_small_pieces(seed):
    rng = random.Random(seed)
    for text in (*secret_texts.NO_SECRETS, *(text for text, _, _ in secret_texts.texts(seed))):
        pieces = cut(text, [rng.randrange(500) for _ in range(len(text) // 4)])
        assert streamed(READING, pieces) == (text, DETECTOR.find(text))


def test_a_word_is_given_out_with_the_space_behind_it():
    tail = Tail(READING)
    assert [tail.feed(piece).text for piece in ("Hel", "lo", " wor", "ld ", "and", ", so")] == [
        "", "", "Hello ", "world ", "", "and, ",
    ]  # fmt: skip
    assert tail.held == 2
    assert tail.finish().text == "so"


def test_a_number_is_held_until_it_is_over():
    tail = Tail(READING)
    assert [tail.feed(piece).text for piece in ("call +1", " 415", " 555 2671", " now")] == ["call ", "", "", ""]
    text, findings = tail.feed(" please")
    assert text == "+1 415 555 2671 now "
    assert [text[start:end] for start, end, _ in findings] == ["+1 415 555 2671"]


def test_not_more_than_the_cap_is_held_and_the_cut_is_where_it_always_is():
    text = f"x {'7 ' * 3000} {'a' * 5000}b ann@example.com " + "1 2,3 " * 800
    whole = streamed(READING, [text])
    for size in (3, 1000, 4096, 5000):
        tail, pieces = Tail(READING), [text[at : at + size] for at in range(0, len(text), size)]
        assert max(tail.held for piece in pieces if tail.feed(piece)) <= CAP
        assert streamed(READING, pieces) == whole
    assert "ann@example.com" in [text[start:end] for start, end, _ in whole[1]]


def test_a_private_key_is_one_finding_however_it_comes():
    block = secret_texts.pem(random.Random(3), lines=80)
    text = f"here: {block}\nthanks"
    assert streamed(READING, text) == (text, DETECTOR.find(text))
    assert [text[start:end] for start, end, _ in DETECTOR.find(text)] == [block]
    endless = f"{secret_texts.pem(random.Random(3), lines=400)} ann@example.com"
    assert len(endless) > pem.LIMIT
    whole = streamed(READING, [endless])
    assert whole == streamed(READING, cut(endless, list(range(0, len(endless), 333))))
    assert whole[1][0].end == pem.LIMIT
