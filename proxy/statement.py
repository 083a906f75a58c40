"""Sums as somebody reads them: a table, CSV or JSON. Only the table rounds, to a millionth of a dollar."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxy.sums import Figures, Group, Sums

OTHERS, TOTAL, NONE = "(others)", "total", "-"
WIDEST = 48
SCORE = "score"
FIGURES = ("requests", "input", "cached", "output", "cost, USD", "wasted", "saved", "share")

_MILLIONTH = Decimal("0.000001")


def table(sums: Sums) -> str:
    """With a mean score where anybody has rated."""
    names = _names(sums)
    lines = [[*map(_shown, group), *_cells(figures, sums)] for group, figures in _rows(sums)]
    total = [TOTAL, *[""] * (len(names) - 1), *_cells(sums.total, sums)]
    score = (SCORE,) if sums.total.feedbacks else ()
    return _aligned([[*names, *FIGURES, *score], *lines, total], len(names))


def json(sums: Sums) -> str:
    """One object per line; the total has `total` set and no group."""
    rows = [_object(sums, dict(zip(_names(sums), group, strict=True)), figures) for group, figures in _rows(sums)]
    return "".join(orjson.dumps(row).decode() + "\n" for row in [*rows, _object(sums, {"total": True}, sums.total)])


def as_csv(sums: Sums) -> str:
    """Without a total: what reads it makes its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_names(sums), *_members(sums.total)])
    writer.writerows([*(value or "" for value in group), *_members(figures).values()] for group, figures in _rows(sums))
    return out.getvalue()


def _names(sums: Sums) -> list[str]:
    return [column.name for column in sums.columns]


def _rows(sums: Sums) -> Iterator[tuple[Group, Figures]]:
    yield from sums.rows()
    if sums.others.requests:
        yield (OTHERS,) * len(sums.columns), sums.others


def _object(sums: Sums, group: dict[str, Any], figures: Figures) -> dict[str, Any]:
    return {**group, **_members(figures), "share": _share(figures, sums)}


def _members(figures: Figures) -> dict[str, Any]:
    """Exact, but for the mean of what was rated."""
    exact = {name: _exact(figure) for name, figure in zip(figures._fields, figures, strict=True) if name != "scores"}
    return {**exact, SCORE: None if figures.score is None else round(float(figures.score), 4)}


def _exact(figure: object) -> int | str:
    return f"{figure.normalize():f}" if isinstance(figure, Decimal) else cast("int", figure)


def _share(figures: Figures, sums: Sums) -> float | None:
    return round(float(figures.cost_usd / sums.total.cost_usd), 6) if sums.total.cost_usd else None


def _cells(figures: Figures, sums: Sums) -> list[str]:
    share = _share(figures, sums)
    return [
        *(f"{count:,}" for count in figures[:4]),
        *(f"{usd.quantize(_MILLIONTH):,f}" for usd in figures[4:7]),
        NONE if share is None else f"{share:.1%}",
        *([NONE if figures.score is None else f"{figures.score:.3f}"] if sums.total.feedbacks else []),
    ]


def _shown(value: str | None) -> str:
    """What apps write may hold whatever a terminal obeys."""
    if value is None:
        return NONE
    text = "".join(letter if letter.isprintable() else "?" for letter in value[: WIDEST + 1])
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _aligned(rows: Sequence[Sequence[str]], texts: int) -> str:
    """The first `texts` columns to the left, figures to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    padded = (
        [
            cell.ljust(width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "".join("  ".join(cells).rstrip() + "\n" for cells in padded)
