"""What a request says of how its answer may be kept."""

import pytest

from plugins.cache.request import asked, can_be_kept, is_repeatable
from proxy import testing


@pytest.mark.parametrize(
    ("method", "path", "can"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/v1/completions", True),
        ("POST", "/v1/embeddings", True),
        ("POST", "/v1/responses", True),
        ("GET", "/v1/responses", False),
        ("POST", "/v1/responses/r/cancel", False),
        ("POST", "/v1/images/generations", False),
        ("GET", "/v1/models", False),
    ],
)
def test_whose_answers_can_be_kept(method, path, can):
    assert can_be_kept(testing.exchange(method, path).request) is can


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


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (testing.CHAT, {}, (False, False, False, 1)),
        (testing.CHAT, {"stream": True}, (True, False, True, 1)),
        (testing.CHAT, {"stream": True, "stream_options": {"include_usage": True}, "n": 2}, (True, True, False, 2)),
        (testing.CHAT, {"stream": True, "stream_options": 1, "n": "2"}, (True, False, True, 0)),
        (testing.CHAT, {"stream": 1}, (False, False, False, 1)),
        ("/v1/completions", {"prompt": ["a", "b"]}, (False, False, False, 0)),
        ("/v1/responses", {"stream": True}, (True, False, False, 1)),
        ("/v1/embeddings", {"stream": True}, (False, False, False, 1)),
    ],
)
def test_in_which_way_it_is_asked_for(path, body, told):
    made = asked(testing.exchange("POST", path).request, body, "k")
    assert (made.streams, made.wants_usage, made.hides_usage, made.choices) == told


def test_only_the_very_same_bytes_are_shared():
    request = testing.exchange().request
    bodies = ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}})
    assert len({asked(request, body, "k").form for body in bodies}) == 3
