"""The chart: its values and their schema agree, its modes make what they say, and its configs pass `weir check`."""

import itertools
import re
import tomllib

import jsonschema
import orjson
import pytest
import yaml

from tests.deploy import pods
from tests.deploy.rendered import HELM, documents, template, values
from tests.deploy.tools import DEPLOY, ROOT, run

CHART = HELM / "weir"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = orjson.loads((CHART / "values.schema.json").read_bytes())
MODES = sorted(file.name.removesuffix("-values.yaml") for file in (CHART / "ci").glob("*-values.yaml"))
RENDERED = {name: documents((HELM / "rendered" / f"{name}.yaml").read_text()) for name in MODES}
EXAMPLES = {
    name: documents((HELM / "rendered" / f"{name}.yaml").read_text()) for name in ("example", "example-before-1.29")
}


def only(found, kind):
    (document,) = [document for document in found if document["kind"] == kind]
    return document


# -- values and schema


def test_the_defaults_and_every_mode_are_what_the_schema_allows():
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert list(validator.iter_errors(VALUES)) == []
    for mode in MODES:
        assert (
            list(validator.iter_errors(yaml.safe_load((CHART / "ci" / f"{mode}-values.yaml").read_text()) or {})) == []
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"confg": ""},
        {"mode": "daemon"},
        {"ports": {"admin": "9090"}},
        {"gateway": {"replica": 2}},
        {"secret": {"create": True, "name": "", "data": {"a": "b"}}},
        {"server": {"drain_timeout": "30"}},
        {"server": {"listen": ":80"}},
        {"files": {"config.yaml": ""}},
        {"networkPolicy": {"from": [{}]}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_wrong(wrong):
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(wrong)


def nodes(schema):
    if isinstance(schema, dict):
        yield schema
        for below in schema.values():
            yield from nodes(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from nodes(below)


def test_the_schema_knows_the_same_keys_as_the_values_and_no_others():
    def keys(schema):
        return set(schema.get("properties", {}))

    assert keys(SCHEMA) - {"global"} == set(VALUES)
    for name, part in SCHEMA["properties"].items():
        if "properties" in part and name != "server":  # whose keys are the config's
            assert keys(part) == set(VALUES[name]), name
    assert all(
        node["additionalProperties"] is False for node in nodes(SCHEMA) if "properties" in node and "type" in node
    )


def test_every_value_is_described():
    text = re.sub(r"^config: \|\n( .*\n)+", "config: |\n", (CHART / "values.yaml").read_text(), flags=re.MULTILINE)
    for before, line in itertools.pairwise(text.splitlines()):
        if re.match(r" {0,2}\w+: ", line):
            assert before.lstrip().startswith("#"), line


def test_the_versions_are_the_projects():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (needed,) = yaml.safe_load((HELM / "example" / "Chart.yaml").read_text())["dependencies"]
    assert {chart["version"], chart["appVersion"], needed["version"]} == {version}


# -- what it makes


@pytest.mark.parametrize("mode", MODES)
def test_the_config_passes_weir_check(mode, checked):
    files = only(RENDERED[mode], "ConfigMap")["data"]
    assert checked(files) == ""
    server = yaml.safe_load(files["config.yaml"])["server"]
    assert server["listen"] == (":8080" if mode == "gateway" else "127.0.0.1:8080")
    assert server["admin"] == ":9090"


def test_a_sidecars_chart_makes_no_pods_of_its_own():
    assert [document["kind"] for document in RENDERED["sidecar"]] == ["ConfigMap"]


def test_the_example_has_weir_before_its_app_and_beside_a_job_that_completes():
    for kind in ("Deployment", "CronJob"):
        template = pods.pod(only(EXAMPLES["example"], kind))
        pods.assert_is_well_kept(template)
        pods.assert_is_native(template)
        (app,) = template["spec"]["containers"]
        assert app["env"] == [{"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:8080/v1"}]


def test_before_kubernetes_1_29_it_is_a_container_that_ends_later_than_the_app():
    template = pods.pod(only(EXAMPLES["example-before-1.29"], "Deployment"))
    container = pods.assert_is_well_kept(template)
    assert "restartPolicy" not in container
    assert "time.sleep(15)" in container["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert pods.weirs(template, "initContainers") == []


def test_the_pod_monitor_and_the_network_policy_find_the_pods():
    label = pods.pod(only(EXAMPLES["example"], "Deployment"))["metadata"]["labels"]["weir"]
    assert only(EXAMPLES["example"], "PodMonitor")["spec"]["selector"]["matchLabels"] == {"weir": label}
    gateway = RENDERED["gateway"]
    labels = pods.pod(only(gateway, "Deployment"))["metadata"]["labels"]
    for selector in (
        only(gateway, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        only(gateway, "PodMonitor")["spec"]["selector"]["matchLabels"],
        only(gateway, "Service")["spec"]["selector"],
        only(gateway, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert (
        not only(gateway, "Service")["spec"]["selector"].items() <= only(gateway, "Pod")["metadata"]["labels"].items()
    )


def test_a_gateways_pod_has_time_to_drain():
    spec = pods.pod(only(RENDERED["gateway"], "Deployment"))["spec"]
    container = pods.assert_is_well_kept({"spec": spec})
    (waits,) = re.findall(r"sleep\((\d+)\)", str(container["lifecycle"]))
    config = yaml.safe_load(only(RENDERED["gateway"], "ConfigMap")["data"]["config.yaml"])
    assert int(waits) + int(config["server"]["drain_timeout"].removesuffix("s")) < spec["terminationGracePeriodSeconds"]


def test_a_policy_leaves_the_apps_ports_open_and_the_admin_port_to_the_monitoring():
    admin, app = only(RENDERED["monitored"], "NetworkPolicy")["spec"]["ingress"]
    assert admin["ports"] == [{"protocol": "TCP", "port": 9090}]
    assert "monitoring" in str(admin["from"])
    assert app == {"ports": [{"protocol": "TCP", "port": 8000}]}


# -- with helm itself


@pytest.mark.parametrize("mode", MODES)
def test_helm_finds_nothing_to_complain_of(mode):
    assert "0 chart(s) failed" in run("helm", "lint", "--strict", CHART, *values(mode))


def test_helm_finds_nothing_to_complain_of_in_the_example():
    assert "0 chart(s) failed" in run("helm", "lint", "--strict", HELM / "example")


@pytest.mark.parametrize(("kube", "native"), [("1.25.0", False), ("1.28.9", False), ("1.29.0", True), ("1.33.0", True)])
def test_it_is_native_where_the_cluster_can(kube, native):
    spec = pods.pod(only(documents(template("example", kube=kube)), "Deployment"))["spec"]
    assert bool(pods.weirs({"spec": spec}, "initContainers")) is native


def test_dashboards_are_those_of_the_repository():
    found = documents(template("weir", "--set", "dashboards.enabled=true"))
    (made,) = [document for document in found if document["metadata"]["name"].endswith("-dashboards")]
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    files = (DEPLOY / "grafana").glob("*.json")
    assert made["data"] == {file.name: file.read_text() for file in files}


def test_a_server_block_in_the_config_is_refused_with_the_fix():
    with pytest.raises(AssertionError, match="the chart writes the `server` block"):
        template("weir", "--set", "config=server: {}")


def test_a_typo_in_the_values_is_refused():
    with pytest.raises(AssertionError, match="nativeSidecars"):
        template("weir", "--set", "nativeSidecars=true")


def test_the_package_is_whole(tmp_path):
    run("helm", "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("weir-*.tgz")
    rendered = run("helm", "template", "shop", package, *values("monitored"))
    assert {"PrometheusRule", "ConfigMap", "Secret"} <= {document["kind"] for document in documents(rendered)}
    assert "overview.json" in rendered
