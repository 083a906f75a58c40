import random

import pytest

from plugins.pii.secrets import entropy
from tests.plugins.pii import secret_texts
from tests.plugins.pii.found import found
from tests.plugins.pii.secret_texts import labelled


@pytest.mark.parametrize("context", secret_texts.OPAQUE_CONTEXTS)
def test_values_of_keys_and_tokens(context):
    rng = random.Random(context)
    for make in secret_texts.OPAQUE.values():
        text, start, end = labelled(context, make(rng))
        assert found(text) == [f"secret: {text[start:end]}"]


@pytest.mark.parametrize("context", secret_texts.PASSWORD_CONTEXTS)
def test_values_of_passwords(context):
    rng = random.Random(context)
    for kind in ("word and number", "with signs"):
        text, start, end = labelled(context, secret_texts.PASSWORDS[kind](rng))
        assert found(text) == [f"secret: {text[start:end]}"]


@pytest.mark.parametrize("context", secret_texts.LOGIN_CONTEXTS)
def test_passwords_of_logins(context):
    text, start, end = labelled(context, "Tr0ub4dor")
    assert f"secret: {text[start:end]}" in found(text)


@pytest.mark.parametrize("text", secret_texts.NO_SECRETS)
def test_what_only_looks_like_a_secret(text):
    assert found(text) == []


def test_a_value_that_is_something_else_is_called_that():
    assert found("password=4111111111111111") == ["credit_card: 4111111111111111"]
    assert found("token: ann@example.com") == ["email: ann@example.com"]


def test_lower_case_of_other_length_moves_nothing():
    assert found("İİİ password=hunter22 İ") == ["secret: hunter22"]


def test_entropy():
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2


def test_a_text_of_nothing_but_keys_takes_no_quadratic_time():
    assert found("token=" * 20_000) == []
