"""Commands beside batches that were broken after workers had done with them."""

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.broken_records import break_batch, flip_a_byte
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.subscriber import read_topic
from tests.support.worker_process import Workers
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.services import Services


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


@pytest.fixture
def load(scene: Scene, workers: Workers) -> Load:
    """Two batches of orders in partition 0, decided one after the other."""
    load = Load(scene)
    load.place(3, 0)
    worker = workers.start()
    scene.wait_until_drained()
    load.place(3, 0)
    scene.wait_until_drained()
    assert worker.stop() == 0
    return load


def test_outcomes_that_may_lie_there_are_neither_missing_nor_published_again(
    scene: Scene, load: Load, own_kafka: LocalKafka, order_worker: OrderWorker
):
    topic = scene.topics.order_confirmed
    first = min(m.offset for m in read_topic(scene.kafka, topic) if m.partition == 0)
    break_batch(own_kafka, topic, 0, first, flip_a_byte)
    answer = order_worker.here("reconcile").done().out
    assert (
        f"records of {topic}-0 from offset {first} cannot be unpacked (its batch has a wrong checksum)."
        in answer
    )
    assert (
        "nothing is missing but what cannot be unpacked: each of 6 records has exactly one result" in answer
    )
    document = order_worker.here("reconcile", "--json").done().document
    assert document["discrepancies"] == {}
    assert document["remarks"]["outcome_deleted"] == 3
    repaired = order_worker.here("reconcile", "--repair", "--execute", "--json").done().document
    assert repaired["repaired"] is None


def test_what_was_decided_from_them_stays_decided(
    scene: Scene, load: Load, own_kafka: LocalKafka, order_worker: OrderWorker
):
    break_batch(own_kafka, scene.topics.order_placed, 0, 0, flip_a_byte)
    document = order_worker.here("reconcile", "--json").done().document
    assert (document["discrepancies"], document["records"]) == ({}, 3)
    assert [(c["first_offset"], c["records"], c["read_raw"]) for c in document["unreadable"]] == [
        (0, 3, False)
    ]
    answer = order_worker.here("explain", str(load.ids[0]), "--scan", "all").done().out
    assert "Confirmed at " in answer
    assert "3 records of" in answer


def test_a_replay_counts_them_and_steps_over_none(
    scene: Scene, load: Load, own_kafka: LocalKafka, order_worker: OrderWorker
):
    break_batch(own_kafka, scene.topics.order_placed, 0, 0, flip_a_byte)
    topic = f"{scene.topics.order_placed}:0"
    rehearsed = order_worker.here("replay", "--topic", topic, "--to-earliest", "--json").done().document
    assert (rehearsed["records"], rehearsed["decided"]) == (3, 3)
    assert [c["first_offset"] for c in rehearsed["unreadable"]] == [0]

    ids = load.place(2, 0)
    waiting = max(m.offset for m in read_topic(scene.kafka, scene.topics.order_placed)) - 1
    assert ids
    break_batch(own_kafka, scene.topics.order_placed, 0, waiting, flip_a_byte)
    refused = order_worker.here("replay", "--topic", topic, "--to-latest")
    refused.assert_one_line(1, "would skip", f"-0 from offset {waiting} up to", "cannot be unpacked")
