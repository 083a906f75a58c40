"""Lines of a ledger are summed exactly, by whatever they say."""

from decimal import Decimal

import pytest

from proxy.sums import Figures, Sums, column


def line(usd="0.003", *, principal="search-team", attempts=({"upstream": "openai"},), **more):
    return {
        "log": "ledger",
        "time": "2026-11-20T23:59:59.000000Z",
        "principal": principal,
        "labels": {"feature": "search"},
        "user": "ada",
        "route": "default",
        "upstream": "openai",
        "model": "gpt-4o",
        "attempts": list(attempts),
        "tokens": {"input": 1000, "cached_input": 400, "cache_write": 0, "output": 100, "reasoning": 64},
        "cost_usd": usd,
        "status": 200,
        "outcome": "ok",
        **more,
    }


def rating(score, *, principal="search-team", **more):
    about = {"principal": principal, "labels": {"feature": "search"}, "prompt_version": "v7", **more}
    return {"log": "feedback", "time": "2026-11-21T08:00:00.000000Z", "score": score, **about}


def summed(lines, *names, **limits):
    sums = Sums([column(name) for name in names], **limits)
    for each in lines:
        sums.add(each)
    return sums


@pytest.mark.parametrize(("name", "value"), [
    ("principal", "search-team"),
    ("user", "ada"),
    ("model", "gpt-4o"),
    ("status", "200"),
    ("day", "2026-11-20"),
    ("month", "2026-11"),
    ("hour", "2026-11-20T23"),
    ("feature", "search"),
    ("label:feature", "search"),
    ("label:user", None),
    ("detour", None),
])  # fmt: skip
def test_a_column_is_a_field_a_part_of_the_time_or_a_label(name, value):
    assert column(name).value(line()) == value


def test_feedback_is_summed_beside_what_it_is_about():
    lines = [line("1", prompt_version="v7"), rating(0.1), rating(0.2), rating(1, prompt_version=None)]
    rows = summed(lines, "prompt_version").rows()
    assert [(group, figures.requests, figures.feedbacks, figures.score) for group, figures in rows] == [
        (("v7",), 1, 2, Decimal("0.15")),
        ((None,), 0, 1, Decimal(1)),
    ]


def test_what_costs_most_goes_first():
    lines = [
        line("1", principal="small"),
        line("5", principal="large"),
        line("1.5", principal="small"),
        line("0", principal=None),
    ]
    rows = summed(lines, "principal").rows()
    assert [(group, figures.requests, figures.cost_usd) for group, figures in rows] == [
        (("large",), 1, Decimal(5)),
        (("small",), 2, Decimal("2.5")),
        ((None,), 1, Decimal(0)),
    ]


def test_every_figure_is_summed():
    lines = [
        line(saved_usd="0.5"),
        line(attempts=({"wasted_usd": "0.25"}, {"wasted_usd": None}, {})),
        line(None),
    ]
    assert summed(lines, "route").total == Figures(
        3, 3000, 1200, 300, Decimal("0.006"), Decimal("0.25"), Decimal("0.5"), unpriced=1
    )


def test_sums_do_not_drift():
    assert summed([line("0.1")] * 3 + [line("0.000000000000001")], "route").total.cost_usd == Decimal(
        "0.300000000000001"
    )


def test_memory_is_bounded_and_the_total_is_not_touched_by_that():
    lines = [line(str(number % 100), user=f"u{number}") for number in range(1000)]
    sums = summed(lines, "user", most=50)
    rows = sums.rows()
    assert len(rows) == 50
    assert rows[0][1].cost_usd == 99
    assert (sums.total.requests, sums.total.cost_usd) == (1000, sum(number % 100 for number in range(1000)))
    assert sums.others.requests == 950


def test_a_label_that_no_line_has_is_told():
    assert summed([line()], "feature", "principl").unknown_labels() == ["principl"]


@pytest.mark.parametrize("broken", [
    {"cost_usd": 0.003},
    {"cost_usd": "a lot"},
    {"cost_usd": "NaN"},
    {"tokens": {"input": 1.5, "cached_input": 0, "output": 0}},
    {"tokens": {}},
    {"attempts": None},
    {"labels": None},
])  # fmt: skip
def test_what_is_no_line_is_not_summed_by_halves(broken):
    sums = Sums([column("feature")])
    with pytest.raises((KeyError, AttributeError, TypeError, ValueError, ArithmeticError)):
        sums.add({**line(), **broken})
    assert sums.total == Figures()
