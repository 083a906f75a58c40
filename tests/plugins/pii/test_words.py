import pytest

from plugins.pii import words


@pytest.mark.parametrize(
    ("given_out", "held"),
    [
        ("hello ", ""),
        ("hello ", "wor"),
        ("call ", "555 0100 x"),
        ("see ", "GB82 WEST 12"),
        ("the ", "FBI is"),
        ("the FBI is ", ""),
        ("x,", "y"),
        ("12,", "13"),
        ("1 \n", "2"),
        ("12  ", "13"),
        ('"', "a@b"),
        ("番号は", "+81"),
        ("", "555\u00a00100\u202f1"),
        ("x ", "1" * 100),
        ("", "1 " * 100),
    ],
)
def test_what_may_still_change_is_held(given_out, held):
    assert words.opening(given_out + held) == len(given_out)


@pytest.mark.parametrize("text", ["Hello, world! ", "it's well-known (so they say)\n* one", "naïve café “quoted”…"])
def test_prose_is_plain(text):
    assert words.plain(text)


@pytest.mark.parametrize("text", ["a1", "a@b", "a: b", "a=b", "x--y", "<x>", "電話", "a_b", "a/b", "[x]", "$HOME"])
def test_what_is_not(text):
    assert not words.plain(text)


@pytest.mark.parametrize(
    "text", ["password: ", "password='", '"password": "', "Authorization: Bearer ", "token: |\n  "]
)
def test_behind_a_keys_sign_plain_words_count(text):
    assert words.arming(text)
    assert not words.arming(f"{text}x")
