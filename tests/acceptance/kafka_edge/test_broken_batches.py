"""Batches that cannot be unpacked: only their partition waits, and continues past them on command."""

from dataclasses import dataclass
from uuid import UUID

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.log_files import break_batch, broken_compression, folder_of, unknown_codec, wrong_checksum
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.services import Services

pytestmark = pytest.mark.guarantee_3

# Where a neighbour is not held up, this is a hundred times what it takes.
AT_ONCE_SECONDS = 5.0
SKIPPED_SECONDS = 20.0
UNREADABLE = "order_worker_unreadable_offsets"
BREAKINGS = (wrong_checksum, unknown_codec, broken_compression)
SOUND = len(BREAKINGS)  # the partition beside them


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


@dataclass(frozen=True)
class Broken:
    """In each partition but the last some orders, a batch that is broken, and orders behind it."""

    offsets: list[range]
    """of the broken batch, by partition"""
    lost: set[UUID]
    behind: list[UUID]


@pytest.fixture
def broken(scene: Scene, load: Load, own_kafka: LocalKafka) -> Broken:
    load.place(2, *range(len(BREAKINGS)))
    to_break = [load.place(3, partition) for partition in range(len(BREAKINGS))]
    behind = load.place(5, *range(len(BREAKINGS)))
    topic = scene.topics.order_placed
    own_kafka.stop()
    offsets = [
        break_batch(folder_of(own_kafka, topic, partition), 2, breaking)
        for partition, breaking in enumerate(BREAKINGS)
    ]
    own_kafka.start()
    lost = {ids[offset - 2] for ids, span in zip(to_break, offsets, strict=True) for offset in span}
    return Broken(offsets, lost, [*behind, *(i for ids in to_break for i in ids if i not in lost)])


def assert_names_the_stuck(worker: WorkerProcess, topic: str, offsets: list[range]) -> None:
    status, answer = worker.get("/readyz")
    assert status == 503, answer
    for partition, span in enumerate(offsets):
        assert f"{topic}-{partition}" in answer, answer
        assert str(span.start) in answer, answer
    assert "since" in answer, answer


def test_each_partition_waits_alone_and_a_skip_lets_it_continue(
    scene: Scene, workers: Workers, load: Load, broken: Broken, order_worker: OrderWorker
):
    topic = scene.topics.order_placed
    load.place(2, SOUND)
    worker = workers.start()
    worker.wait_for_log("health, metrics and docs on")
    before = [one for one in load.ids if one not in broken.lost and one not in broken.behind]
    load.wait_until_decided(before)
    unreadable = {str(p): float(len(span)) for p, span in enumerate(broken.offsets)}
    eventually(
        lambda: {k: v for k, v in worker.metric(UNREADABLE).items() if v} == unreadable,
        20,
        lambda: f"{worker.metric(UNREADABLE)} {worker.log[-2000:]}",
    )
    eventually(lambda: worker.get("/readyz")[0] == 503)
    for _ in range(20):
        load.wait_until_decided(load.place(1, SOUND), AT_ONCE_SECONDS)
        assert_names_the_stuck(worker, topic, broken.offsets)
    assert load.undecided() == {*broken.lost, *broken.behind}

    for partition, span in enumerate(broken.offsets):
        place = f"{topic}:{partition}:{span.start}"
        rehearsed = order_worker.here("skip", place, "--by", "me", "--note", "bad disk").done()
        assert str(span.start) in rehearsed.out
        order_worker.here("skip", place, "--by", "me", "--note", "bad disk", "--execute").done()
    load.wait_until_decided(broken.behind, SKIPPED_SECONDS)
    scene.wait_until_drained(20)
    eventually(lambda: worker.get("/readyz")[0] == 200)
    eventually(lambda: not any(worker.metric(UNREADABLE).values()), 10)
    scene.assert_promises([one for one in load.ids if one not in broken.lost])
    answer = order_worker.here("reconcile")
    assert answer.code == 0, answer
    assert "skip" in answer.out
    assert "bad disk" in order_worker.here("lag", "--json", "--interval", "0.2").out


def test_other_commands_continue_past_them_and_say_so(
    scene: Scene, workers: Workers, load: Load, broken: Broken, order_worker: OrderWorker
):
    ids = load.place(2, SOUND)
    workers.start()
    load.wait_until_decided(ids)
    sound = order_worker.here("explain", str(ids[0]), "--scan", "all")
    assert str(ids[0]) in sound.out, sound
    behind = order_worker.here("explain", str(broken.behind[0]), "--scan", "all")
    assert str(broken.behind[0]) in behind.out, behind
    found = order_worker.here("lag", "--json", "--interval", "0.2").done().document
    assert found["lag"] >= len(broken.behind)
    answer = order_worker.here("reconcile")
    assert answer.code == 1, "what waits behind them is not decided"
    for partition, span in enumerate(broken.offsets):
        assert f"{partition}:{span.start}" in answer.out, answer


def test_a_skip_of_a_sound_record_is_refused(scene: Scene, load: Load, order_worker: OrderWorker):
    load.place(3, 0)
    place = f"{scene.topics.order_placed}:0:1"
    refused = order_worker.here("skip", place, "--by", "me", "--note", "why", "--execute")
    refused.assert_one_line(1, f"{scene.topics.order_placed}:0:1")
    assert not scene.shop.sql("SELECT * FROM skips")
