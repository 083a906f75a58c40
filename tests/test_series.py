import random

import prometheus_client
import pytest

from proxy.metrics import FIRST_TOKEN, OVERHEAD
from proxy.series import SECONDS, Counter, Gauge, Histogram


@pytest.mark.parametrize("bounds", [SECONDS, OVERHEAD, FIRST_TOKEN], ids=["duration", "overhead", "first token"])
def test_histograms_are_those_of_prometheus_client(bounds):
    chance = random.Random(2)
    values = [*bounds, *(chance.lognormvariate(-2, 3) for _ in range(500)), 0.0, 1e9]
    ours, theirs = prometheus_client.CollectorRegistry(), prometheus_client.CollectorRegistry()
    spread = Histogram(ours, "x_seconds", "x", ("a", "b"), bounds)
    histogram = prometheus_client.Histogram("x_seconds", "x", ("a", "b"), registry=theirs, buckets=bounds)
    for value in values:
        labels = (chance.choice("ab"), "c")
        spread.observe(labels, value)
        histogram.labels(*labels).observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def samples(registry):
    found = [
        sample for family in registry.collect() for sample in family.samples if not sample.name.endswith("_created")
    ]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in found}


def test_buckets_add_up():
    registry = prometheus_client.CollectorRegistry()
    spread = Histogram(registry, "x_seconds", "x", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 2.0):
        spread.observe((), value)
    assert [(sample.labels.get("le"), sample.value) for family in registry.collect() for sample in family.samples] == [
        ("0.1", 2.0),
        ("1.0", 3.0),
        ("+Inf", 4.0),
        (None, 4.0),
        (None, pytest.approx(2.65)),
    ]


def test_a_counter_is_written_as_prometheus_client_writes_its_own():
    ours, theirs = prometheus_client.CollectorRegistry(), prometheus_client.CollectorRegistry()
    counts = Counter(ours, "x", "what", ("a",))
    counter = prometheus_client.Counter("x", "what", ("a",), registry=theirs)
    for label in ('q"uote', "back\\slash", "new\nline", "☺"):
        counts.values[(label,)] += 2
        counter.labels(label).inc(2)
    page = prometheus_client.generate_latest(theirs).splitlines()
    assert prometheus_client.generate_latest(ours).splitlines() == [line for line in page if b"_created" not in line]


def test_a_gauge_goes_up_and_down():
    registry = prometheus_client.CollectorRegistry()
    gauge = Gauge(registry, "x", "what", ("a",))
    gauge.add(("one",), 3)
    gauge.add(("one",), -1)
    gauge.set(("two",), 7)
    assert samples(registry) == {("x", ("a", "one")): 2.0, ("x", ("a", "two")): 7.0}


@pytest.mark.parametrize("labels", [("one",), "ok"])
def test_a_series_has_a_tuple_of_a_value_for_each_label(labels):
    counter = Counter(prometheus_client.CollectorRegistry(), "x", "what", ("a", "b"))
    with pytest.raises(ValueError, match=r"is no tuple of a value for each of the labels \('a', 'b'\)"):
        counter.add(labels)
