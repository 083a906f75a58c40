"""What an attempt sends is its own."""

from proxy.attempt import Attempt, Target


def test_an_attempts_header_is_its_own():
    fields = [(b"X-Tag", b"1"), (b"x-tag", b"2")]
    attempt, other = (Attempt(number, Target("up"), fields, b"") for number in (1, 2))
    assert attempt.fields() is fields
    attempt.headers["x-new"] = "3"
    assert attempt.fields() == [(b"X-Tag", b"1"), (b"x-tag", b"2"), (b"x-new", b"3")]
    assert other.fields() == fields == [(b"X-Tag", b"1"), (b"x-tag", b"2")]
