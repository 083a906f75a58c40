"""`cache-control` of a request."""

import math

import pytest

from plugins.cache.directives import ANY, OFF, Wish, wish


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, ANY),
        ("", ANY),
        ("no-store", OFF),
        ("max-age=5, No-Store", OFF),
        ("no-cache", Wish(max_age=0)),
        (" NO-CACHE , x=y", Wish(max_age=0)),
        ("max-age=0", Wish(max_age=0)),
        ("max-age=60", Wish(max_age=60)),
        ('max-age="60"', Wish(max_age=60)),
        ("max-age = 60", Wish(max_age=60)),
        ("max-age", ANY),
        ("max-age=-1", ANY),
        ("max-age=1.5", ANY),
        ("max-age=\u0664", ANY),
        ("public, ,=,", ANY),
        ("max-age=" + "9" * 400, Wish(max_age=math.inf)),
    ],
)
def test_what_it_asks_for(value, wanted):
    assert wish(value) == wanted
