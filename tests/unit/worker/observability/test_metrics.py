"""What /metrics shows before anything has happened, and that the documentation names all of it."""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from contracts.events import DeadLetterCode, ReasonCode
from tests.support.order_worker import ROOT
from worker.observability.latency import BUCKETS_SECONDS, NAME, OrderLatency
from worker.observability.metrics import Cause, Metrics, Phase, Server
from worker.observability.partition_states import PartitionState, PartitionStates

PAGE = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
TABLES = PAGE.partition("\n## Metrics")[2].partition("\n## ")[0]


def registry() -> CollectorRegistry:
    metrics = Metrics()
    metrics.registry.register(PartitionStates(lambda: [PartitionState(3, True, 1.5, 0.5)]))
    return metrics.registry


def values_of(label: str, name: str) -> set[str]:
    return {
        sample.labels[label]
        for family in registry().collect()
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize(
    ("label", "name", "values"),
    [
        ("code", "order_worker_rejection_reasons_total", [code.value for code in ReasonCode]),
        ("code", "order_worker_dead_letters_total", [code.value for code in DeadLetterCode]),
        ("server", "order_worker_batch_retries_total", get_args(Server)),
        ("cause", "order_worker_retry_causes_total", get_args(Cause)),
        ("phase", "order_worker_phase_seconds_count", get_args(Phase)),
    ],
    ids=["reasons", "dead letters", "retries", "causes", "phases"],
)
def test_each_value_of_a_label_is_there_before_it_is_first_counted(label: str, name: str, values: list[str]):
    assert values_of(label, name) == set(values)


def test_each_partition_says_who_owns_it_and_since_when_it_waits():
    found = registry()
    labels = {"partition": "3"}
    assert found.get_sample_value("order_worker_partition_owned", labels) == 1.0
    assert found.get_sample_value("order_worker_oldest_order_seconds", labels) == 1.5
    assert found.get_sample_value("order_worker_stuck_seconds", labels) == 0.5


def test_the_documentation_names_every_metric_and_no_other_one():
    documented = set(re.findall(r"^\| `((?:order_worker|process)_\w+)[`{]", TABLES, re.MULTILINE))
    served = {family.name + "_total" * (family.type == "counter") for family in registry().collect()}
    served = {name + "_info" if name == "order_worker_build" else name for name in served}
    assert documented == served


NOW_MS = 1_800_000_000_000
TIMES = st.lists(st.integers(-1, 400_000).map(lambda ago: -1 if ago < 0 else NOW_MS - ago), max_size=60)


@given(st.lists(TIMES, max_size=4))
def test_latencies_are_counted_as_one_after_the_other_would_be(batches: list[list[int]]):
    latency = OrderLatency()
    for times in batches:
        latency.observe(times, NOW_MS)
    seconds = [(NOW_MS - time) / 1_000 for times in batches for time in times if time >= 0]
    (family,) = latency.collect()
    counted = {s.labels.get("le", s.name): s.value for s in family.samples}
    assert [counted[f"{bucket:g}" if bucket < 1 else f"{bucket:.1f}"] for bucket in BUCKETS_SECONDS] == [
        sum(one <= bucket for one in seconds) for bucket in BUCKETS_SECONDS
    ]
    assert counted["+Inf"] == counted[f"{NAME}_count"] == len(seconds)
    assert counted[f"{NAME}_sum"] == pytest.approx(sum(seconds))


def test_a_time_to_come_counts_as_no_latency_and_no_time_as_no_order():
    latency = OrderLatency()
    latency.observe([NOW_MS + 60_000, -1, NOW_MS - 100], NOW_MS)
    (family,) = latency.collect()
    sums = {s.name: s.value for s in family.samples if "le" not in s.labels}
    assert sums == {f"{NAME}_count": 2.0, f"{NAME}_sum": 0.1}


def test_a_rebalance_that_begins_twice_is_one_from_its_first_beginning():
    metrics = Metrics()
    metrics.rebalance_ends()
    metrics.rebalance_begins()
    began = metrics._rebalance_began
    metrics.rebalance_begins()
    assert metrics._rebalance_began == began
    metrics.rebalance_ends()
    metrics.rebalance_ends()
    assert metrics.registry.get_sample_value("order_worker_rebalance_seconds_count") == 1.0
