"""What a request says of how its answer may be kept."""

import pytest

from plugins.cache.request import asked, is_repeatable, wants_one_choice


@pytest.mark.parametrize(
    ("body", "repeatable"),
    [
        ({}, True),
        ({"store": False, "background": None, "tools": None}, True),
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"name": "flat"}]}, True),
        ({"tools": [{"type": "function"}, {"type": "web_search_preview"}]}, False),
        ({"tools": ["x"]}, False),
        ({"tools": {"type": "function"}}, False),
        ({"store": True}, False),
        ({"search_parameters": {"mode": "on"}}, False),
        ({"plugins": [{"id": "web"}]}, False),
    ],
)
def test_which_are_repeatable(body, repeatable):
    assert is_repeatable(body) is repeatable


USAGE = {"include_usage": True}


@pytest.mark.parametrize(
    ("shape", "body", "told"),
    [
        ("chat", {}, (False, False, False)),
        ("chat", {"stream": True}, (True, False, True)),
        ("chat", {"stream": True, "stream_options": USAGE}, (True, True, False)),
        ("chat", {"stream": True, "stream_options": 1}, (True, False, True)),
        ("chat", {"stream": 1, "stream_options": USAGE}, (False, False, False)),
        ("responses", {"stream": True}, (True, False, False)),
        ("embeddings", {"stream": True}, (False, False, False)),
    ],
)
def test_in_which_way_it_is_asked_for(shape, body, told):
    made = asked(shape, body, "k")
    assert (made.streams, made.wants_usage, made.hides_usage) == told


def test_only_the_very_same_bytes_are_shared():
    bodies = ({}, {"stream": True}, {"stream": True, "stream_options": USAGE})
    assert len({asked("chat", body, "k").form for body in bodies}) == 3


@pytest.mark.parametrize(
    ("body", "one"),
    [({}, True), ({"n": 1}, True), ({"n": None, "prompt": "x"}, True), ({"n": 2}, False), ({"prompt": ["x"]}, False)],
)
def test_whether_one_choice_is_wanted(body, one):
    assert wants_one_choice(body) is one
