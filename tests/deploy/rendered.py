"""What is checked in as made from something else: `python -m tests.deploy.rendered --write` makes it anew."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import yaml

from tests.deploy.tools import DEPLOY, run

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

HELM = DEPLOY / "helm"
NEWEST = "1.37.0"
PAGE = """\
# Weir's chart

Weir as a sidecar in the pods of other charts, or as a gateway of its own. [docs/kubernetes.md](../../../docs/kubernetes.md) shows both,
[../example](../example) a chart that takes it in, [../rendered](../rendered) what comes of it.

<!-- Made of values.yaml by `python -m tests.deploy.rendered --write`. -->

| value | default | |
|---|---|---|
"""
RULE = """\
# Made of ../../prometheus by `python -m tests.deploy.rendered --write`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: weir
  labels: {release: prometheus} # what your Prometheus selects by
spec:
  groups:
"""


def template(chart: str, *options: str | pathlib.Path, kube: str = NEWEST) -> str:
    return run("helm", "template", "shop", HELM / chart, "--namespace", "shop", "--kube-version", kube, *options)


def values(mode: str) -> tuple[str | pathlib.Path, ...]:
    return ("--values", HELM / "weir" / "ci" / f"{mode}-values.yaml")


def kustomized(folder: str) -> str:
    return run("kubectl", "kustomize", DEPLOY / folder)


def prometheus_rule() -> str:
    """The rules as the Prometheus operator wants them."""
    texts = [(DEPLOY / "prometheus" / name).read_text() for name in ("recording.yml", "alerts.yml")]
    groups = "".join(text.partition("\ngroups:\n")[2] for text in texts)
    return RULE + "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())


def chart_page() -> str:
    """The chart's README, with the values as values.yaml describes them."""
    text = re.sub(
        r"^config: \|\n(?: .*\n)+", "config: |\n", (HELM / "weir" / "values.yaml").read_text(), flags=re.MULTILINE
    )
    rows, group, said = [], "", []
    for line in text.splitlines():
        key, _, value = line.strip().partition(":")
        if line.lstrip().startswith("# "):
            said.append(line.strip().removeprefix("# ").removeprefix("-- "))
        elif line and not value:
            group = f"{key}."
        elif line:
            name = f"{group}{key}" if line.startswith(" ") else key
            shown = "see values.yaml" if key == "config" else f"`{value.strip()}`"
            rows.append(f"| `{name}` | {shown} | {' '.join(said)} |".replace("||", "|"))
        said = said if line.lstrip().startswith("# ") else []
    return PAGE + "\n".join(rows) + "\n"


MADE: dict[str, Callable[[], str]] = {
    "helm/weir/README.md": chart_page,
    "kubernetes/monitoring/prometheusrule.yaml": prometheus_rule,
    "kubernetes/rendered/example.yaml": lambda: kustomized("kubernetes/example"),
    "helm/rendered/sidecar.yaml": lambda: template("weir", *values("sidecar")),
    "helm/rendered/monitored.yaml": lambda: template("weir", *values("monitored"), "--set", "dashboards.enabled=false"),
    "helm/rendered/gateway.yaml": lambda: template("weir", *values("gateway")),
    "helm/rendered/example.yaml": lambda: template("example"),
    "helm/rendered/example-before-1.29.yaml": lambda: template("example", kube="1.28.0"),
}


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


if __name__ == "__main__":
    for name, make in MADE.items():
        if "--write" in sys.argv:
            (DEPLOY / name).parent.mkdir(exist_ok=True)
            (DEPLOY / name).write_text("\n".join(line.rstrip() for line in make().splitlines()) + "\n")
        else:
            print(make())
