"""What a worker says of itself while Kafka is far away, or away."""

import time
from typing import Final, NamedTuple

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.faults.proxy import Proxy
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.topic_changes import add_partitions
from tests.support.topic_names import PARTITIONS
from tests.support.worker_process import WorkerProcess, Workers
from worker.sandbox.servers.services import Services

LAG: Final = "order_worker_consumer_lag_records"
IDLE_PARTITIONS: Final = 150
ROUND_TRIP_SECONDS: Final = 0.016
LOOKS: Final = 40


class Look(NamedTuple):
    """One question to `/readyz`."""

    status: int
    answer: str
    seconds: float


def look_at(worker: WorkerProcess) -> Look:
    """A quarter second after the previous one, so that all of them see several of the worker's checks."""
    time.sleep(0.25)
    began = time.monotonic()
    status, answer = worker.get("/readyz")
    return Look(status, answer[:300], time.monotonic() - began)


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


@pytest.fixture
def far_workers(workers: Workers, kafka_network: Proxy) -> Workers:
    """Whose Kafka is reached through the network only."""
    workers.environment["ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{kafka_network.port}"
    return workers


@pytest.mark.takes_long
def test_many_idle_partitions_far_away_are_ready_in_every_look(
    scene: Scene, far_workers: Workers, load: Load, kafka_network: Proxy
):
    add_partitions(scene.kafka, scene.topics.order_placed, IDLE_PARTITIONS)
    kafka_network.delay(ROUND_TRIP_SECONDS / 2)
    load.place_one_on_each(IDLE_PARTITIONS)
    worker = far_workers.start()
    load.wait_until_decided(seconds=90)
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    looks = [look_at(worker) for _ in range(LOOKS)]
    assert not [look for look in looks if look.status != 200 or look.seconds > 1]


def test_while_kafka_is_away_no_lag_is_reported(
    scene: Scene, far_workers: Workers, load: Load, kafka_network: Proxy
):
    load.place(5, 0)
    worker = far_workers.start(request_timeout_ms="2000")
    scene.wait_until_drained()
    eventually(lambda: len(worker.metric(LAG)) == PARTITIONS, 20)
    kafka_network.refuse()
    eventually(lambda: not worker.metric(LAG), 20, lambda: str(worker.metric(LAG)))
    status, answer = worker.get("/readyz")
    assert (status, "kafka" in answer) == (503, True), answer
    assert '"lag": null' in answer
    load.place(5, 0)
    kafka_network.heal()
    load.wait_until_decided()
    eventually(lambda: set(worker.metric(LAG).values()) == {0.0}, 20)
    eventually(lambda: worker.get("/readyz")[0] == 200)
