"""deploy/compose.yaml: its files are there, its config passes `weir check`, and nothing listens beyond the machine."""

import pathlib

import yaml

from tests.deploy.tools import DEPLOY

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_every_file_that_it_mounts_is_there():
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    for source in sources:
        assert not source.startswith(".") or (DEPLOY / source).exists(), source


def test_ports_are_open_to_this_machine_only():
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


def test_weir_runs_as_in_a_pod():
    weir = SERVICES["weir"]
    assert weir["read_only"]
    assert weir["cap_drop"] == ["ALL"]
    assert weir["security_opt"] == ["no-new-privileges:true"]


def test_the_config_passes_weir_check(checked):
    assert checked({"config.yaml": (DEPLOY / "compose" / "weir" / "config.yaml").read_text()}) == ""


def test_grafana_finds_its_dashboards_and_its_prometheus():
    (provider,) = yaml.safe_load((DEPLOY / "compose/grafana/dashboards/weir.yaml").read_text())["providers"]
    folder = provider["options"]["path"]
    assert f"./grafana:{folder}:ro" in SERVICES["grafana"]["volumes"]
    home = pathlib.Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / "grafana" / home.relative_to(folder)).exists()
    (source,) = yaml.safe_load((DEPLOY / "compose/grafana/datasources/weir.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (scrape,) = yaml.safe_load((DEPLOY / "compose/prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["weir:9090"]}]
