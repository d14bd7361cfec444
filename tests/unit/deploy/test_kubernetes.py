"""deploy/kubernetes: by Kubernetes' schemas, and by what we rely on. Built by kubectl, if there is one."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.support.order_worker import ROOT, command_names
from worker.observability.metrics import Metrics
from worker.settings import Settings

FOLDER: Final = ROOT / "deploy" / "kubernetes"
SCHEMAS: Final = json.loads((Path(__file__).parent / "schemas" / "kubernetes-1.34.json").read_text())
KUSTOMIZATIONS: Final = sorted(path.parent for path in (ROOT / "deploy").rglob("kustomization.yaml"))
MANIFESTS: Final = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
SETTINGS: Final = {f"ORDER_WORKER_{name.upper()}" for name in Settings.model_fields}
WORKLOADS: Final = ("StatefulSet", "Job")
NO_KUBECTL: Final = "no kubectl to build the example with"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "deploy").as_posix()


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def assert_valid(resource: dict[str, Any]) -> None:
    """By the schema of its kind, but for KEDA's, which is not Kubernetes' own."""
    if resource["apiVersion"].startswith("keda.sh/"):
        return
    kind = SCHEMAS["kinds"][f"{resource['apiVersion']} {resource['kind']}"]
    schema = kind | {"definitions": SCHEMAS["definitions"]}
    faults = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(resource)
    ]
    assert not faults


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_each_manifest_is_as_kubernetes_schema_says(path: Path):
    for resource in documents(path):
        assert_valid(resource)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=name_of)
def test_each_kustomization_names_what_is_there_and_leaves_nothing_beside(folder: Path):
    (made,) = documents(folder / "kustomization.yaml")
    named = [*made.get("resources", []), *made.get("components", [])]
    for generator in made.get("configMapGenerator", []):
        named += [*generator.get("files", []), *generator.get("envs", [])]
    for name in named:
        path = folder / name
        assert path.is_file() or (path / "kustomization.yaml").is_file(), name
    beside = {path.name for path in folder.iterdir() if path.is_file()} - {"kustomization.yaml"}
    assert beside <= {*named, "roles.sql"}


def built(name: str) -> list[dict[str, Any]]:
    """What the example comes to, once everything is put together."""
    if shutil.which("kubectl") is None:
        pytest.skip(NO_KUBECTL)
    folder = FOLDER / "overlays" / "example" / name
    ran = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [one for one in yaml.safe_load_all(ran.stdout) if one]


@pytest.mark.parametrize("name", ["jobs", "workers"])
def test_the_example_is_whole(name: str):
    """Every ConfigMap it uses is in it, everything has its namespace and its image, and the schemas hold."""
    resources = built(name)
    config_maps = {one["metadata"]["name"] for one in resources if one["kind"] == "ConfigMap"}
    for resource in resources:
        assert_valid(resource)
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "shop"
        if resource["kind"] in WORKLOADS:
            assert set(values_of(resource, "configMapRef", "configMapKeyRef", "configMap")) <= config_maps
            for container in containers(resource):
                assert re.search(r":v?\d+\.\d+", container["image"]), container["image"]


def test_under_keda_nothing_else_sets_the_number_of_workers():
    (workers,) = (one for one in built("workers") if one["kind"] == "StatefulSet")
    assert "replicas" not in workers["spec"]


def values_of(node: Any, *keys: str) -> Iterator[str]:
    """The names that such references hold, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in keys and isinstance(value, dict) and "name" in value:
                yield value["name"]
            yield from values_of(value, *keys)
    elif isinstance(node, list):
        for one in node:
            yield from values_of(one, *keys)


def workloads() -> list[dict[str, Any]]:
    return [one for path in MANIFESTS for one in documents(path) if one["kind"] in WORKLOADS]


def pod(resource: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = resource["spec"]["template"]["spec"]
    return found


def containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod(resource).get("initContainers", []), *pod(resource)["containers"]]


def label(resource: dict[str, Any]) -> str:
    return str(resource["metadata"]["name"])


@pytest.mark.parametrize("resource", workloads(), ids=label)
def test_every_pod_keeps_to_the_restricted_standard(resource: dict[str, Any]):
    security = pod(resource)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod(resource)["automountServiceAccountToken"] is False
    for container in containers(resource):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert container["resources"]["limits"]["memory"]
        assert "cpu" not in container["resources"]["limits"], "a worker that is throttled is a silent one"


@pytest.mark.parametrize("resource", workloads(), ids=label)
def test_every_file_that_a_setting_names_is_mounted(resource: dict[str, Any]):
    shared = dict(
        line.split("=", 1) for line in (FOLDER / "base/environment/settings.env").read_text().splitlines()
    )
    assert set(shared) <= SETTINGS
    for container in containers(resource):
        own = {one["name"]: one.get("value") for one in container.get("env", [])}
        ours = {name for name in own if name.startswith("ORDER_WORKER_")}
        assert ours <= SETTINGS
        given = (shared if "envFrom" in container else {}) | own
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        for name, value in given.items():
            if value and value.startswith("/run/"):
                assert any(value.startswith(f"{path}/") for path in mounted), (name, value)


@pytest.mark.parametrize("resource", workloads(), ids=label)
def test_each_container_of_ours_runs_a_command_that_there_is(resource: dict[str, Any]):
    for container in containers(resource):
        if container["image"] == "order-worker":
            assert " ".join(container["args"]) in set(command_names())


def the_workers() -> dict[str, Any]:
    (found,) = (one for one in workloads() if one["kind"] == "StatefulSet")
    return found


def test_a_worker_has_more_time_to_stop_than_it_takes():
    limit = Settings.model_fields["shutdown_timeout_seconds"].default
    assert pod(the_workers())["terminationGracePeriodSeconds"] > limit + 5


def test_a_worker_is_started_again_for_livez_and_waited_for_by_readyz():
    (worker,) = containers(the_workers())
    paths = {probe: worker[probe]["httpGet"]["path"] for probe in worker if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    (port,) = worker["ports"]
    assert port["containerPort"] == Settings.model_fields["http_port"].default


def test_a_worker_keeps_its_name_as_a_member_of_the_group():
    (worker,) = containers(the_workers())
    (name,) = (one for one in worker["env"] if one["name"] == "ORDER_WORKER_INSTANCE_ID")
    assert name["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_every_selector_finds_the_pods_of_the_workers():
    labels = the_workers()["spec"]["template"]["metadata"]["labels"]
    (budget,) = documents(FOLDER / "base/workers/poddisruptionbudget.yaml")
    (service,) = documents(FOLDER / "base/workers/service.yaml")
    (policy,) = documents(FOLDER / "base/environment/networkpolicy.yaml")
    selectors = (
        the_workers()["spec"]["selector"]["matchLabels"],
        budget["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
    )
    for selector in selectors:
        assert selector.items() <= labels.items()
    for resource in workloads():
        assert selectors[-1].items() <= resource["spec"]["template"]["metadata"]["labels"].items()
    assert the_workers()["spec"]["serviceName"] == service["metadata"]["name"]


def test_the_autoscaler_asks_for_a_metric_of_ours_and_counts_partitions_once():
    (scaled,) = documents(FOLDER / "components/keda/scaledobject.yaml")
    assert scaled["spec"]["scaleTargetRef"]["name"] == label(the_workers())
    (trigger,) = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    match = re.fullmatch(r'sum\(max by \(partition\) \((\w+)\{job="[\w-]+"\}\)\)', query)
    assert match
    (family,) = (one for one in Metrics().registry.collect() if one.name == match[1])
    assert family.type == "gauge"
    assert scaled["spec"]["minReplicaCount"] >= 2
