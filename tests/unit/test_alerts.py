"""Alerts, their tests, the runbook and the dashboard keep in step with each other and with the metrics."""

import json
import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry

from tests.support.order_worker import ROOT
from worker.observability.metrics import Metrics
from worker.observability.partition_states import PartitionState, PartitionStates

DEPLOYED = ROOT / "deploy" / "prometheus"
RULES = (DEPLOYED / "alerts.yml").read_text(encoding="utf-8")
TESTS = "".join(path.read_text(encoding="utf-8") for path in DEPLOYED.glob("alerts_test*.yml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "order-worker.json"
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)
OURS = re.compile(r"\b(?:order_worker|process)_[a-z_]+\b")


def test_each_alert_has_a_section_in_the_runbook_and_each_section_an_alert():
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == ALERTS, "in the same order"


def test_each_alert_links_to_its_own_section_and_says_how_urgent_it_is():
    for alert, text in zip(ALERTS, re.split(r"- alert: \w+", RULES)[1:], strict=True):
        assert f"runbook: docs/runbook.md#{alert.lower()}\n" in text, alert
        assert re.search(r"labels: \{severity: (page|ticket)\}", text), alert


def test_the_links_within_the_runbook_lead_to_its_sections():
    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOK)) <= {alert.lower() for alert in ALERTS}


def test_each_alert_is_seen_to_fire():
    fired = set(re.findall(r"alertname: (\w+)\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels", TESTS))
    assert fired == set(ALERTS)


def test_alerts_and_dashboard_ask_for_metrics_that_there_are():
    served = set(_series())
    queries = [t["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for t in panel["targets"]]
    for name in OURS.findall(" ".join([RULES, *queries])):
        assert name in served, name


def _series() -> Iterator[str]:
    registry: CollectorRegistry = Metrics().registry
    registry.register(PartitionStates(lambda: [PartitionState(0, True, 0.0, 0.0)]))
    for family in registry.collect():
        yield from (sample.name for sample in family.samples)
        yield family.name  # one whose labels come with its first value
        yield f"{family.name}_total"
