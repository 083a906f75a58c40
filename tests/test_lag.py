"""How late the loop is: told for long enough that no scrape misses it, and forgotten then."""

import time

from hypothesis import given
from hypothesis import strategies as st

from proxy import testing
from proxy.lag import SPAN_SECONDS, Lag
from tests import wire


@given(st.lists(st.tuples(st.floats(0.1, 50), st.floats(0, 5)), min_size=1, max_size=60))
def test_the_worst_is_told_for_a_span_and_forgotten_after_two(steps):
    lag, now, seen = Lag(), 0.0, []
    for pause, late in steps:
        now += pause
        seen.append((now, late))
        told = lag.noted(now, late)
        assert told >= max(late for at, late in seen if now - at < SPAN_SECONDS)
        assert told <= max(late for at, late in seen if now - at < 2 * SPAN_SECONDS)


async def test_a_callback_that_blocks_is_seen():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream) as weir:

        def told():
            (line,) = [
                line for line in weir.metrics.page().splitlines() if line.startswith(b"weir_event_loop_lag")
            ] or [b"x 0"]
            return float(line.split()[1])

        await wire.until(lambda: told() >= 0 and b"\nweir_event_loop_lag_seconds " in weir.metrics.page())
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        await wire.until(lambda: told() >= 0.19)
