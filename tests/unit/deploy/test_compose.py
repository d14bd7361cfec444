"""docker-compose.yml, without an engine: by the Compose specification, and by what we rely on."""

import json
import re
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.support.order_worker import ROOT
from worker.settings import Settings

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
WORKERS: Final = ("worker-1", "worker-2")
OURS: Final = ("tables", "topics", *WORKERS)
SETTINGS: Final = {f"ORDER_WORKER_{name.upper()}" for name in Settings.model_fields}
DONE: Final = {"condition": "service_completed_successfully"}


def test_it_is_as_the_specification_says():
    schema = json.loads((ROOT / "tests/unit/deploy/schemas/compose-spec.json").read_text(encoding="utf-8"))
    faults = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in jsonschema.Draft201909Validator(schema).iter_errors(COMPOSE)
    ]
    assert not faults


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_has_a_tag_that_does_not_move(name: str):
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert (image, tag) == ("order-worker", "local") or re.match(r"v?\d+\.\d+", tag), SERVICES[name]["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_port_is_open_to_this_machine_alone(name: str):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_what_is_ours_is_locked_down(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_each_setting_is_one(name: str):
    given = {one for one in SERVICES[name]["environment"] if one.startswith("ORDER_WORKER_")}
    assert given <= SETTINGS


def test_two_workers_begin_once_tables_and_topics_are_made():
    for name in WORKERS:
        assert SERVICES[name]["depends_on"] == {"tables": DONE, "topics": DONE}
        assert "command" not in SERVICES[name], "the image's own"
    assert SERVICES["tables"]["command"] == ["db", "upgrade"]
    assert SERVICES["topics"]["command"] == ["topics", "create"]
    assert len({SERVICES[name]["environment"]["ORDER_WORKER_INSTANCE_ID"] for name in WORKERS}) == 2


def test_a_worker_has_more_time_to_stop_than_it_takes():
    limit = Settings.model_fields["shutdown_timeout_seconds"].default
    for name in WORKERS:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > limit + 5


def test_a_job_is_run_once_and_has_no_health():
    for name in ("tables", "topics"):
        assert SERVICES[name]["restart"] == "no"
        assert SERVICES[name]["healthcheck"] == {"disable": True}


def test_no_broker_is_its_own_controller():
    roles = {
        name: service["environment"]["KAFKA_PROCESS_ROLES"]
        for name, service in SERVICES.items()
        if "KAFKA_PROCESS_ROLES" in service.get("environment", {})
    }
    assert roles == {"controller": "controller", "kafka": "broker"}
    clusters = {SERVICES[name]["environment"]["CLUSTER_ID"] for name in roles}
    assert len(clusters) == 1
    assert len({SERVICES[name]["environment"]["KAFKA_NODE_ID"] for name in roles}) == 2


def test_what_watches_is_started_on_demand_only():
    on_demand = {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]}
    assert on_demand == {"prometheus", "grafana"}


def sources(name: str) -> list[str]:
    """The named volumes and the paths that a service mounts."""
    return [volume.partition(":")[0] for volume in SERVICES[name].get("volumes", [])]


def test_each_named_volume_is_declared():
    named = {source for name in SERVICES for source in sources(name) if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_each_path_that_is_mounted_is_there(name: str):
    if SERVICES[name].get("profiles") and not (ROOT / "deploy" / "grafana").is_dir():
        pytest.skip("no dashboard in this tree")
    missing = [source for source in sources(name) if source.startswith(".") and not (ROOT / source).exists()]
    assert not missing


def test_prometheus_finds_both_workers():
    (found,) = yaml.safe_load((ROOT / "deploy" / "compose" / "workers.yml").read_text(encoding="utf-8"))
    assert found["targets"] == [f"{name}:{Settings.model_fields['http_port'].default}" for name in WORKERS]
