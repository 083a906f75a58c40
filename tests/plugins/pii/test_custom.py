import re

import pytest
from pydantic import ValidationError

from plugins.pii import custom as custom_module
from plugins.pii.custom import Custom
from plugins.pii.detector import Detector
from tests.plugins.pii.found import streamed

EMPLOYEE = Custom(
    name="employee_id",
    pattern=r"EMP-\d{6}",
    examples=["EMP-123456"],
    not_examples=["EMP-1234567", "see XEMP-123456", "EMP-12345"],
)


def refusal(**settings: object) -> str:
    with pytest.raises(ValidationError) as refused:
        Custom(**{"name": "thing", "pattern": "x"} | settings)
    (error,) = refused.value.errors()
    return f"{error.get('ctx', {}).get('key', '')}: {error['msg']}"


def test_custom_entities_are_found_beside_the_others():
    detector = Detector(["email"], [EMPLOYEE])
    text = "EMP-123456 is ann@example.com, EMP-1234567 nobody"
    assert [(text[a:b], entity) for a, b, entity in detector.find(text)] == [
        ("EMP-123456", "employee_id"),
        ("ann@example.com", "email"),
    ]


def test_a_validator_must_agree():
    member = Custom(name="member", pattern=r"M\d{8,16}", validator="luhn", examples=["M79927398713"])
    assert [one[:2] for one in Detector([], [member]).find("M79927398713 M79927398714")] == [(0, 12)]
    account = Custom(name="account", pattern=r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", validator="mod97")
    assert Detector([], [account]).find("GB83WEST12345698765432") == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(?=x)x", "looks around or takes a group back, which needs backtracking"),
        (r"(?<!x)y", "looks around or takes a group back, which needs backtracking"),
        (r"(?P<a>x)(?P=a)", "looks around or takes a group back, which needs backtracking"),
        (r"(a)\1", "takes a group back, which needs backtracking"),
        (r"EMP-\d+", "repeats without a bound ('+')"),
        (r"EMP-\d*", "repeats without a bound ('*')"),
        (r"\d{3,}", "repeats without a bound ('(3,)')"),
        (r"\d{1,999}", "repeats more than 256 times"),
        (r"(?:a{1,3}){2,4}", "repeats what repeats"),
        (r"EMP \d{6}", "takes ' '; a match must be one word, for streams are decided word by word"),
        (r"EMP\s\d{6}", r"has '\s'; a match must be one word"),
        (r"[^x]{3}", "has a set of what is not"),
        (r"E.P", "has a dot, which also matches spaces"),
        (r"^EMP", "has an anchor"),
        (r"straße", "takes 'ß'; a match must be one word"),
        (r"[à-ü]{3}", "has letters other than ASCII"),
        (r"EMP(", "cannot be read"),
        (r"[z-a]", "cannot be read"),
    ],
)
def test_patterns_that_streams_cannot_take_are_refused_with_the_reason(pattern, why):
    assert refusal(pattern=pattern).startswith(f"pattern: {why}")


@pytest.mark.parametrize(
    "pattern", [r"EMP-\d{6}", r"(?i:emp)[0-9]{3}", r"(?:ab|cd)-[0-9]{4}(?:-[A-Z])?", r"\bK\d{5}\b", r"(?P<n>\d{3})\.x"]
)
def test_patterns_that_they_can(pattern):
    assert Custom(name="thing", pattern=pattern).pattern == pattern


def test_examples_are_tried():
    settings = {"pattern": r"EMP-\d{6}"}
    assert refusal(**settings, examples=["EMP-123456", "EMP-1"]) == (
        "examples: number 2 is not found whole; correct it, the pattern or the validator"
    )
    assert refusal(**settings, not_examples=["see EMP-123456."]) == (
        "not_examples: in number 1 something is found; narrow the pattern"
    )
    assert refusal(**settings, examples=["EMP-123456"], validator="luhn").startswith("examples: number 1")


def test_names_are_words_of_their_own():
    assert refusal(name="email") == "name: is an entity that Weir has; choose another name"
    assert "String should match" in refusal(name="Employee ID")


def test_a_pattern_of_letters_alone_is_found_in_streams_too():
    word = Custom(name="project", pattern="(?:BLUEBIRD|Redfox)", examples=["BLUEBIRD"])
    assert word.may_be_plain
    assert not EMPLOYEE.may_be_plain
    detector, text = Detector([], [word]), "about BLUEBIRD and Redfox today"
    assert streamed(detector.reading, text) == (text, detector.find(text))
    assert len(detector.find(text)) == 2


def test_without_re2_the_same_is_found_and_refused(monkeypatch):
    monkeypatch.setattr(custom_module, "re2", None)
    monkeypatch.setattr(custom_module, "_ERRORS", (re.error,))
    again = Custom(**EMPLOYEE.model_dump())
    text = "EMP-123456 EMP-1234567 ΕMP-123456 \u0661EMP-123456"
    assert Detector([], [again]).find(text) == Detector([], [EMPLOYEE]).find(text)
    assert refusal(pattern="EMP(").startswith("pattern: cannot be read")
