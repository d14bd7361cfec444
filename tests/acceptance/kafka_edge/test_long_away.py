"""The shop was closed for longer than Kafka keeps the group's offsets, and the outcomes."""

from collections import Counter

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.group_offsets import remember_wrongly
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.topic_changes import delete_records
from tests.support.topic_names import PARTITIONS
from tests.support.worker_process import WorkerProcess, Workers

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def two_batches(scene: Scene, workers: Workers, load: Load) -> WorkerProcess:
    load.place(10, 0, 1)
    worker = workers.start()
    scene.wait_until_drained()
    load.place(10, 0, 1)
    scene.wait_until_drained()
    return worker


def long_away(scene: Scene, *topics: str) -> set[str | None]:
    """What subscribers had seen by then."""
    seen = {message.header("ce_subject") for message in scene.outcomes()}
    scene.forget_offsets()
    for topic in topics:
        delete_records(scene.kafka, topic, dict.fromkeys(range(PARTITIONS), -1))
    return seen


def published_after(scene: Scene, load: Load) -> Counter[str | None]:
    load.place(3, 0, 1)
    load.wait_until_decided()
    scene.wait_until_drained()
    return Counter(message.header("ce_subject") for message in scene.outcomes())


@pytest.mark.parametrize("input_too", [False, True], ids=["the outcomes", "the input as well"])
def test_what_was_published_before_retention_deleted_it_is_not_published_again(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker, input_too: bool
):
    assert two_batches(scene, workers, load).stop() == 0
    topics = [scene.topics.order_confirmed, scene.topics.order_rejected]
    long_away(scene, *topics, *([scene.topics.order_placed] if input_too else []))
    workers.start()
    published = published_after(scene, load)
    assert published == Counter(str(one) for one in load.ids[-6:])
    lag = order_worker.here("lag", "--json", "--interval", "0.2").done().document
    assert not any(p["remarks"] for p in lag["partitions"]), "nothing was lost, and nothing says so"


def test_after_a_kill_an_operator_decides_what_the_topics_cannot_show(
    scene: Scene, workers: Workers, load: Load
):
    two_batches(scene, workers, load).kill()
    topics = [scene.topics.order_confirmed, scene.topics.order_rejected]
    long_away(scene, *topics)
    load.place(3, 0, 1)
    worker = workers.start()
    worker.wait_for_log("health, metrics and docs on")
    eventually(
        lambda: "nobody can tell whether it was published" in worker.get("/readyz")[1],
        30,
        lambda: f"{worker.get('/readyz')} {worker.log[-2000:]}",
    )
    assert scene.outcomes() == []
    assert worker.stop() == 0
    # An operator says so: of partition 0 it was published, of partition 1 it was not.
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 20, 1: 10}, metadata="")
    workers.start()
    published = published_after(scene, load)
    placed = [str(one) for one in load.ids]
    assert published == Counter([*placed[30:40], *placed[40:]])
