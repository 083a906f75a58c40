"""The gate decides about cost alone: with google-re2 and without any the same is found."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugins.pii import detector as detector_module
from plugins.pii import gate as gate_module
from plugins.pii.detector import Detector
from plugins.pii.findings import ENTITIES
from plugins.pii.gate import gate, no_gate, re2_gate
from tests.plugins.pii import secret_texts
from tests.plugins.pii.texts import TEXTS, texts


def detector_behind(gate, monkeypatch: pytest.MonkeyPatch) -> Detector:
    monkeypatch.setattr(detector_module, "gate", gate)
    return Detector(ENTITIES)


@pytest.fixture(scope="module")
def both():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield [detector_behind(gate, monkeypatch) for gate in (re2_gate, no_gate)]


def test_known_texts(both):
    for text in (*TEXTS, *secret_texts.NO_SECRETS, *(text for text, _, _ in secret_texts.texts(seed=7))):
        with_re2, without = (detector.find(text) for detector in both)
        assert with_re2 == without


@given(texts)
@example("\x00\n+1 415 555 2671 \u2028")
def test_any_text(both, text):
    with_re2, without = (detector.find(text) for detector in both)
    assert with_re2 == without


@given(st.text())
def test_any_characters(both, text):
    with_re2, without = (detector.find(text) for detector in both)
    assert with_re2 == without


def test_a_gate_names_the_places_of_what_matches():
    assert sorted(re2_gate(["b", "x", "(?i:A)"])("abc")) == [0, 2]
    assert list(re2_gate(["x"])("abc")) == []
    assert list(no_gate(["b", "x"])("abc")) == [0, 1]


def test_without_re2_every_detector_looks(monkeypatch):
    monkeypatch.setattr(gate_module, "re2", None)
    assert list(gate(["x"])("abc")) == [0]
