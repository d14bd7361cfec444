"""What a worker says of itself: its lag is what is not published, and ready means that all continues."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.locked_products import locked_products
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.topic_changes import delete_records
from tests.support.worker_process import Workers

LAG: Final = "order_worker_consumer_lag_records"
HIDDEN: Final = "order_worker_hidden_records"
OLDEST: Final = "order_worker_oldest_order_seconds"
STUCK: Final = "order_worker_stuck_seconds"
DELETED: Final = "order_worker_deleted_offsets_total"
TRAILING_SECONDS: Final = 15.0


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


@contextmanager
def upstream(scene: Scene) -> Iterator[Producer]:
    """A service that places its orders in transactions."""
    producer = Producer({"bootstrap.servers": scene.kafka, "transactional.id": f"upstream-{uuid4()}"})
    producer.init_transactions(20)
    yield producer


def place_in(producer: Producer, scene: Scene, values: list[bytes], partition: int) -> None:
    """Within the transaction that is open."""
    for value in values:
        producer.produce(scene.topics.order_placed, value=value, partition=partition)
    assert producer.flush(20) == 0


def test_the_lag_counts_what_is_in_hand(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    load.place(10, 0)
    worker = workers.start(lock_timeout_ms="60000", statement_timeout_ms="60000", batch_timeout_seconds="60")
    scene.wait_until_drained()
    eventually(lambda: set(worker.metric(LAG).values()) == {0.0}, 20)
    with locked_products(scene):
        load.place(25, 0)
        eventually(lambda: worker.metric(LAG).get("0") == 25, 10, lambda: str(worker.metric(LAG)))
        eventually(lambda: '"lag": 25' in worker.get("/readyz")[1], 10, lambda: str(worker.get("/readyz")))
        # It stays so: what was fetched is not what was published.
        seen = {worker.metric(LAG)["0"] for _ in _looks(4.0)}
        assert seen == {25.0}
        assert worker.metric(OLDEST)["0"] >= 4
        assert worker.metric(OLDEST)["0"] >= worker.metric(STUCK)["0"] - 0.5 > 1
        assert worker.metric("order_worker_partition_owned")["0"] == 1
    scene.wait_until_drained()
    eventually(lambda: set(worker.metric(LAG).values()) == {0.0}, 20)
    assert not any((*worker.metric(OLDEST).values(), *worker.metric(STUCK).values()))


def test_what_an_open_transaction_hides_is_a_number_of_its_own(scene: Scene, workers: Workers, load: Load):
    worker = workers.start().wait_until_ready()
    with upstream(scene) as producer:
        producer.begin_transaction()
        place_in(producer, scene, load.values(1), 1)
        load.place(20, 1)
        eventually(lambda: worker.metric(HIDDEN).get("1", 0) >= 21, 20, lambda: str(worker.metric(HIDDEN)))
        assert not any(v for p, v in worker.metric(HIDDEN).items() if p != "1")
        producer.commit_transaction(20)
    load.wait_until_decided()
    eventually(lambda: not any(worker.metric(HIDDEN).values()), 20)
    assert worker.get("/readyz")[0] == 200


@pytest.mark.parametrize("ends", ["commit_transaction", "abort_transaction"])
def test_behind_a_transactional_upstream_others_read_no_lag(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker, ends: str
):
    worker = workers.start().wait_until_ready()
    with upstream(scene) as producer:
        for _ in range(3):
            producer.begin_transaction()
            for partition in (0, 1):
                place_in(producer, scene, load.values(1), partition)
            producer.commit_transaction(20)
        load.wait_until_decided()
        producer.begin_transaction()
        place_in(producer, scene, [b"of a transaction that is over soon"], 0)
        getattr(producer, ends)(20)
    letters = int(ends == "commit_transaction")
    scene.wait_until_drained(TRAILING_SECONDS + 5)
    eventually(lambda: set(worker.metric(LAG).values()) == {0.0})
    assert worker.get("/readyz")[0] == 200
    scene.assert_promises(load.ids, dead_letters=letters)
    assert order_worker.here("reconcile").code == 0
    assert worker.stop() == 0
    # And what was committed behind a marker is an offset to begin at, for us as for anybody.
    ids = load.place(5, 0, 1)
    workers.start()
    load.wait_until_decided(ids)
    scene.wait_until_drained()
    scene.assert_promises(load.ids, dead_letters=letters)


def test_a_marker_that_retention_has_deleted_is_no_order_that_is_lost(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    first = workers.start()
    with upstream(scene) as producer:
        producer.begin_transaction()
        place_in(producer, scene, load.values(1), 0)
        producer.commit_transaction(20)
    # Once the marker is committed past. Before that it looks like an order that is gone.
    scene.wait_until_drained(TRAILING_SECONDS + 5)
    assert first.stop() == 0
    delete_records(scene.kafka, scene.topics.order_placed, {0: -1})
    answer = order_worker.here("lag", "--json", "--interval", "0.2").done()
    assert (answer.document["lag"], "deleted" in answer.out) == (0, False), answer.out
    worker = workers.start().wait_until_ready()
    load.wait_until_decided(load.place(3, 0))
    assert not any(worker.metric(DELETED).values())
    assert "deleted" not in worker.log
    assert order_worker.here("reconcile").code == 0


def _looks(seconds: float) -> Iterator[None]:
    """Again and again, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.1)
