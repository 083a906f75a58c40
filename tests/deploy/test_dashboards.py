"""Dashboards are what deploy/grafana/dashboards.py says, and every panel's query has data once there is traffic."""

import asyncio
import contextlib
import importlib
import io
import itertools
import math
import re
import subprocess

import aiohttp
import orjson
import pytest
import yaml

from tests.deploy import traffic
from tests.deploy.tools import DEPLOY, ROOT, run, tool
from tests.integration.weir import free_ports

UNSHOWN = {
    "weir_feedback",
    "weir_feedback_score",
    "weir_spans",
    "weir_upstream_load",
    "weir_upstream_loading",
    "weir_upstream_seconds",
    "weir_worker_starts",
    "weir_workers",
}
"""Metrics that come without a panel. Give them one, and take them out here."""

SECONDS = 25
FILES = sorted((DEPLOY / "grafana").glob("*.json"))
DASHBOARDS = {file.name: orjson.loads(file.read_bytes()) for file in FILES}
PANELS = [(name, panel) for name, shown in DASHBOARDS.items() for panel in shown["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{name}: {panel['title']} [{target['legendFormat']}]": target["expr"]
    for name, panel in PANELS
    for target in panel["targets"]
}
RULES = [
    rule["expr"]
    for file in ("recording.yml", "alerts.yml")
    for group in yaml.safe_load((DEPLOY / "prometheus" / file).read_text())["groups"]
    for rule in group["rules"]
]


def metrics(expression):
    names = set(re.findall(r"\b(?:weir|gen_ai)_\w+", expression))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}


def test_the_files_are_what_the_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(DEPLOY / "grafana")
    told = importlib.import_module("dashboards")
    written = {each.file: told.written(each) for each in told.DASHBOARDS}
    assert written == {file.name: file.read_text() for file in FILES}, (
        "run `.venv/bin/python deploy/grafana/dashboards.py`"
    )


def test_every_panel_says_what_it_shows_and_in_which_unit():
    for name, panel in PANELS:
        assert panel["description"].endswith("."), (name, panel["title"])
        assert panel["fieldConfig"]["defaults"]["unit"], (name, panel["title"])
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("shown", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_lie_side_by_side_and_have_numbers_of_their_own(shown):
    taken = set()
    for panel in shown["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in shown["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("shown", DASHBOARDS.values(), ids=DASHBOARDS)
def test_queries_use_the_variables_that_the_dashboard_has_and_all_of_them(shown):
    has = {variable["name"] for variable in shown["templating"]["list"]}
    text = orjson.dumps(shown["panels"]).decode()
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range"}
    assert used == has


def test_together_they_can_be_narrowed_to_a_route_a_model_and_a_principal():
    names = {variable["name"] for shown in DASHBOARDS.values() for variable in shown["templating"]["list"]}
    assert {"namespace", "job", "route", "model", "principal", "upstream"} <= names


def test_dashboards_and_rules_ask_for_metrics_that_weir_has():
    code = "\n".join(file.read_text() for folder in ("proxy", "plugins") for file in (ROOT / folder).rglob("*.py"))
    known = {name.removesuffix("_total") for name in re.findall(r'"((?:weir|gen_ai)_\w+)"', code)}
    asked = {name.removesuffix("_total") for text in [*QUERIES.values(), *RULES] for name in metrics(text)}
    assert asked - known == set()


def test_every_metric_of_weir_is_on_a_dashboard_or_in_a_rule():
    code = "\n".join(file.read_text() for folder in ("proxy", "plugins") for file in (ROOT / folder).rglob("*.py"))
    known = {name.removesuffix("_total") for name in re.findall(r'"((?:weir|gen_ai)_[a-z_]+)"', code)}
    shown = {name.removesuffix("_total") for text in [*QUERIES.values(), *RULES] for name in metrics(text)}
    assert known - shown - UNSHOWN == set(), "give it a panel in deploy/grafana/dashboards.py"


@contextlib.contextmanager
def prometheus(folder, target):
    """Scrapes five times a second; its own address."""
    program, (port, _) = tool("prometheus"), free_ports()
    address = f"127.0.0.1:{port}"
    scrape = {"job_name": "weir", "static_configs": [{"targets": [target.removeprefix("http://")]}]}
    asked = {"global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(asked))
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *options, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


async def values(session, query):
    """Numbers only: a quantile of nothing is NaN, and no data."""
    try:
        async with session.get("/api/v1/query", params={"query": query}) as answer:
            found = await answer.json()
    except aiohttp.ClientConnectionError:
        return []  # not up yet
    assert found["status"] == "success", (query, found)
    return [sample["value"][1] for sample in found["data"]["result"] if math.isfinite(float(sample["value"][1]))]


async def still_empty(session, waiting):
    """What has no data when the time is up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while waiting:
                await asyncio.sleep(0.5)
                empty = {where: text for where, text in waiting.items() if not await values(session, text)}
                waiting = empty
    return waiting


def filled(expression):
    """As Grafana does it, with all of every variable chosen."""
    chosen = re.sub(r'"\$\w+"', '".*"', expression)
    return chosen.replace("$__rate_interval", "10s").replace("$__range", "1m")


async def test_every_panel_has_data_once_there_is_traffic(tmp_path, redis):
    tool("prometheus")
    waiting = {where: filled(text) for where, text in QUERIES.items()}
    async with traffic.weir(tmp_path, redis.url, io.BytesIO()) as weir, traffic.mixed(weir.url):
        with prometheus(tmp_path, weir.admin_url) as url:
            async with aiohttp.ClientSession(url) as session:
                waiting = await still_empty(session, waiting)
        page = weir.metrics.page().decode()
    assert waiting == {}
    assert run("promtool", "check", "metrics", input=page) == ""  # names, units and help as Prometheus wants them
