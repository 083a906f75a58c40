"""What docs/security.md says is held by tests: those that it names are there."""

import pathlib
import re

TESTS = pathlib.Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/security.md").read_text()


def test_the_tests_that_it_names_are_there():
    answers = re.findall(r"^\| (?!threat|---)(.+) \|$", PAGE, re.MULTILINE)
    assert len(answers) > 15
    for answer in answers:
        named = re.findall(r"`([\w/]+(?:\.py)?)`", answer.rpartition(" | ")[2])
        assert named, answer
        assert [name for name in named if not (TESTS / name).exists()] == []
