"""A header name that is not UTF-8: the record is a dead letter, and costs no other record anything."""

from contextlib import ExitStack

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.odd_records import ODD_VALUE, publish_odd, start_publishing_odd
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.subscriber import Message
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_3

# Where a neighbour is not held up, this is a hundred times what it takes.
AT_ONCE_SECONDS = 5.0


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def sources(letters: list[Message]) -> list[tuple[str | None, ...]]:
    """Code, partition and offset of each letter's record."""
    names = ("error.code", "source.partition", "source.offset")
    return sorted(tuple(letter.header(name) for name in names) for letter in letters)


def test_it_loses_no_order_of_a_partition_that_is_busy_meanwhile(scene: Scene, workers: Workers, load: Load):
    load.place(20, 0)
    workers.start().wait_until_ready()
    scene.wait_until_drained()
    with start_publishing_odd(scene.kafka, scene.topics.order_placed) as publishing:
        rounds_left = 20
        while rounds_left:
            load.place(20, 1)
            rounds_left -= publishing.poll() is not None
    assert publishing.returncode == 0
    load.place(50, 0)
    scene.wait_until_drained(30)
    (letter,) = scene.dead_letters()
    assert sources([letter]) == [("unreadable", "0", "20")]
    assert letter.value == ODD_VALUE
    assert letter.header("error.message")
    scene.assert_promises(load.ids, dead_letters=1)


def test_fifty_of_them_between_orders_are_fifty_dead_letters(scene: Scene, workers: Workers, load: Load):
    publish_odd(scene.kafka, scene.topics.order_placed, [v for one in load.values(50) for v in (one, None)])
    workers.start()
    scene.wait_until_drained(30)
    expected = sorted(("unreadable", "0", str(offset)) for offset in range(1, 100, 2))
    assert sources(scene.dead_letters()) == expected
    scene.assert_promises(load.ids, dead_letters=50)


def test_one_in_each_poll_holds_up_nobody(scene: Scene, workers: Workers, load: Load):
    worker = workers.start(batch_max_records="10").wait_until_ready()
    with ExitStack() as stack:
        publishing = [
            stack.enter_context(
                start_publishing_odd(scene.kafka, scene.topics.order_placed, values, partition=p)
            )
            for p in (0, 1, 2, 0, 1, 2)
            for values in [[None, *load.values(8)]]
        ]
        while any(one.poll() is None for one in publishing):
            load.wait_until_decided(load.place(3, 3), AT_ONCE_SECONDS)
    scene.wait_until_drained(30)
    assert len(scene.dead_letters()) == 6
    scene.assert_promises(load.ids, dead_letters=6)
    assert worker.get("/readyz")[0] == 200


def test_one_as_the_first_record_of_each_partition(scene: Scene, workers: Workers, load: Load):
    for partition in range(4):
        publish_odd(scene.kafka, scene.topics.order_placed, partition=partition)
    load.place(5, 0, 1, 2)
    workers.start()
    scene.wait_until_drained(30)
    assert sources(scene.dead_letters()) == [("unreadable", str(p), "0") for p in range(4)]
    scene.assert_promises(load.ids, dead_letters=4)


def test_within_a_compressed_batch_and_beside_compressed_ones(scene: Scene, workers: Workers, load: Load):
    codecs = ["gzip", "snappy", "lz4", "zstd"]
    for partition, codec in enumerate(codecs):
        load.place(5, partition, compression=codec)
        values = [*load.values(3), None, *load.values(3)]
        topic = scene.topics.order_placed
        publish_odd(scene.kafka, topic, values, partition=partition, compression=codec)
        load.place(5, partition, compression=codec)
    workers.start()
    scene.wait_until_drained(30)
    assert sources(scene.dead_letters()) == [("unreadable", str(p), "8") for p in range(4)]
    scene.assert_promises(load.ids, dead_letters=4)


def test_every_command_that_reads_the_input_continues_past_it(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    publish_odd(scene.kafka, scene.topics.order_placed, [*load.values(2), None, *load.values(2)])
    worker = workers.start()
    scene.wait_until_drained(30)
    assert order_worker.here("lag", "--json", "--interval", "0.2").done().document["lag"] == 0
    assert order_worker.here("reconcile").code == 0
    assert str(load.ids[3]) in order_worker.here("explain", str(load.ids[3]), "--scan", "all").done().out
    assert "unreadable" in order_worker.here("dead-letters", "list").done().out
    (group,) = order_worker.here("dead-letters", "list", "--json").done().document
    assert "unreadable" in order_worker.here("dead-letters", "show", group["sample"]).done().out
    assert worker.get("/")[0] == 200
    assert worker.stop() == 0
    order_worker.here("replay", "--to-earliest").done()


def test_in_our_own_topics_commands_and_the_recall_continue_past_it(
    scene: Scene, workers: Workers, load: Load, order_worker: OrderWorker
):
    scene.place([b"{bad"], partition=0)
    load.place(5, 0)
    first = workers.start()
    scene.wait_until_drained()
    assert first.stop() == 0
    for topic in (scene.topics.dead_letter, scene.topics.order_confirmed):
        publish_odd(scene.kafka, topic)
    assert "not_json" in order_worker.here("dead-letters", "list").done().out
    assert order_worker.here("reconcile").code in {0, 1}
    assert str(load.ids[0]) in order_worker.here("explain", str(load.ids[0]), "--scan", "all").done().out
    scene.forget_offsets()
    load.place(5, 0)
    worker = workers.start()
    scene.wait_until_drained(30)
    eventually(lambda: worker.get("/readyz")[0] == 200)
    outcomes = [m for m in scene.outcomes() if m.value != ODD_VALUE]
    assert len(outcomes) == len({m.key for m in outcomes}) == len(load.ids)
