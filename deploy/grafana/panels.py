"""What a dashboard is in short, and in Grafana's JSON.

A row is a list of panels of one height, which share its 24 columns. In queries a word in capitals stands for the labels
that the variables at the top of a dashboard choose, RATE for the range that suits a graph's step, RANGE for what is on
the screen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HERE = 'namespace=~"$namespace", job=~"$job"'
WORDS = {
    "PAYER": f'{_HERE}, route=~"$route", model=~"$model", principal=~"$principal"',
    "TARGET": f'{_HERE}, upstream=~"$upstream", model=~"$model"',
    "UPSTREAM": f'{_HERE}, upstream=~"$upstream"',
    "PRINCIPAL": f'{_HERE}, principal=~"$principal"',
    "ROUTE": f'{_HERE}, route=~"$route"',
    "MODEL": f'{_HERE}, model=~"$model"',
    "ALL": _HERE,
    "RATE": "$__rate_interval",
    "RANGE": "$__range",
}


@dataclass(frozen=True)
class Panel:
    """`queries` are by legend. `steps` colour values from each on: {value: colour}."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    stacked: bool = False
    steps: dict[float, str] = field(default_factory=dict)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    colours: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dashboard:
    file: str
    title: str
    description: str
    variables: tuple[str, ...]
    rows: dict[str, tuple[int, list[Panel]]]


def percentile(share: float, metric: str, labels: str, by: str = "") -> str:
    groups = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}[RATE])))"


def percentiles(metric: str, labels: str) -> dict[str, str]:
    return {f"p{round(share * 100)}": percentile(share, metric, labels) for share in (0.5, 0.95, 0.99)}


def share(metric: str, labels: str, which: str, by: str) -> str:
    """Of all, those which...: 0 where there are none of them."""
    every = f"sum by ({by}) (rate({metric}{{{labels}}}[RATE]))"
    return f"(sum by ({by}) (rate({metric}{{{labels}, {which}}}[RATE])) or 0 * {every}) / {every}"


def stat(title: str, description: str, unit: str, query: str, steps: dict[float, str] | None = None) -> Panel:
    return Panel(title, description, unit, {title: query}, kind="stat", steps=steps or {})


_VALUES_OF = {
    "route": "weir_requests_total",
    "model": "weir_tokens_total",
    "principal": "weir_tokens_total",
    "upstream": "weir_attempts_total",
}


def query(text: str) -> str:
    """With every word in capitals replaced by the labels that it stands for."""
    for word, labels in WORDS.items():
        text = text.replace(f"{{{word}", f"{{{labels}").replace(f"[{word}]", f"[{labels}]")
    return text


def dashboard(told: Dashboard) -> dict[str, Any]:
    return {
        "uid": f"weir-{told.file.removesuffix('.json')}",
        "title": told.title,
        "description": told.description,
        "tags": ["weir"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "annotations": {"list": []},
        "links": [_links()],
        "templating": {"list": [_source(), *_variables(told.variables)]},
        "panels": list(_panels(told)),
    }


def _links() -> dict[str, Any]:
    """To the others, with the time and the variables that are chosen."""
    return {
        "title": "Weir",
        "type": "dashboards",
        "tags": ["weir"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _variables(names: tuple[str, ...]) -> list[dict[str, Any]]:
    here = 'weir_requests_total{namespace=~"$namespace"}'
    queries = {"namespace": "label_values(weir_requests_total, namespace)", "job": f"label_values({here}, job)"}
    queries |= {name: f"label_values({_VALUES_OF[name]}{{{_HERE}}}, {name})" for name in names}
    return [_variable(name, text) for name, text in queries.items()]


def _variable(name: str, text: str) -> dict[str, Any]:
    """`.*` for all: it also takes what lacks the label, such as the namespace outside of Kubernetes."""
    return {
        "name": name,
        "label": "App" if name == "job" else name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "query": text,
        "definition": text,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _panels(told: Dashboard) -> Iterator[dict[str, Any]]:
    top = number = 0
    for title, (height, panels) in told.rows.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
            "panels": [],
        }
        edges = [round(COLUMNS * place / len(panels)) for place in range(len(panels) + 1)]
        for panel, left, right in zip(panels, edges, edges[1:], strict=False):
            number += 1
            at = {"x": left, "y": top + 1, "w": right - left, "h": height}
            yield {"id": number, "gridPos": at, **_panel(panel)}
        top += height + 1


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(place, panel, legend, text) for place, (legend, text) in enumerate(panel.queries.items())],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


_TABLE = [
    {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "Cost"}}},
    {"id": "sortBy", "options": {"sort": [{"field": "Cost", "desc": True}]}},
]


def _target(place: int, panel: Panel, legend: str, text: str) -> dict[str, Any]:
    instant = panel.kind in {"table", "bargauge"}
    return {
        "refId": "ABCDEF"[place],
        "datasource": SOURCE,
        "expr": query(text),
        "legendFormat": legend or "__auto",
        "instant": instant,
        "range": not instant,
        "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or {0: "green"}
    first = min(steps)
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.steps or panel.kind == "stat" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": None if value == first else value, "color": colour} for value, colour in steps.items()],
        },
        "mappings": [
            {
                "type": "value",
                "options": {str(n): {"text": text, "color": colour} for n, (text, colour) in panel.names.items()},
            }
        ]
        if panel.names
        else [],
    }
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never", "stacking": stacking}
    return defaults


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in panel.colours.items()
    ]


def _options(panel: Panel) -> dict[str, Any]:
    last = {"reduceOptions": {"calcs": ["lastNotNull"], "values": False, "fields": ""}}
    match panel.kind:
        case "stat":
            return {**last, "colorMode": "value", "graphMode": "area", "textMode": "value"}
        case "bargauge":
            return {**last, "displayMode": "basic", "orientation": "horizontal"}
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": panel.unit}, "tooltip": {"mode": "single"}}
        case "table" | "state-timeline":
            return {}
        case _:
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def written(told: Dashboard) -> str:
    return orjson.dumps(dashboard(told), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
