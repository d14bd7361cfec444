"""What deploy/prometheus and deploy/grafana hold, tried with a real Prometheus on real workers."""

import json
import math
import os
import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.builders import line, order_value
from tests.support.collector import Collected, collector
from tests.support.deadline import eventually
from tests.support.log_lines import log_lines
from tests.support.order_worker import ROOT
from tests.support.prometheus import (
    DEPLOYED,
    HOW_TO_INSTALL,
    Prometheus,
    is_installed,
    prometheus_of,
    promtool,
)
from tests.support.promises import Scene
from tests.support.topic_names import PARTITIONS
from tests.support.worker_process import Workers
from worker.sandbox.servers.ports import free_port

TRACE = bytes(range(1, 17))
TRACEPARENT = f"00-{TRACE.hex()}-{'ab' * 8}-01".encode()
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "order-worker.json"


@pytest.fixture(autouse=True)
def _installed() -> None:
    if is_installed():
        return
    if os.environ.get("CI"):
        pytest.fail(HOW_TO_INSTALL, pytrace=False)
    pytest.skip(HOW_TO_INSTALL)


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collector() as running:
        yield running


@pytest.fixture
def two_ports() -> int:
    """The first of two free ports, one behind the other."""
    for _ in range(50):
        first = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", first + 1)):
            return first
    raise AssertionError("no two free ports side by side")


@pytest.fixture
def prometheus(two_ports: int) -> Iterator[Prometheus]:
    with prometheus_of([f"127.0.0.1:{two_ports + k}" for k in range(2)]) as running:
        yield running


def test_the_configuration_and_the_rules_are_sound():
    assert "SUCCESS" in promtool("check", "config", DEPLOYED / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_none_when_all_is_well():
    assert "SUCCESS" in promtool("test", "rules", *sorted(DEPLOYED.glob("alerts_test*.yml")))


def test_two_workers_are_scraped_and_every_query_of_the_dashboard_has_data(
    scene: Scene, workers: Workers, prometheus: Prometheus, two_ports: int, collected: Collected
):
    """And the spans of their batches reach the collector that the environment names."""
    scene.shop.stock_up({1: 1_000_000})
    workers.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collected.url
    running = workers.start(
        *(sys.executable, "-m", "worker", "run", "--workers", "2"),
        http_port=str(two_ports),
        log_format="json",
    )
    eventually(lambda: _values(prometheus, "sum(order_worker_ready)") == [2.0], 90, lambda: running.log)
    lacking = _queries()

    def all_have_data() -> bool:
        for partition in range(PARTITIONS):
            values = [order_value(line(1)), order_value(line(1), user_id=99), b"no order"]
            scene.place(values, partition=partition, headers=[("traceparent", TRACEPARENT)])
        lacking[:] = [query for query in lacking if not _has_data(prometheus, query)]
        return not lacking

    eventually(all_have_data, 90, lambda: f"no data: {lacking}")
    # Nobody has to add up the owners of one partition: each has one.
    owners = "sum by (partition) (order_worker_partition_owned)"
    eventually(
        lambda: _values(prometheus, owners) == [1.0] * PARTITIONS, 30, lambda: str(prometheus.query(owners))
    )
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
    with urllib.request.urlopen(f"http://127.0.0.1:{two_ports}/metrics", timeout=5) as answer:
        assert promtool("check", "metrics", stdin=answer.read().decode()) == ""
    assert running.stop() == 0
    spans = b"".join(collected.bodies)
    assert f"process {scene.topics.order_placed}".encode() in spans
    assert TRACE in spans, "the batch is linked to its orders' trace"
    events = {said["event"] for said in log_lines(running.log)}
    assert {"process_started", "worker_listens", "partition_taken_over", "worker_stopped"} <= events


def _queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 40
    return [
        query.replace("$job", "order-worker").replace("$__rate_interval", "10s")
        for query in dict.fromkeys(queries)
    ]


def _has_data(prometheus: Prometheus, query: str) -> bool:
    assert not re.search(r"\$\w", query), query
    return any(not math.isnan(value) for value in _values(prometheus, query))


def _values(prometheus: Prometheus, query: str) -> list[float]:
    return [float(sample["value"][1]) for sample in prometheus.query(query)]
