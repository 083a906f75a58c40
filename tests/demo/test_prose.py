import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo import prose


@given(st.text())
def test_tokens_join_to_the_text(text: str):
    assert "".join(prose.tokens(text)) == text


def test_tokens_are_about_as_long_as_a_models():
    text = prose.reply("Hello", None, b"\0\0\0")
    assert 3 < len(text) / len(prose.tokens(text)) < 6


def test_a_reply_follows_from_its_digest():
    replies = {prose.reply("Hello", None, bytes([at, at, at])) for at in range(60)}
    assert len(replies) == 60
    assert prose.reply("Hello", None, b"abc") == prose.reply("Hello", None, b"abc")


def test_an_echo_is_short():
    assert prose.echo("one two three four five six seven eight nine") == "one two three four five six seven eight"
    assert len(prose.echo("x" * 1000)) == 80


@pytest.mark.parametrize(
    ("said", "word"),
    [("What is the weather in Rome?", "Rome"), ("Weather please", "please"), ("Hello", "Hello"), ("?", "demo")],
)
def test_the_subject_is_the_last_name(said: str, word: str):
    assert prose.subject(said) == word
