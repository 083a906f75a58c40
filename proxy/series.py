"""Counters, gauges and histograms as plain numbers, written out by prometheus-client when somebody asks.

One process's one thread counts here. prometheus-client's own take a lock for each of the ten updates that a request
needs, together more than the routing and the chain cost. Label values must come from closed sets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from decimal import Decimal

    from prometheus_client import CollectorRegistry, Metric

Labels = tuple[str, ...]
How = Literal["sum", "max", "min"]
N = TypeVar("N")

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Values(defaultdict[Labels, N], Generic[N]):
    """By label values; a new series with too few or too many of them is refused."""

    def __init__(self, names: Labels, first: Callable[[], N]) -> None:
        super().__init__(first)
        self._names = names

    @override
    def __missing__(self, labels: Labels) -> N:
        if type(labels) is not tuple or len(labels) != len(self._names):
            raise ValueError(f"{labels!r} is no tuple of a value for each of the labels {self._names!r}")
        return super().__missing__(labels)


class Family(Collector):
    """One metric with its labels."""

    def __init__(self, registry: CollectorRegistry, name: str, documentation: str, labels: Labels) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = labels
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """What the registry asks for, so that a plugin cannot take a name of ours."""
        return self.collect()


class Counter(Family):
    """Counts in whatever is added: sums of Decimals are exact."""

    def __init__(self, registry: CollectorRegistry, name: str, documentation: str, labels: Labels = ()) -> None:
        self.values: Values[Any] = Values(labels, int)
        super().__init__(registry, name, documentation, labels)

    def add(self, labels: Labels = (), n: float | Decimal = 1) -> None:
        self.values[labels] += n

    @override
    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        yield family


class GaugeFamily(GaugeMetricFamily):
    """`how` the values of several workers become one."""

    how: How = "sum"


class Gauge(Counter):
    """What there is now: `add` goes up and down. Of several workers the `sum` is shown, or the `max` or `min`."""

    def __init__(
        self, registry: CollectorRegistry, name: str, documentation: str, labels: Labels = (), how: How = "sum"
    ) -> None:
        self._how: How = how
        super().__init__(registry, name, documentation, labels)

    def set(self, labels: Labels, value: float) -> None:
        self.values[labels] = value

    @override
    def collect(self) -> Iterator[Metric]:
        family = GaugeFamily(self.name, self.documentation, labels=self.labels)
        family.how = self._how
        for labels, value in list(self.values.items()):
            family.add_metric(labels, value)
        yield family


class Histogram(Family):
    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        labels: Labels = (),
        bounds: tuple[float, ...] = SECONDS,
    ) -> None:
        self._bounds = bounds
        self._counts: Values[list[int]] = Values(labels, lambda: [0] * (len(bounds) + 1))
        self._sums: Values[float] = Values(labels, float)
        super().__init__(registry, name, documentation, labels)

    def observe(self, labels: Labels, value: float) -> None:
        self._counts[labels][bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    @override
    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.labels)
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        for labels, counts in list(self._counts.items()):
            running = 0
            buckets = []
            for name, count in zip(names, counts, strict=True):
                running += count
                buckets.append((name, running))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family
