"""Kafka's log and the worker's records disagree: this is noticed, and nothing is lost or doubled."""

import re
import time

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.group_offsets import remember_wrongly
from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.topic_changes import add_partitions, delete_records, recreate_topic
from tests.support.topic_names import PARTITIONS
from tests.support.worker_process import WorkerProcess, Workers

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

FOUND_SECONDS = 30.0
NOTICED_SECONDS = 15.0  # from then on it does not say that all is well
MACHINE_SECONDS = 10.0  # what a busy machine may add to it


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def decide_and_stop(scene: Scene, workers: Workers) -> None:
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0


def warnings(worker: WorkerProcess, *texts: str) -> list[str]:
    """Those lines of its log that are loud and hold all of these."""
    loud = [text for text in worker.log.splitlines() if re.search("WARNING|ERROR|CRITICAL", text)]
    return [text for text in loud if all(one in text for one in texts)]


def test_a_committed_offset_beyond_the_end_drops_no_order(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    load.place(10, 0)
    decide_and_stop(scene, workers)
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 1000})
    scene.shop.sql("UPDATE positions SET announced_to = 1000, begun_to = 1000")
    worker = workers.start().wait_until_ready()
    for _ in range(5):
        load.wait_until_decided(load.place(10, 0))
    eventually(lambda: warnings(worker, f"{scene.topics.order_placed}-0", "1000"), 10, lambda: worker.log)
    scene.wait_until_drained()
    scene.assert_promises(load.ids)
    assert order_worker.here("reconcile").code == 0


def test_orders_that_wait_while_the_committed_offset_is_beyond_the_end(
    scene: Scene, workers: Workers, load: Load
):
    load.place(10, 0)
    decide_and_stop(scene, workers)
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 1000})
    scene.shop.sql("UPDATE positions SET announced_to = 1000, begun_to = 1000")
    load.place(50, 0)
    workers.start()
    load.wait_until_decided()
    scene.wait_until_drained()
    scene.assert_promises(load.ids)


def test_the_topic_is_recreated_at_once_under_a_running_worker(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    load.place(100, 0)
    worker = workers.start()
    scene.wait_until_drained()
    recreate_topic(scene.kafka, scene.topics.order_placed)
    load.place(30, 0, 1)
    load.wait_until_decided(seconds=FOUND_SECONDS + MACHINE_SECONDS)
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)
    assert order_worker.here("reconcile").code == 0


def test_a_topic_that_is_gone_is_not_ready_and_is_read_again_once_it_is_back(
    scene: Scene, workers: Workers, load: Load
):
    topic = scene.topics.order_placed
    load.place(100, 0)
    worker = workers.start()
    scene.wait_until_drained()
    delete_topics(scene.kafka, [topic])
    eventually(
        lambda: worker.get("/readyz")[0] == 503 and topic in worker.get("/readyz")[1],
        FOUND_SECONDS + MACHINE_SECONDS,
        lambda: str(worker.get("/readyz")),
    )
    create_topics(scene.kafka, {topic: None}, PARTITIONS)
    load.place(30, 0, 1)
    load.wait_until_decided(seconds=FOUND_SECONDS + MACHINE_SECONDS)
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)


def test_partitions_that_are_added_are_found_and_are_lag_until_then(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    load.place(10, 0)
    worker = workers.start()
    scene.wait_until_drained()
    add_partitions(scene.kafka, scene.topics.order_placed, PARTITIONS + 2)
    new = load.place(20, PARTITIONS, PARTITIONS + 1)
    answer = order_worker.here("lag", "--json", "--interval", "0.2").done().document
    assert answer["lag"] == len(load.undecided(new)) or answer["lag"] == len(new)
    added = time.monotonic()
    wrongly_ready = []

    def all_decided() -> bool:
        status, answer = worker.get("/readyz")
        left = load.undecided(new)
        if left and status == 200 and '"lag": 0' in answer and time.monotonic() - added > NOTICED_SECONDS:
            wrongly_ready.append(answer)
        return not left

    eventually(all_decided, FOUND_SECONDS + MACHINE_SECONDS, lambda: str(worker.get("/readyz")))
    assert not wrongly_ready
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)


def test_what_retention_deletes_before_it_is_decided_is_reported_with_its_offsets(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    load.place(100, 0)
    decide_and_stop(scene, workers)
    deleted = load.place(50, 0)
    load.place(20, 0)
    gone = load.place(30, 1)  # all of it, and nothing comes after it
    delete_records(scene.kafka, scene.topics.order_placed, {0: 150, 1: 30})
    worker = workers.start()
    scene.wait_until_drained()
    eventually(lambda: warnings(worker, f"{scene.topics.order_placed}-0", "100", "149"), 20)
    eventually(
        lambda: (
            {p: n for p, n in worker.metric("order_worker_deleted_offsets_total").items() if n}
            == {"0": 50.0, "1": 30.0}
        ),
        20,
        lambda: str(worker.metric("order_worker_deleted_offsets_total")),
    )
    assert warnings(worker, f"{scene.topics.order_placed}-1", "0", "29")
    assert load.undecided() == {*deleted, *gone}
    lag = order_worker.here("lag", "--json", "--interval", "0.2").done()
    assert "deleted" in " ".join(remark for p in lag.document["partitions"] for remark in p["remarks"])
    answer = order_worker.here("reconcile")
    assert answer.code == 0, answer
    assert re.search(r"deleted.*80|80.*deleted", answer.out.replace("\n", " ")), answer.out
    # And it stays reported.
    assert worker.stop() == 0
    workers.start().wait_until_ready()
    assert "deleted" in order_worker.here("lag", "--interval", "0.2").done().out
