"""Lines of a ledger, summed by what they say: exact, and in bounded memory however many groups there are.

A line is what the metering plugin writes, read here as the plain mapping that it is. Of more groups than can be held
those that cost least are summed as one.
"""

from __future__ import annotations

import functools
import heapq
import operator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Entry = Mapping[str, Any]
    Group = tuple[str | None, ...]

MAX_GROUPS = 100_000
LABEL = "label:"
FIELDS = (
    "principal",
    "user",
    "prompt_version",
    "route",
    "detour",
    "endpoint",
    "upstream",
    "model",
    "served_model",
    "outcome",
    "status",
)
TIMES = {"month": 7, "day": 10, "hour": 13}
"""Characters of a line's time, which is in UTC."""

_ZERO = Decimal(0)


class Column(NamedTuple):
    """What lines are summed by, named as it was asked for; `value` is None where a line does not say."""

    name: str
    value: Callable[[Entry], str | None]
    label: str | None = None


def column(name: str) -> Column:
    """A field of the line, `day` or another part of its time, else a label, with `label:` before it or without."""
    if name in TIMES:
        return Column(name, lambda entry: entry["time"][: TIMES[name]])
    if name in FIELDS:
        return Column(name, lambda entry: _text(entry.get(name)))
    label = name.removeprefix(LABEL)
    return Column(name, lambda entry: _text(entry["labels"].get(label)), label)


class Figures(NamedTuple):
    """`cost_usd` is what served, `wasted_usd` what failed attempts cost beside it; who is `unpriced` is in neither.

    `feedbacks` have `scores` in sum, and are no requests.
    """

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = _ZERO
    wasted_usd: Decimal = _ZERO
    saved_usd: Decimal = _ZERO
    unpriced: int = 0
    feedbacks: int = 0
    scores: Decimal = _ZERO

    @property
    def score(self) -> Decimal | None:
        """The mean; None where nobody has rated."""
        return self.scores / self.feedbacks if self.feedbacks else None

    def plus(self, other: Figures) -> Figures:
        return Figures._make(map(operator.add, self, other))


class Sums:
    def __init__(self, columns: Sequence[Column], most: int = MAX_GROUPS) -> None:
        self.columns = columns
        self.others = Figures()
        """The cheapest groups, where there are more than `most`."""
        self._most = most
        self._groups: dict[Group, Figures] = {}

    def add(self, entry: Entry) -> None:
        """Raises KeyError, AttributeError, TypeError, ValueError or ArithmeticError: it is no line of a ledger."""
        figures = _rating(entry) if entry["log"] == "feedback" else _figures(entry)
        group = tuple([column.value(entry) for column in self.columns])
        known = self._groups.get(group)
        self._groups[group] = figures if known is None else known.plus(figures)
        if len(self._groups) > 2 * self._most:
            self._cut()

    @functools.cached_property
    def total(self) -> Figures:
        """To be asked for when all is added."""
        return functools.reduce(Figures.plus, self._groups.values(), self.others)

    def rows(self) -> list[tuple[Group, Figures]]:
        """What costs most goes first."""
        self._cut()
        return sorted(self._groups.items(), key=_costliest_first)

    def unknown_labels(self) -> list[str]:
        """Columns that are no field of a line, and that no line has as a label either."""
        labels = [(place, column.label) for place, column in enumerate(self.columns) if column.label is not None]
        return [label for place, label in labels if all(group[place] is None for group in self._groups)]

    def _cut(self) -> None:
        if len(self._groups) <= self._most:
            return
        kept = heapq.nsmallest(self._most, self._groups.items(), key=_costliest_first)
        for group, _ in kept:
            del self._groups[group]
        self.others = functools.reduce(Figures.plus, self._groups.values(), self.others)
        self._groups = dict(kept)


def _costliest_first(row: tuple[Group, Figures]) -> tuple[Decimal, int, list[str]]:
    group, figures = row
    return -figures.cost_usd, -figures.requests, [value or "" for value in group]


def _figures(entry: Entry) -> Figures:
    tokens, usd = entry["tokens"], entry["cost_usd"]
    return Figures(
        1,
        operator.index(tokens["input"]),
        operator.index(tokens["cached_input"]),
        operator.index(tokens["output"]),
        _usd(usd),
        _wasted(entry["attempts"]),
        _usd(entry.get("saved_usd")),
        int(usd is None),
    )


def _rating(entry: Entry) -> Figures:
    return Figures(feedbacks=1, scores=Decimal(str(entry["score"])))


def _wasted(attempts: Sequence[Entry]) -> Decimal:
    if len(attempts) == 1 and "wasted_usd" not in attempts[0]:
        return _ZERO
    return sum((_usd(attempt.get("wasted_usd")) for attempt in attempts), _ZERO)


def _usd(value: object) -> Decimal:
    if value is None:
        return _ZERO
    if not isinstance(value, str):
        raise TypeError("an amount that is not text has been rounded already")
    usd = Decimal(value)
    if not usd.is_finite():
        raise ValueError("no amount")
    return usd


def _text(value: object) -> str | None:
    return None if value is None else str(value)
