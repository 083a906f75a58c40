"""The usage event is left out for those who did not ask, however the network cut the stream."""

import pytest

from plugins.cache.stream import HideUsage, before_done, values_of, without_usage
from proxy.plugin import Unavailable
from tests.plugins.cache.house import EVENTS, usage_event

WHOLE = b"".join(EVENTS)
AZURE = b'data: {"choices":[],"prompt_filter_results":[{"index":0}]}\n\n'
COMMENT = b": ping\n\n"
TOLD = b"".join([COMMENT, AZURE, *EVENTS[:-1], usage_event(), EVENTS[-1]])
SHOWN = COMMENT + AZURE + WHOLE


class Relay:
    def __init__(self):
        self.got, self.over = b"", None

    def feed(self, chunk):
        assert chunk
        self.got += chunk

    def end(self, trailers):
        self.over = trailers

    def fail(self, error):
        self.over = error


def test_only_the_event_that_tells_nothing_else_goes():
    assert without_usage(TOLD) == SHOWN
    assert without_usage(WHOLE) is WHOLE


@pytest.mark.parametrize("size", [1, 2, 7, 64, 300, 10_000])
def test_at_every_split(size):
    relay = Relay()
    hide = HideUsage(relay)
    for start in range(0, len(TOLD), size):
        hide.feed(TOLD[start : start + size])
    hide.end([(b"t", b"1")])
    assert (relay.got, relay.over) == (SHOWN, [(b"t", b"1")])


def test_what_passes_event_by_event_is_not_looked_at_twice():
    relay = Relay()
    hide = HideUsage(relay)
    for event in EVENTS:
        hide.feed(event)
    assert relay.got == WHOLE


def test_what_was_held_goes_down_before_a_failure():
    relay, error = Relay(), Unavailable("gone")
    hide = HideUsage(relay)
    hide.feed(b'data: {"half')
    hide.fail(error)
    assert (relay.got, relay.over) == (b'data: {"half', error)


def test_what_is_no_json_object_says_nothing():
    assert list(values_of(b"data: [1]\n\ndata: {\n\n: x\n\ndata: [DONE]\n\ndata: {}\n\n")) == [{}]


@pytest.mark.parametrize(
    ("body", "then"),
    [
        (b"data: a\n\ndata: [DONE]\n\n", b"data: a\n\nTOLDdata: [DONE]\n\n"),
        (b"data: a\n\n", b"data: a\n\nTOLD"),
        (b"data: a", b"data: a\n\nTOLD"),
        (b"data: a\r\n\r\ndata:[DONE]", b"data: a\r\n\r\nTOLDdata:[DONE]"),
    ],
)
def test_what_is_added_stands_before_the_end(body, then):
    assert before_done(body, b"TOLD") == then
