"""Answers that nobody bounds are taken to be as long as those before."""

from plugins.budget import usual
from plugins.budget.usual import FIRST_GUESS, Usual


def test_the_first_answer_is_guessed_and_the_next_are_learnt():
    answers = Usual()
    assert answers.tokens(("a", "m")) == FIRST_GUESS
    answers.learn(("a", "m"), 100)
    assert (answers.tokens(("a", "m")), answers.tokens(("b", "m"))) == (100, FIRST_GUESS)


def test_what_is_usual_moves_slowly():
    answers = Usual()
    answers.learn(("a", None), 100)
    answers.learn(("a", None), 1100)
    assert answers.tokens(("a", None)) == 200


def test_those_that_nobody_asked_for_are_forgotten(monkeypatch):
    monkeypatch.setattr(usual, "REMEMBERED", 3)
    answers = Usual()
    for number in (1, 2, 3, 1, 4):
        answers.learn((f"s{number}", None), number)
    assert [answers.tokens((f"s{number}", None)) for number in (1, 2, 3, 4)] == [1, FIRST_GUESS, 3, 4]
