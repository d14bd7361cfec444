"""A consumer that is no worker joins the group, perhaps to look at the records, and commits for it."""

import json
from collections.abc import Sequence
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.group_offsets import foreign_consumer_in, remember_wrongly
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_3]


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


@pytest.mark.takes_long
def test_what_a_foreign_consumer_reads_is_reported_and_decided_when_it_leaves(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    everywhere = range(4)
    load.place(10, *everywhere)
    worker = workers.start()
    scene.wait_until_drained()
    joins = foreign_consumer_in(scene.kafka, scene.group_id, scene.topics.order_placed)
    with closing(joins) as foreign:
        eventually(lambda: foreign.poll(0.1) or foreign.assignment(), 30)
        of_theirs = foreign.assignment()
        theirs = {p.partition for p in of_theirs}
        load.place(25, *everywhere)
        eventually(lambda: foreign.poll(0.1) is not None, 20)
        eventually(lambda: foreign.poll(0.1) is None, 20)
        eventually(
            lambda: _offsets(foreign.committed(of_theirs)) == _offsets(foreign.position(of_theirs)), 20
        )
        eventually(
            lambda: "console-consumer" in worker.get("/readyz")[1],
            30,
            lambda: f"{worker.get('/readyz')} {worker.log[-1000:]}",
        )
        assert worker.get("/readyz")[0] == 503
        assert set(worker.metric("order_worker_unowned_partitions").values()) == {len(theirs)}
        lag = order_worker.here("lag", "--json", "--interval", "0.2").done().document
        reported = {p["partition"] for p in lag["partitions"] if "no worker" in " ".join(p["remarks"])}
        assert reported == theirs, json.dumps(lag)
        assert len(load.undecided()) == 25 * len(theirs)
    load.place(2, *everywhere)
    load.wait_until_decided()
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200, 30, lambda: worker.get("/readyz")[1])
    scene.assert_promises(load.ids)


def test_one_of_the_newer_protocol_hides_all_members_and_is_reported_all_the_same(
    scene: Scene, workers: Workers, load: Load
):
    worker = workers.start().wait_until_ready()
    joins = foreign_consumer_in(scene.kafka, scene.group_id, scene.topics.order_placed, "consumer")
    with closing(joins) as foreign:
        eventually(lambda: foreign.poll(0.1) or foreign.assignment(), 30)
        theirs = sorted(p.partition for p in foreign.assignment())
        names = ", ".join(f"{scene.topics.order_placed}-{number}" for number in theirs)
        eventually(
            lambda: f"no worker owns {names}: Kafka names no member" in worker.get("/readyz")[1],
            30,
            lambda: f"{names} {worker.get('/readyz')}",
        )
    load.place(2, *range(4))
    load.wait_until_decided()
    scene.wait_until_drained()
    scene.assert_promises(load.ids)


def _offsets(partitions: Sequence[TopicPartition]) -> dict[int, int]:
    return {one.partition: one.offset for one in partitions}


def test_an_offset_that_nobody_of_ours_has_committed_hides_no_order(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    """Committed while no worker ran; in partition 1 behind a batch that was begun and never published."""
    load.place(10, 0, 1)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    load.place(20, 0, 1)
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 30, 1: 25}, metadata="")
    worker = workers.start()
    load.wait_until_decided()
    scene.wait_until_drained()
    assert "was moved to 30 by a client that is no worker" in worker.log, worker.log
    scene.assert_promises(load.ids)
    assert order_worker.here("reconcile").code == 0
