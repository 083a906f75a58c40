"""docs/kubernetes.md is done as it is read: its files make a pod with Weir in it, by Kustomize and by Helm."""

import os
import pathlib
import re

import pytest
import yaml

from tests.deploy import pods
from tests.deploy.rendered import documents
from tests.deploy.tools import DEPLOY, ROOT, run

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
FILES = dict(re.findall(r"```yaml (\S+)\n(.*?)```", PAGE, re.DOTALL))


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(FILES[name])


def deployment(text):
    (found,) = [document for document in documents(text) if document["kind"] == "Deployment"]
    return pods.pod(found)


def assert_the_app_has_weir_before_it(template):
    container = pods.assert_is_well_kept(template)
    pods.assert_is_native(template)
    assert container["image"] == "registry.example.com/weir:0.1.0"
    (app,) = template["spec"]["containers"]
    assert app["env"] == [{"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:8080/v1"}]


def test_the_kustomization_puts_weir_before_the_app(tmp_path):
    write(tmp_path, "app.yaml", "config.yaml", "kustomization.yaml")
    told = tmp_path / "kustomization.yaml"
    told.write_text(told.read_text().replace("weir/deploy", f"{os.path.relpath(ROOT, tmp_path)}/deploy"))
    made = run("kubectl", "kustomize", tmp_path)
    assert_the_app_has_weir_before_it(deployment(made))
    assert {"kind": "ConfigMap", "name": "weir"} in [
        {"kind": document["kind"], "name": document["metadata"]["name"]} for document in documents(made)
    ]


def test_the_chart_puts_weir_before_the_app(tmp_path):
    write(tmp_path, "Chart.yaml", "values.yaml", "templates/deployment.yaml")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "weir").symlink_to(DEPLOY / "helm" / "weir")
    made = run("helm", "template", "shop", tmp_path, "--kube-version", "1.33.0")
    assert_the_app_has_weir_before_it(deployment(made))


@pytest.mark.parametrize("name", ["config.yaml", "values.yaml"])
def test_the_configs_pass_weir_check(name, checked):
    text = yaml.safe_load(FILES[name])["weir"]["config"] if name == "values.yaml" else FILES[name]
    assert checked({"config.yaml": text}) == ""


def test_what_it_says_of_the_pod_is_so():
    container = pods.pod(yaml.safe_load((DEPLOY / "kubernetes/sidecar/workload.yaml").read_text()))["spec"]
    (weir,) = container["initContainers"]
    resources = weir["resources"]
    told = re.search(r"(\S+) CPU and (\S+) are asked for, (\S+) allowed", PAGE).groups()
    assert told == (resources["requests"]["cpu"], resources["requests"]["memory"], resources["limits"]["memory"])


def test_every_file_and_value_that_it_names_is_there():
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    values = yaml.safe_load((DEPLOY / "helm" / "weir" / "values.yaml").read_text())
    for name in re.findall(r"`(podMonitor|prometheusRule|dashboards)\.enabled`", PAGE):
        assert "enabled" in values[name]
    assert pathlib.Path(DEPLOY / "kubernetes" / "plain-container").is_dir()
    assert {"nativeSidecar", "plainPreStopSeconds", "scrapeAnnotations", "ports"} <= set(values)
