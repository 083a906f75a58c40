"""traceparent, read as W3C has it: what is none begins a new trace."""

import pytest

from plugins.tracing.context import Parent, Trace, parent_of
from proxy import testing

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parent(value, **headers):
    return parent_of(testing.exchange(headers={"traceparent": value, **headers}).request)


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f" 00-{TRACE}-{SPAN}-03 ", True),
        (f"01-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_a_traceparent_says_whose_child_it_is(value, is_sampled):
    assert parent(value, tracestate="a=1") == Parent(int(TRACE, 16), int(SPAN, 16), is_sampled, "a=1")


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}x-{SPAN}-01",
    ],
)
def test_what_is_none_is_not_guessed_at(value):
    assert parent(value) is None


def test_a_trace_that_begins_here_is_decided_by_its_id():
    asked = []
    trace = Trace(None, lambda trace_id: asked.append(trace_id) or True)
    assert (asked, trace.is_sampled) == ([trace.trace_id], True)
    written = [trace.attempt(number).decode() for number in (1, 2)]
    assert written == [f"00-{trace.trace_id:032x}-{trace.attempts[number]:016x}-01" for number in (1, 2)]
    assert len({trace.span_id, *trace.attempts.values()}) == 3
