"""A kept answer is read as it was written; what is none of ours is nothing."""

import pytest

from plugins.cache.entry import Entry, unpacked
from proxy.plugin import Saved, Usage

ENTRY = Entry(
    at=1.5,
    is_stream=True,
    tells_usage=True,
    saved=Saved("up", "m", None, Usage(1, 2, 3, 4, 5)),
    body=b"data: a\n\ndata: \xff\n\n",
    pace=((5, 9), (0, 9)),
)


def test_it_comes_back_as_it_was():
    assert unpacked(ENTRY.packed()) == ENTRY


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\nx",
        b'{"v":2}\nx',
        b'{"v":1}\nx',
        ENTRY.packed()[5:],
        ENTRY.packed().replace(b'"pace":[[', b'"pace":[1,['),
    ],
)
def test_anything_else_is_nothing(value):
    assert unpacked(value) is None
