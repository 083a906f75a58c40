"""The Kustomize components: Weir gets into every workload that asks for it, and into no other."""

import os

import pytest
import yaml

from tests.deploy import pods
from tests.deploy.rendered import documents, kustomized
from tests.deploy.tools import DEPLOY, run

KUBERNETES = DEPLOY / "kubernetes"
EXAMPLE = documents((KUBERNETES / "rendered" / "example.yaml").read_text())
KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def patch(name):
    return pods.pod(yaml.safe_load((KUBERNETES / name).read_text()))


def workload(kind, labels):
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
    template["spec"]["initContainers"] = [{"name": "migrate", "image": "app"}]
    spec = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    api = "batch/v1" if "Job" in kind else "apps/v1"
    return {"apiVersion": api, "kind": kind, "metadata": {"name": kind.lower(), "labels": labels}, "spec": spec}


def with_component(folder, component, labels):
    """As a user's kustomization would have it, one workload of each kind."""
    (folder / "app.yaml").write_text(yaml.safe_dump_all(workload(kind, labels) for kind in KINDS))
    told = {"resources": ["app.yaml"], "components": [os.path.relpath(KUBERNETES / component, folder)]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
    return {document["kind"]: pods.pod(document) for document in documents(run("kubectl", "kustomize", folder))}


def test_the_patches_put_in_one_and_the_same_container():
    native, cron, plain = (
        patch(f"{name}.yaml") for name in ("sidecar/workload", "sidecar/cronjob", "plain-container/workload")
    )
    assert native == cron
    container = dict(pods.assert_is_well_kept(native))
    assert container.pop("restartPolicy") == "Always"
    beside = dict(pods.assert_is_well_kept(plain))
    assert "sleep" in str(beside.pop("lifecycle"))
    assert container == beside
    assert native["spec"]["volumes"] == plain["spec"]["volumes"]


def test_kustomize_and_helm_put_in_the_same_container():
    rendered = documents((DEPLOY / "helm" / "rendered" / "example.yaml").read_text())
    (app,) = [pods.pod(document) for document in rendered if document["kind"] == "Deployment"]
    of_helm = {**app["spec"]["initContainers"][0], "image": "weir"}
    del of_helm["imagePullPolicy"]
    assert of_helm == patch("sidecar/workload.yaml")["spec"]["initContainers"][0]


def test_the_example_has_an_app_and_a_job_with_weir_before_them():
    by_kind = {document["kind"]: document for document in EXAMPLE}
    for kind in ("Deployment", "Job"):
        template = pods.pod(by_kind[kind])
        pods.assert_is_well_kept(template)
        pods.assert_is_native(template)
        assert template["metadata"]["labels"]["weir"] == "sidecar"
    assert pods.pod(by_kind["Job"])["spec"]["restartPolicy"] == "Never"
    drain = yaml.safe_load(by_kind["ConfigMap"]["data"]["config.yaml"])["server"]["drain_timeout"]
    grace = pods.pod(by_kind["Deployment"])["spec"]["terminationGracePeriodSeconds"]
    assert int(drain.removesuffix("s")) < grace


def test_the_config_passes_weir_check(checked):
    assert checked({"config.yaml": (KUBERNETES / "example" / "config.yaml").read_text()}) == ""


def test_the_component_finds_every_kind_of_workload_and_comes_before_its_init_containers(tmp_path):
    for template in with_component(tmp_path, "sidecar", {"weir": "sidecar"}).values():
        pods.assert_is_well_kept(template)
        pods.assert_is_native(template)
        assert [container["name"] for container in template["spec"]["initContainers"]] == ["weir", "migrate"]


def test_the_fallback_leaves_jobs_alone(tmp_path):
    found = with_component(tmp_path, "plain-container", {"weir": "sidecar"})
    assert {kind for kind in KINDS if pods.weirs(found[kind], "containers")} == set(KINDS) - {"Job", "CronJob"}


@pytest.mark.parametrize("component", ["sidecar", "plain-container"])
def test_who_does_not_ask_for_it_stays_as_it_is(tmp_path, component):
    found = with_component(tmp_path, component, {"app": "a"})
    assert found == {kind: pods.pod(workload(kind, {})) for kind in KINDS}


def test_what_watches_is_one_kustomization():
    found = {document["kind"]: document for document in documents(kustomized("kubernetes/monitoring"))}
    assert set(found) == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    assert set(found["ConfigMap"]["data"]) == {file.name for file in (DEPLOY / "grafana").glob("*.json")}
    assert found["ConfigMap"]["metadata"]["labels"] == {"grafana_dashboard": "1"}
