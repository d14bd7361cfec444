"""`order-worker skip`, on a broker whose disk is really broken."""

import struct
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.broken_records import Change, break_batch, broken_compression, flip_a_byte, unknown_codec
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.json_schema import faults
from tests.support.kafka_topics import create_topics
from tests.support.order_worker import OrderWorker
from tests.support.own_broker import own_broker
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_changes import delete_records
from tests.support.topic_names import PARTITIONS, TopicNames
from tests.support.worker_process import Workers
from worker.operations.skip import skip as operation
from worker.sandbox.servers.kafka import LocalKafka

pytestmark = pytest.mark.guarantee_3

WHY = ("--by", "ada", "--note", "disk 7 was replaced")


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    """A broker of our own: what is on its disk is ours to break."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
def topics(broker: LocalKafka, topic_names: TopicNames) -> TopicNames:
    names = (topic_names.order_placed, topic_names.order_confirmed, topic_names.order_rejected)
    create_topics(broker.bootstrap_servers, dict.fromkeys([*names, topic_names.dead_letter]), PARTITIONS)
    return topic_names


@pytest.fixture
def env(env: dict[str, str], broker: LocalKafka) -> dict[str, str]:
    return {**env, "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}


@pytest.fixture
def scene(broker: LocalKafka, shop: Shop, topics: TopicNames, env: dict[str, str]) -> Scene:
    return Scene(broker.bootstrap_servers, shop, topics, env["ORDER_WORKER_GROUP_ID"])


@pytest.fixture
def skip(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("skip")


def orders(ids: list[UUID]) -> list[bytes | None]:
    return [order_value(line(1), order_id=order_id) for order_id in ids]


def place_of(scene: Scene, offset: int, partition: int = 0) -> str:
    return f"{scene.topics.order_placed}:{partition}:{offset}"


def rehearsed(skip: OrderWorker, *arguments: str) -> Any:
    document = skip.here(*arguments, "--json").done().document
    assert faults(document, "skip") == []
    return document


def wrong_length(batch: bytearray) -> None:
    """The broker itself cannot go past it."""
    struct.pack_into(">i", batch, 8, 3)


def test_workers_continue_behind_what_an_operator_skips_and_it_stays_on_record(
    broker: LocalKafka, scene: Scene, workers: Workers, skip: OrderWorker, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    before, lost, behind, beside = ([uuid4() for _ in range(n)] for n in (3, 5, 4, 2))
    for ids in (before, lost, behind):
        scene.place(orders(ids), partition=0)
    break_batch(broker, scene.topics.order_placed, 0, 4, flip_a_byte)
    worker = workers.start()
    scene.place(orders(beside), partition=1)
    eventually(
        lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") == 5, 30, lambda: worker.log[-2000:]
    )
    worker.wait_for_log("cannot be unpacked")
    eventually(lambda: rehearsed(skip, place_of(scene, 5))["committed"] is not None)

    plan = rehearsed(skip, place_of(scene, 5))
    first, end = plan["from_offset"], plan["to_offset"]
    assert first <= 5 < end, "whichever offset of the batch is named, all of it is skipped"
    assert (plan["committed"], plan["executed"]) == (first, False)
    assert "wrong checksum" in plan["why"]
    shown = skip(place_of(scene, 5)).done().out
    assert f"{scene.topics.order_placed}-0: offsets {first} to {end - 1} cannot be read: " in shown
    assert "ask upstream to send them again" in shown
    assert "Nothing was changed. To skip them: order-worker skip" in shown
    assert "--by WHO --note TEXT --execute" in shown
    assert scene.shop.value("SELECT count(*) FROM skips") == 0

    done = skip.here(place_of(scene, 4), *WHY, "--execute").done().out
    assert "On record: skipped by ada: disk 7 was replaced." in done
    scene.wait_until_drained()
    assert scene.shop.value("SELECT count(*) FROM order_outcomes") == 14 - (end - first)
    again = skip.here(place_of(scene, 4), *WHY, "--execute")
    again.assert_refused(1, "is behind the workers already")

    passed_over = f"-0: offsets {first} to {end - 1} were skipped by ada at 2"
    assert passed_over in order_worker.here("lag", "--interval", "0.3").done().out
    assert passed_over in order_worker.here("reconcile").done().out
    missed = order_worker.here("explain", str(lost[1]))
    missed.assert_refused(1, f"it may have been among {end - first} offsets that ada skipped at 2")
    assert worker.stop() == 0
    scene.assert_promises([*before, *behind, *beside, *lost[: 0 if end - first == 5 else 5 - (end - first)]])


@pytest.mark.parametrize("change", [flip_a_byte, unknown_codec, broken_compression])
def test_whatever_keeps_a_batch_from_being_unpacked_may_be_skipped(
    broker: LocalKafka, scene: Scene, skip: OrderWorker, change: Change
):
    for _ in range(3):
        scene.place([order_value()], partition=2)
    break_batch(broker, scene.topics.order_placed, 2, 1, change)
    plan = rehearsed(skip, place_of(scene, 1, 2))
    assert (plan["from_offset"], plan["to_offset"], plan["committed"]) == (1, 2, None)
    assert plan["why"]
    same = rehearsed(skip, place_of(scene, 1, 2), "--through", "1")
    assert same == plan
    skip.here(place_of(scene, 1, 2), "--through", "2").assert_refused(1, "offset 2 can be read")
    skip.here(place_of(scene, 1, 2), *WHY, "--execute").done()
    skip.here(place_of(scene, 1, 2)).assert_refused(1, "is skipped already: offset 1 was skipped by ada")


def test_two_broken_batches_are_skipped_at_once_if_nothing_between_can_be_read(
    broker: LocalKafka, scene: Scene, skip: OrderWorker
):
    for _ in range(4):
        scene.place([order_value()], partition=2)
    for offset in (1, 2):
        break_batch(broker, scene.topics.order_placed, 2, offset, flip_a_byte)
    plan = rehearsed(skip, place_of(scene, 1, 2), "--through", "2")
    assert (plan["from_offset"], plan["to_offset"]) == (1, 3)


def test_what_needs_no_skip_is_refused_and_nothing_is_recorded(scene: Scene, skip: OrderWorker):
    scene.place([order_value(), b"no order", order_value()], partition=0)
    place, other = place_of(scene, 1), f"{scene.topics.dead_letter}:0:0"
    skip.here(place, *WHY, "--execute").assert_refused(1, f"{place} can be read, and is no case for a skip")
    skip.here(place_of(scene, 3), *WHY, "--execute").assert_refused(1, "beyond what can be read")
    skip.here(place_of(scene, 0, 9), *WHY, "--execute").assert_refused(2, "has no partition 9")
    skip.here(other, *WHY, "--execute").assert_refused(2, "only places of the input topic")
    delete_records(scene.kafka, scene.topics.order_placed, {0: 2})
    skip.here(place, *WHY, "--execute").assert_refused(1, f"{place} is deleted")
    assert scene.shop.value("SELECT count(*) FROM skips") == 0


@pytest.mark.takes_long
def test_what_the_broker_cannot_serve_needs_an_end_and_something_served_behind_it(
    broker: LocalKafka, scene: Scene, skip: OrderWorker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(operation, "NOT_SERVED_SECONDS", 3.0)
    for _ in range(5):
        # The broker's index has an entry for each 4 KiB: it need not go through what is broken before one.
        scene.place([order_value(padding="x" * 5_000)], partition=3)
    break_batch(broker, scene.topics.order_placed, 3, 3, wrong_length)
    skip.here(place_of(scene, 3, 3)).assert_refused(1, "Kafka gives nothing from", "say with --through")
    plan = rehearsed(skip, place_of(scene, 3, 3), "--through", "3")
    assert (plan["from_offset"], plan["to_offset"]) == (3, 4)
    break_batch(broker, scene.topics.order_placed, 3, 2, wrong_length)
    skip.here(place_of(scene, 2, 3), "--through", "2").assert_refused(1, "look after the broker first")
    skip.here(place_of(scene, 2, 3), "--through", "3", *WHY, "--execute").done()


def test_reconcile_continues_past_unreadable_records_and_says_what_it_cannot_prove(
    broker: LocalKafka, scene: Scene, workers: Workers, skip: OrderWorker, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    topic = scene.topics.order_placed
    decided = [uuid4() for _ in range(4)]
    for one in decided:
        scene.place(orders([one]), partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    # Decided before it broke: nothing is missing. And what comes next, broken before it was decided.
    break_batch(broker, topic, 0, 1, flip_a_byte)
    for _ in range(2):
        scene.place(orders([uuid4()]), partition=1)
    break_batch(broker, topic, 1, 0, unknown_codec)

    answer = order_worker.here("reconcile", "--json")
    document = answer.document
    assert (answer.code, answer.err, document["waiting"]) == (1, "", 2)
    assert document["remarks"] == {"input_unreadable": 1}
    (blocked,) = document["found"]
    assert (blocked["code"], blocked["place"]) == ("blocked_by_unreadable", f"{topic}-1@0")
    assert f"`order-worker skip {topic}:1:0`" in blocked["fix"]
    shown = order_worker.here("reconcile").out
    assert "1 record of" in shown
    assert f"{topic}-0 from offset 1 cannot be unpacked" in shown

    skip.here(place_of(scene, 0, 1), *WHY, "--execute").done()
    assert order_worker.here("reconcile", "--json").document["found"] == [], "it is on record"
    # Moved on with Kafka's own tool, and not by a skip: nobody knows what became of it.
    scene.shop.sql("DELETE FROM skips")
    scene.rewind("--to-latest")
    found = order_worker.here("reconcile", "--json").document["found"]
    assert {(one["code"], one["place"]) for one in found} == {
        ("unreadable_and_lost", f"{topic}-1@0"),
        ("undecided", f"{topic}-1@1"),
    }


@pytest.mark.parametrize("which", ["order_confirmed", "dead_letter"])
def test_what_cannot_be_unpacked_of_an_output_topic_is_not_taken_for_missing(
    broker: LocalKafka, scene: Scene, workers: Workers, order_worker: OrderWorker, which: str
):
    scene.shop.stock_up({1: 1_000})
    scene.place([*orders([uuid4() for _ in range(3)]), b"no order"], partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    break_batch(broker, getattr(scene.topics, which), 0, 0, flip_a_byte)
    answer = order_worker.here("reconcile", "--repair", "--json")
    assert (answer.code, answer.document["found"]) == (0, []), answer
    remark = {"order_confirmed": "outcome_deleted", "dead_letter": "letter_deleted"}[which]
    assert answer.document["remarks"][remark] >= 1
    assert [one["topic"] for one in answer.document["unreadable"]] == [getattr(scene.topics, which)]
