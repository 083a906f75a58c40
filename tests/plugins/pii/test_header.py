"""Which fields of a header are looked through."""

from plugins.pii import header


def test_fields_that_say_nothing_are_not_read():
    fields = [(b"User-Agent", b"x"), (b"Authorization", b"Bearer x"), (b"X-Stainless-Lang", b"x"), (b"accept", b"x")]
    assert header.read(fields, lambda _: "changed") is None


def test_others_are_and_keep_their_place():
    fields = [(b"X-User", b"x\xff"), (b"Accept", b"x"), (b"baggage", b"x")]
    assert header.read(fields, lambda text: text.replace("x", "y")) == [
        (b"X-User", b"y\xff"), (b"Accept", b"x"), (b"baggage", b"y"),
    ]  # fmt: skip
    assert header.read(fields, lambda text: text) is None
