"""What of a second model's text goes down behind what a first one has sent, however it comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.seam import HELD, Seam

SENT = "A weir stands in a stream, regulates it and measures it. It is made of"
REST = " stone or wood, and lets the water pass over it where it would be too much."


def through(pieces: list[str], sent: str = SENT) -> tuple[str, bool]:
    seam = Seam(sent)
    shown = "".join(map(seam.feed, pieces))
    return ("", True) if seam.has_diverged else (shown + seam.flush(), False)


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 5, 31, 32, 33, 500])
@pytest.mark.parametrize(
    "text",
    [REST, f" made of{REST}", f"is made of{REST}", SENT + REST],
    ids=["goes on", "repeats two words", "repeats three", "starts over"],
)
def test_the_app_gets_each_word_once(text, size):
    assert through(cut(text, size)) == (REST, False)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_text_that_starts_over_and_becomes_another_is_refused(size):
    assert through(cut("A weir stands in a stream, regulates it no more.", size)) == ("", True)


def test_a_short_rest_is_not_lost():
    assert through([" sto", "ne."]) == (" stone.", False)


def test_a_rest_that_only_repeats_adds_nothing():
    assert through(["made of"]) == ("", False)


def test_two_letters_that_are_the_same_are_chance():
    assert through(["of"], sent="it is made of") == ("of", False)


def test_nothing_at_all():
    assert through([]) == ("", False)


@given(st.text(min_size=1, max_size=60), st.text(max_size=120), st.integers(1, 40))
def test_text_is_dropped_only_where_it_repeats_what_was_sent(sent: str, text: str, size: int) -> None:
    shown, diverged = through(cut(text, size), sent)
    if not diverged:
        dropped = text[: len(text) - len(shown)]
        assert text.endswith(shown)
        assert dropped == "" or sent.endswith(dropped) or sent.startswith(dropped) or dropped == sent


@given(st.text(alphabet="ab ", min_size=1, max_size=80), st.text(alphabet="ab ", max_size=120))
def test_it_does_not_matter_how_the_text_is_cut(sent: str, text: str) -> None:
    assert len({through(cut(text, size), sent) for size in (1, 3, HELD, 200)}) == 1
