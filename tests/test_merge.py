"""What several workers measure is one: sums of counts, also of those that have gone, and gauges as each says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Info, Summary, generate_latest

from proxy.merge import Tally, read, taken
from proxy.series import Counter, Gauge, Histogram


class Worker:
    def __init__(self):
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(registry, "requests", "r", ("route",))
        self.seconds = Histogram(registry, "seconds", "s", ("route",), (0.1, 1.0))
        self.under_way = Gauge(registry, "under_way", "g", ("route",))
        self.lag = Gauge(registry, "lag", "l", (), "max")
        self.up = Gauge(registry, "up", "u", (), "min")

    def told(self):
        return read(taken(self.registry))


@pytest.fixture
def shown():
    return CollectorRegistry()


def page(registry):
    return {line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"}


def test_counts_and_histograms_are_sums_and_gauges_are_what_they_say(shown):
    tally, one, other = Tally(shown), Worker(), Worker()
    one.requests.add(("a",), 2)
    other.requests.add(("a",), 3)
    other.requests.add(("b",))
    one.seconds.observe(("a",), 0.05)
    other.seconds.observe(("a",), 0.5)
    for worker, under_way, lag, up in ((one, 1, 0.25, 0), (other, 2, 0.5, 1)):
        worker.under_way.set(("a",), under_way)
        worker.lag.set((), lag)
        worker.up.set((), up)
    tally.note("one", one.told())
    tally.note("other", other.told())
    assert page(shown) == {
        'requests_total{route="a"} 5.0',
        'requests_total{route="b"} 1.0',
        'seconds_bucket{le="0.1",route="a"} 1.0',
        'seconds_bucket{le="1.0",route="a"} 2.0',
        'seconds_bucket{le="+Inf",route="a"} 2.0',
        'seconds_count{route="a"} 2.0',
        'seconds_sum{route="a"} 0.55',
        'under_way{route="a"} 3.0',
        "lag 0.5",
        "up 0.0",
    }


def test_what_a_worker_counted_stays_when_it_has_gone_and_what_there_was_does_not(shown):
    tally, gone = Tally(shown), Worker()
    gone.requests.add(("a",), 7)
    gone.under_way.set(("a",), 1)
    tally.note("gone", gone.told())
    tally.leave("gone")
    tally.leave("gone")
    new = Worker()
    new.requests.add(("a",))
    tally.note("new", new.told())
    assert page(shown) == {'requests_total{route="a"} 8.0'}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.booleans()), max_size=30))
def test_no_count_ever_falls_and_none_is_lost(events):
    """Workers count, are asked, and are replaced, in any order."""
    shown = CollectorRegistry()
    tally, workers, names, total, before = Tally(shown), [Worker() for _ in range(3)], [0, 0, 0], 0, 0.0
    for slot, amount, is_replaced in events:
        workers[slot].requests.add(("a",), amount)
        total += amount
        tally.note((slot, names[slot]), workers[slot].told())
        if is_replaced:
            tally.leave((slot, names[slot]))
            workers[slot], names[slot] = Worker(), names[slot] + 1
        seen = shown.get_sample_value("requests_total", {"route": "a"})
        assert seen == total >= before
        before = seen


def test_families_of_plugins_own_are_understood_too(shown):
    tally = Tally(shown)
    for place in range(2):
        registry = CollectorRegistry()
        Summary("size", "s", registry=registry).observe(3)
        Info("build", "b", registry=registry).info({"version": "1"})
        tally.note(place, read(taken(registry)))
    lines = page(shown)
    assert {"size_count 2.0", "size_sum 6.0", 'build_info{version="1"} 2.0'} <= lines
