"""From the figures of all rounds to the Markdown tables, and to what the reader should distrust in them."""

from collections.abc import Mapping, Sequence

from tests.bench.measures import (
    CHECKS,
    DIRECT,
    LOADS,
    MEASURES,
    NGINX,
    TTFT,
    WIDE,
    Budget,
    Figures,
    Measure,
    Round,
    first_event_key,
    load_busy_key,
    proxy_waited_key,
)

_BUSY_PERCENT = 90  # above this the load core may be what was measured
_WAITED_PERCENT = 10  # above this other processes shared the proxy's core even in the best round
_BY_KEY = {measure.key: measure for measure in (*MEASURES, *CHECKS)}
_NONE = "–"

Budgets = Mapping[str, Mapping[str, Budget]]  # by proxy, by measure


def summary(rounds: Sequence[Round]) -> dict[str, Figures]:
    """One figure per measure and proxy; TTFT as what the proxy adds to the direct way's same percentile."""
    names = dict.fromkeys(name for one in rounds for name in one if name != DIRECT)
    direct = over_rounds(rounds, DIRECT)
    return {name: _added(over_rounds(rounds, name), direct) for name in names}


def over_rounds(rounds: Sequence[Round], name: str) -> Figures:
    figures = [one[name] for one in rounds if name in one]
    keys = dict.fromkeys(key for one in figures for key in one)
    return {key: _BY_KEY[key].over_rounds([one[key] for one in figures if key in one]) for key in keys}


def _added(own: Figures, direct: Figures) -> Figures:
    known = {key: value for key, value in own.items() if key in direct or key not in TTFT}
    return {key: value - direct[key] if key in TTFT else value for key, value in known.items()}


def verdict(budget: Budget, value: float, others: Mapping[str, float]) -> str:
    """`others`: the measure's figures by proxy."""
    limit = f"≤ {budget.limit:g}"
    if budget.times_nginx:
        if not others.get(NGINX):
            return f"{limit} ×: no nginx"
        limit, value = f"{limit} ×", value / others[NGINX]
    if budget.beyond:
        if budget.beyond not in others:
            return f"{limit} more: no {budget.beyond}"
        value -= others[budget.beyond]
        limit = f"{limit} more than {budget.beyond} ({value:+.1f})"
    if value > budget.limit:
        return f"{limit}: **missed**"
    if budget.goal is None:
        return f"{limit}: met"
    return f"{limit}: met (goal {budget.goal:g} {'met' if value <= budget.goal else 'missed'})"


def table(summed: Mapping[str, Figures], budgets: Budgets) -> str:
    """One row per measure that anyone has; a Weir has three columns: figure, ratio to nginx, budget."""
    head = ["measure"]
    for name in summed:
        head += [name] if name == NGINX else [name, "× nginx", "budget"]
    return _markdown(head, [_row(measure, summed, budgets) for measure in _measured(MEASURES, summed)])


def checks(summed: Mapping[str, Figures]) -> str:
    rows = [
        [measure.title, *(_cell(measure, figures) for figures in summed.values())]
        for measure in _measured(CHECKS, summed)
    ]
    return _markdown(["load", *summed], rows)


def _measured(measures: Sequence[Measure], summed: Mapping[str, Figures]) -> list[Measure]:
    return [measure for measure in measures if any(measure.key in figures for figures in summed.values())]


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    ruled = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _row(measure: Measure, summed: Mapping[str, Figures], budgets: Budgets) -> list[str]:
    others = {name: figures[measure.key] for name, figures in summed.items() if measure.key in figures}
    row = [measure.title]
    for name, figures in summed.items():
        row.append(_cell(measure, figures))
        if name != NGINX:
            row += _judged(measure, figures.get(measure.key), others, budgets.get(name, {}).get(measure.key))
    return row


def _cell(measure: Measure, figures: Figures) -> str:
    return f"{figures[measure.key]:,.{measure.digits}f}" if measure.key in figures else _NONE


def _judged(measure: Measure, value: float | None, others: Mapping[str, float], budget: Budget | None) -> list[str]:
    if value is None:
        return [_NONE, ""]
    ratio = f"{value / others[NGINX]:.2f}" if measure.compared and others.get(NGINX) else _NONE
    return [ratio, verdict(budget, value, others) if budget else ""]


def direct_line(rounds: Sequence[Round]) -> str:
    direct = over_rounds(rounds, DIRECT)
    parts = [
        f"{direct[first_event_key(streams, 50)]:.2f} / {direct[first_event_key(streams, 99)]:.2f} ms at {streams}"
        for streams in WIDE
        if first_event_key(streams, 50) in direct
    ]
    return f"Without a proxy TTFT p50 / p99 is {' and '.join(parts)} streams." if parts else ""


def warnings(summed: Mapping[str, Figures]) -> list[str]:
    return [warning for name, figures in summed.items() for load in LOADS for warning in _distrust(name, load, figures)]


def _distrust(name: str, load: str, figures: Figures) -> list[str]:
    busy, waited = figures.get(load_busy_key(load), 0), figures.get(proxy_waited_key(load), 0)
    found = []
    if busy > _BUSY_PERCENT:
        found.append(f"{name}, {load}: the load core was {busy:.0f} % busy, wall-clock figures may be the load's own")
    if waited > _WAITED_PERCENT:
        found.append(
            f"{name}, {load}: the proxy waited for its core, which others used, {waited:.0f} % of the time that it had work"
        )
    return found
