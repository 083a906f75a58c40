"""Placeholders: the same for the same value, never one that the text holds, and known again however they are written."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.pii.placeholder import LONGEST, SHORTEST, Table, grammar, identity
from tests.plugins.pii.conversation import CARD, EMAIL, KEY, NAMES, distorted, known, named, table


def test_a_placeholder_is_a_type_and_an_id():
    assert re.fullmatch("<EMAIL_[0-9][0-9a-z]{3}>", table().name("email", EMAIL, ""))
    assert re.fullmatch("<CREDIT_CARD_[0-9][0-9a-z]{3}>", table().name("credit_card", CARD, ""))


def test_it_depends_on_the_key_the_tenant_the_entity_and_the_value():
    told = {
        identity(key, tenant, entity, value)
        for key in (b"k", b"l")
        for tenant in ("a", "b")
        for entity in ("email", "url")
        for value in ("x", "y")
    }
    assert len(told) == 16
    assert identity(b"k", "a", "b", "c") == identity(b"k", "a", "b", "c")
    assert all(re.fullmatch(f"[0-9][0-9a-z]{{{LONGEST - 1}}}", letters) for letters in told)


def test_one_that_the_text_holds_already_is_not_used():
    first = table().name("email", EMAIL, "")
    second = table().name("email", EMAIL, f"what is {first.lower()}?")
    assert second.startswith(first[:-1])
    assert len(second) == len(first) + 1


def test_a_text_that_holds_all_of_them_gets_another_one():
    letters = identity(KEY, "ada", "email", EMAIL)
    name = table().name("email", EMAIL, f"email_{letters}")
    assert not f"EMAIL_{letters.upper()}".startswith(name[1:-1].upper())


def test_of_two_values_with_the_same_id_the_second_gets_a_longer_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("plugins.pii.placeholder.identity", lambda *of: "7f3a" + ("b" if of[3] == "x" else "c") * 20)
    made = table()
    assert [made.name("email", "x", ""), made.name("email", "y", "")] == ["<EMAIL_7f3a>", "<EMAIL_7f3ac>"]
    assert made.values == {"EMAIL_7f3a": "x", "EMAIL_7f3ac": "y"}


def test_what_is_hashed_is_not_put_back():
    made = table()
    assert re.fullmatch("<EMAIL_[0-9][0-9a-z]{15}>", made.hashed("email", EMAIL))
    assert made.values == {}


@pytest.mark.parametrize("value", [EMAIL, CARD])
def test_it_is_known_again_as_models_write_it(value: str):
    made = known()
    for form in distorted(named(made, value)):
        found = made.grammar.pattern.search(f"so {form}, yes")
        assert found is not None, form
        assert (found.group(), made.value(found)) == (form, value)


def test_what_only_looks_like_one_is_none():
    made = known()
    name = named(made, EMAIL)[1:-1]
    for text in (f"x{name}", f"{name}x", f"{name}_x", "EMAIL_list", "EMAIL 2024", "<EMAIL_zzzz>", "EMAIL_1a2"):
        found = made.grammar.pattern.search(text)
        assert found is None or made.value(found) is None, text


@given(st.text("<>EMAIL_ 7f3a\\&lt;%C-b.", max_size=30), st.text("<>EMAIL_ 7f3a\\&gt;%-", max_size=20))
def test_what_may_become_one_is_held_from_its_beginning(before: str, after: str):
    words = grammar(NAMES)
    at = words.opening(before, len(before))
    for match in words.pattern.finditer(before + after):
        if match.start() < len(before) < match.end() and not before[match.start()].isalnum():
            assert at <= match.start()


def test_shortest_is_what_the_contract_says():
    assert SHORTEST == 4
    assert Table(grammar(NAMES), KEY, "x").values == {}
