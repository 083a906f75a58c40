"""What every pod with Weir in it must be like, whoever made its manifest."""

from __future__ import annotations

from typing import Any

HARDENED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    """A workload's pod template."""
    spec = workload["spec"]
    return spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]


def weirs(template: dict[str, Any], where: str) -> list[dict[str, Any]]:
    return [container for container in template["spec"].get(where) or [] if container["name"] == "weir"]


def assert_is_well_kept(template: dict[str, Any]) -> dict[str, Any]:
    """The one container of Weir's, hardened, asked at its own port, with folders that change while it runs."""
    (container,) = [*weirs(template, "initContainers"), *weirs(template, "containers")]
    assert container["securityContext"] == HARDENED
    assert container["ports"][-1] == {"name": "weir-admin", "containerPort": 9090}
    paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {tuple(asked.items()) for asked in paths.values()} == {
        (("path", "/readyz"), ("port", "weir-admin")),
        (("path", "/livez"), ("port", "weir-admin")),
    }
    assert "limits" in container["resources"]
    assert "cpu" not in container["resources"]["limits"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert not any("subPath" in mount for mount in mounts.values())
    assert {volume["name"] for volume in template["spec"]["volumes"]} >= set(mounts)
    assert {mounts["weir-config"]["mountPath"], mounts["weir-secrets"]["mountPath"]} == {"/config", "/secrets"}
    assert {"name": "WEIR_CONFIG", "value": "/config/config.yaml"} in container["env"]
    return container


def assert_is_native(template: dict[str, Any]) -> None:
    first = template["spec"]["initContainers"][0]
    assert (first["name"], first["restartPolicy"]) == ("weir", "Always")
