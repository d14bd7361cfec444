"""What Kafka refuses for good is written otherwise, and costs the orders behind it nothing."""

import re
import time
from uuid import uuid4

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.subscriber import Message
from tests.support.topic_changes import set_largest_record, set_option
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

MINUTE_MS = 60_000


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def letters_by_offset(scene: Scene) -> dict[int, Message]:
    return {int(m.header("source.offset") or -1): m for m in scene.dead_letters()}


def test_a_burst_larger_than_a_batch_of_the_outcome_topic(scene: Scene, workers: Workers, load: Load):
    set_largest_record(scene.kafka, scene.topics.order_confirmed, 200_000)
    load.place(5_000, 0)
    load.place(100, 1)
    workers.start()
    scene.wait_until_drained(30)
    scene.assert_promises(load.ids)


def test_a_limit_that_is_lowered_under_a_running_worker(scene: Scene, workers: Workers, load: Load):
    load.place(20, 0, 1)
    worker = workers.start()
    scene.wait_until_drained()
    set_largest_record(scene.kafka, scene.topics.order_confirmed, 20_000)
    load.place(1_000, 0)
    load.wait_until_decided(load.place(1, 1), 10)
    scene.wait_until_drained(30)
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)


def test_an_outcome_larger_than_its_topic_takes_is_named_and_holds_up_nobody(
    scene: Scene, workers: Workers, load: Load
):
    set_largest_record(scene.kafka, scene.topics.order_confirmed, 2_000)
    large = uuid4()
    load.ids.append(large)
    value = order_value(*[line(1) for _ in range(200)], order_id=large)
    worker = workers.start().wait_until_ready()
    scene.place([value, *load.values(20)], partition=0)
    eventually(
        lambda: scene.topics.order_confirmed in worker.get("/readyz")[1],
        30,
        lambda: f"{worker.get('/readyz')} {worker.log[-2000:]}",
    )
    assert "max.message.bytes" in worker.get("/readyz")[1]
    load.place(20, 1)
    # Neither of the other partition nor behind it.
    eventually(lambda: len(scene.outcomes()) == 40, 20, lambda: worker.log[-2000:])
    set_largest_record(scene.kafka, scene.topics.order_confirmed, 1024 * 1024)
    scene.wait_until_drained(30)
    eventually(lambda: len(scene.outcomes()) == 41, 60, lambda: worker.log[-2000:])
    eventually(lambda: worker.get("/readyz")[0] == 200)
    scene.assert_promises(load.ids)


def test_dead_letters_are_cut_to_what_their_topic_takes(scene: Scene, workers: Workers, load: Load):
    set_largest_record(scene.kafka, scene.topics.dead_letter, 300_000)
    scene.place([b"x" * 200_000, b"y" * 200_000, b"z" * 500_000, *load.values(10)], partition=0)
    long_name = [("n" * 400_000, b"value")]
    scene.place([b"{bad"], partition=0, headers=long_name)
    publish(scene.kafka, scene.topics.order_placed, [b"{bad"], partition=0, key=b"k" * 400_000)
    load.place(10, 0)
    workers.start()
    scene.wait_until_drained(30)
    letters = letters_by_offset(scene)
    assert sorted(letters) == [0, 1, 2, 13, 14]
    assert (letters[0].value, letters[1].value) == (b"x" * 200_000, b"y" * 200_000)
    assert letters[2].header("value.cut_from_bytes") == "500000"
    scene.assert_promises(load.ids, dead_letters=5)


@pytest.mark.parametrize("ago_minutes", [10, -10], ids=["of ten minutes ago", "of ten minutes from now"])
def test_a_record_whose_time_the_dead_letter_topic_refuses(
    scene: Scene, workers: Workers, load: Load, ago_minutes: int
):
    for name in ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms"):
        set_option(scene.kafka, scene.topics.dead_letter, name, str(MINUTE_MS))
        set_option(scene.kafka, scene.topics.order_confirmed, name, str(MINUTE_MS))
    then = int(time.time() * 1000) - ago_minutes * MINUTE_MS
    values = [b"{bad", *load.values(10)]
    publish(scene.kafka, scene.topics.order_placed, values, partition=0, timestamp_ms=then)
    workers.start()
    scene.wait_until_drained(30)
    (letter,) = scene.dead_letters()
    assert letter.header("source.timestamp"), "the record's own time is not lost"
    scene.assert_promises(load.ids, dead_letters=1)


def test_a_record_without_key_and_a_compacted_dead_letter_topic(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    set_option(scene.kafka, scene.topics.dead_letter, "cleanup.policy", "compact")
    scene.place([b"{bad", b"{worse", None, *load.values(10)], partition=0)
    worker = workers.start()
    scene.wait_until_drained(30)
    letters = letters_by_offset(scene)
    assert [letters[offset].value for offset in range(3)] == [b"{bad", b"{worse", None]
    assert len({letters[offset].key for offset in range(3)}) == 3, "compaction keeps each of them"
    scene.assert_promises(load.ids, dead_letters=3)
    eventually(lambda: worker.get("/readyz")[0] == 200)
    created = order_worker.here("topics", "create", "--partitions", "4")
    assert re.search("compact", created.out), created


def test_what_hurts_is_remarked_on_at_the_start(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    for topic in (scene.topics.order_confirmed, scene.topics.order_rejected):
        set_option(scene.kafka, topic, "cleanup.policy", "compact")
    set_option(scene.kafka, scene.topics.dead_letter, "message.timestamp.before.max.ms", "1000")
    set_largest_record(scene.kafka, scene.topics.order_rejected, 10_000)
    shown = order_worker.here("topics", "create", "--partitions", "4").done().out
    worker = workers.start().wait_until_ready()
    for name in ("cleanup.policy", "message.timestamp.before.max.ms", "max.message.bytes"):
        assert name in shown
        worker.wait_for_log(name, 10)
