"""The gate decides about cost alone: with google-re2, with `re` and without any gate the same is found."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugins.pii import detector as detector_module
from plugins.pii.detector import Detector
from plugins.pii.findings import ENTITIES
from plugins.pii.gate import re2_gate, re_gate
from tests.plugins.pii import secret_texts
from tests.plugins.pii.texts import TEXTS, texts


def detector_behind(gate, monkeypatch: pytest.MonkeyPatch) -> Detector:
    monkeypatch.setattr(detector_module, "gate", gate)
    return Detector(ENTITIES)


def open_gate(patterns):
    return lambda _: range(len(patterns))


@pytest.fixture(scope="module")
def three():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield [detector_behind(gate, monkeypatch) for gate in (re2_gate, re_gate, open_gate)]


def test_known_texts(three):
    for text in (*TEXTS, *secret_texts.NO_SECRETS, *(text for text, _, _ in secret_texts.texts(seed=7))):
        with_re2, with_re, without = (detector.find(text) for detector in three)
        assert with_re2 == with_re == without


@given(texts)
@example("\x00\n+1 415 555 2671 \u2028")
def test_any_text(three, text):
    with_re2, with_re, without = (detector.find(text) for detector in three)
    assert with_re2 == with_re == without


@given(st.text())
def test_any_characters(three, text):
    with_re2, with_re, without = (detector.find(text) for detector in three)
    assert with_re2 == with_re == without


def test_a_gate_names_the_places_of_what_matches():
    for gate in (re2_gate, re_gate):
        assert sorted(gate(["b", "x", "(?i:A)"])("abc")) == [0, 2]
        assert list(gate(["x"])("abc")) == []
