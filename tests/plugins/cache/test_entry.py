"""A kept answer is read as it was written; what is none of ours is nothing."""

import pytest

from plugins.cache.entry import Entry, unpacked

ENTRY = Entry(1.5, True, "up", "m", [[5, 9], [0, 9]], b"data: a\n\ndata: \xff\n\n")


def test_it_comes_back_as_it_was():
    assert unpacked(ENTRY.packed()) == ENTRY
    assert unpacked(ENTRY._replace(model=None, pace=[], body=b"").packed()) == ENTRY._replace(
        model=None, pace=[], body=b""
    )


@pytest.mark.parametrize("value", [b"", b"\n", b"{}\n", b"[]\nx", b"[2]\nx", b"[1]\nx", b"1\nx", ENTRY.packed()[1:]])
def test_anything_else_is_nothing(value):
    assert unpacked(value) is None
