"""The rules: what they say to do, and promtool's own tests of them."""

import re

import yaml

from tests.deploy.tools import DEPLOY, ROOT, run

PROMETHEUS = DEPLOY / "prometheus"
RULES = [
    rule
    for name in ("recording.yml", "alerts.yml")
    for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


def test_every_alert_says_what_is_wrong_what_it_means_and_what_to_do():
    for alert in ALERTS:
        assert set(alert["annotations"]) == {"summary", "description", "action", "runbook"}, alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert re.fullmatch(r"docs/operations\.md#[a-z-]+", alert["annotations"]["runbook"])
        assert alert["for"]


def test_every_alert_has_a_test_that_it_fires_and_is_tested_nowhere_else():
    files = sorted(PROMETHEUS.glob("*_test.yml"))
    tests = [test for file in files for test in yaml.safe_load(file.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {alert["alert"] for alert in ALERTS}


def test_alerts_use_the_recording_rules_that_there_are():
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    used = {name for alert in ALERTS for name in re.findall(r"weir:\w+:\w+", alert["expr"])}
    assert used <= recorded


def test_promtool_takes_the_rules_and_the_config():
    run("promtool", "check", "rules", PROMETHEUS / "recording.yml", PROMETHEUS / "alerts.yml")
    run("promtool", "check", "config", DEPLOY / "compose" / "prometheus.yml")


def test_promtools_own_tests_pass():
    for file in PROMETHEUS.glob("*_test.yml"):
        run("promtool", "test", "rules", file.name, cwd=PROMETHEUS)


def test_the_runbook_has_what_alerts_point_to():
    text = (ROOT / "docs" / "operations.md").read_text()
    anchors = {alert["annotations"]["runbook"].partition("#")[2] for alert in ALERTS}
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert anchors == {heading.lower().replace(" ", "-") for heading in headings}
