"""Calls and failures of the last seconds, in bounded memory."""

import hypothesis
from hypothesis import strategies as st

from plugins.circuit_breaker.window import SLICES, Window


def test_what_is_older_than_the_window_is_forgotten():
    window = Window(10)
    for second in range(30):
        window.add(100 + second, failed=second < 20)
    assert (window.calls, window.failures) == (10, 0)


def test_a_long_silence_forgets_all():
    window = Window(10)
    window.add(100, failed=True)
    window.add(10_000, failed=False)
    assert (window.calls, window.failures) == (1, 0)


@hypothesis.given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), min_size=1, max_size=60))
def test_it_counts_what_a_list_of_all_calls_would(steps):
    """To a slice: a call counts at least for the window less one slice, and never longer than the window."""
    window, now, calls = Window(10), 1000.0, []
    for pause, failed in steps:
        now += pause
        calls.append((now, failed))
        window.add(now, failed=failed)
    surely = [failed for at, failed in calls if at > now - 9 + 1e-9]
    at_most = [failed for at, failed in calls if at > now - 10 - 1e-9]
    assert len(surely) <= window.calls <= len(at_most)
    assert sum(surely) <= window.failures <= sum(at_most)


def test_memory_is_bounded():
    window = Window(1)
    for call in range(10_000):
        window.add(call * 0.003, failed=True)
    assert len(window._slices) <= SLICES
