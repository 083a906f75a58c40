"""What several workers measure, shown as one: counts are added up, and stay counted when their worker has gone.

A gauge says itself how its values become one: their sum, unless it is `max` or `min`.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

    Labels = tuple[tuple[str, str], ...]
    Series = tuple[str, Labels]

HOW: Mapping[str, Callable[[float, float], float]] = {"sum": operator.add, "max": max, "min": min}
COUNTING = frozenset({"counter", "histogram", "summary"})
CREATED = "_created"


class Measured(NamedTuple):
    """A metric of one worker, or of several."""

    name: str
    kind: str
    documentation: str
    how: str
    series: dict[Series, float]


def taken(registry: CollectorRegistry) -> list[list[Any]]:
    """All that is measured here, as JSON has it: the fields of each Measured."""
    return [
        [
            metric.name,
            metric.type,
            metric.documentation,
            "sum" if metric.type in COUNTING else getattr(metric, "how", "sum"),
            [[sample.name, list(sample.labels.items()), float(sample.value)] for sample in metric.samples],
        ]
        for metric in registry.collect()
    ]


def read(told: Iterable[list[Any]]) -> list[Measured]:
    """What `taken` has made."""
    return [Measured._make([*facts, _series(samples)]) for *facts, samples in told]


def _series(samples: list[Any]) -> dict[Series, float]:
    return {(name, tuple(map(tuple, labels))): math.nan if value is None else value for name, labels, value in samples}


class Tally(Collector):
    """`note` what a worker measures, as often as it is asked, and `leave` when it has gone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._of: dict[Hashable, list[Measured]] = {}
        self._left: list[Measured] = []
        registry.register(self)

    def note(self, worker: Hashable, measured: list[Measured]) -> None:
        self._of[worker] = measured

    def leave(self, worker: Hashable) -> None:
        """What it has counted remains, what there was at the moment does not."""
        counted = [metric for metric in self._of.pop(worker, ()) if metric.kind in COUNTING]
        self._left = list(merged([*self._left, *counted]))

    @override
    def collect(self) -> Iterator[Metric]:
        every = [*self._left, *(metric for measured in self._of.values() for metric in measured)]
        for one in merged(every):
            metric = Metric(one.name, one.documentation, one.kind)
            for (name, labels), value in one.series.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def merged(every: Iterable[Measured]) -> Iterable[Measured]:
    """One of each name, in the order in which they first come."""
    groups: dict[str, list[Measured]] = {}
    for metric in every:
        groups.setdefault(metric.name, []).append(metric)
    return [functools.reduce(_both, group) for group in groups.values()]


def _both(one: Measured, other: Measured) -> Measured:
    series, how = dict(one.series), HOW[other.how]
    for key, value in other.series.items():
        if key not in series:
            series[key] = value
        else:
            series[key] = min(series[key], value) if key[0].endswith(CREATED) else how(series[key], value)
    return one._replace(series=series)
