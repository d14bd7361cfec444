"""`explain`, as an operator calls it when somebody asks what became of an order."""

from typing import Any
from uuid import UUID, uuid4

from confluent_kafka import Producer

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.subscriber import Message
from tests.support.topic_changes import add_partitions
from tests.support.worker_process import Workers


def publish_again(scene: Scene, message: Message) -> None:
    """As `republish` would: the same bytes, and a header that says so."""
    producer = Producer({"bootstrap.servers": scene.kafka})
    producer.produce(
        scene.topics.order_confirmed,
        key=message.key,
        value=message.value,
        partition=message.partition,
        headers=[*message.headers, ("republished", b"true")],
    )
    assert producer.flush(10) == 0


def explained(order_worker: OrderWorker, order_id: UUID, *options: str) -> Any:
    """What a script gets."""
    return order_worker.here("explain", "--json", str(order_id), *options).done().document


def on_screen(order_worker: OrderWorker, order_id: UUID) -> str:
    """What a person sees."""
    return order_worker("explain", str(order_id)).done().out


def test_every_kind_of_order_is_explained(scene: Scene, workers: Workers, order_worker: OrderWorker):
    topics = scene.topics
    scene.shop.stock_up({1: 5, 2: 100})
    confirmed, rejected, lost, poison, by_key = (uuid4() for _ in range(5))
    waiting, direct, unknown = (uuid4() for _ in range(3))
    value = order_value(line(1, 2), line(2, 1, "2.50"), order_id=confirmed)
    worker = workers.start()
    scene.place([value], partition=2)
    scene.wait_until_drained()
    scene.place(
        [
            order_value(line(1, 9), line(2, 1, "2.55"), order_id=rejected),
            value,  # upstream sent it twice
            order_value(line(1, 1), order_id=lost),
        ],
        partition=2,
    )
    scene.place(
        [
            order_value(line(2, 1), order_id=confirmed),  # another order under its id
            order_value(line(2, 0), order_id=poison),
        ],
        partition=3,
    )
    publish(scene.kafka, topics.order_placed, [b"{"], partition=1, key=str(by_key).encode())
    scene.wait_until_drained()
    assert worker.stop() == 0
    # A commit shows a moment after it is acknowledged.
    (publication,) = eventually(
        lambda: [m for m in scene.confirmed() if m.header("ce_subject") == str(confirmed)]
    )
    publish_again(scene, publication)
    scene.place(
        [order_value(line(1)), order_value(line(1)), order_value(line(1), order_id=waiting)], partition=2
    )
    scene.shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES ($1, 1, 2.5, now())", direct
    )
    scene.shop.sql("DELETE FROM order_outcomes WHERE order_id = $1", lost)
    scene.shop.sql("DELETE FROM orders WHERE id = $1", lost)

    answer = explained(order_worker, confirmed)
    facts = answer["facts"]
    assert answer["state"] == "confirmed"
    assert (
        f" from {topics.order_placed}-2@0, published 2 times: at {topics.order_confirmed}-2@0, "
        in answer["summary"]
    )
    assert answer["summary"].endswith(" (republished).")
    assert [(r["place"]["partition"], r["place"]["offset"], r["standing"]) for r in facts["inputs"]] == [
        (2, 0, "decided"),
        (2, 2, "duplicate"),
        (3, 0, "conflict"),
    ]
    assert [(o["republished"], o["as_stored"]) for o in facts["outcomes"]] == [(False, True), (True, True)]
    assert [letter["code"] for letter in facts["dead_letters"]] == ["order_id_conflict"]
    assert facts["products"] == [
        {"product_id": 1, "price": "2.50", "stock": 2, "taken_later": 0},
        {"product_id": 2, "price": "2.50", "stock": 99, "taken_later": 0},
    ]
    assert facts["order"]["status"] == "pending"
    text = on_screen(order_worker, confirmed)
    assert text.splitlines()[1] == answer["summary"]
    assert [one["topic"] for one in facts["unread"]] == [topics.order_placed] * 2
    assert f"Not looked at: {topics.order_placed} (2 offsets)." in text
    for words in ("duplicate: the same order again", "order-confirmed, republished", "taken later"):
        assert words in text

    everything = explained(order_worker, confirmed, "--scan", "all")["facts"]
    assert everything == {**facts, "unread": []}

    answer = explained(order_worker, rejected)
    assert answer["state"] == "rejected"
    because = (
        "because product 1: 9 requested, 3 available; product 2 cost 2.50 and not 2.55. It was published"
    )
    assert f"{because} once at {topics.order_rejected}-2@" in answer["summary"]
    assert "price_changed" in on_screen(order_worker, rejected)

    answer = explained(order_worker, poison)
    assert answer["state"] == "dead_letter"
    assert answer["summary"].startswith("Dead letter because items.0.quantity: a quantity is")
    assert answer["summary"].endswith(f", from {topics.order_placed}-3@1.")
    answer = explained(order_worker, by_key)
    assert (answer["state"], answer["facts"]["dead_letters"][0]["code"]) == ("dead_letter", "not_json")

    answer = explained(order_worker, waiting)
    assert answer["summary"] == (
        f"Waiting: its record is at {topics.order_placed}-2@6;"
        f" 2 offsets before it wait for the group {scene.group_id} as well, in which nobody is now."
    )
    assert answer["facts"]["products"][0]["stock"] == 2
    assert explained(order_worker, direct)["state"] == "direct"

    missed = order_worker.here("explain", str(lost))
    missed.assert_refused(1)
    assert missed.err.endswith("among the latest dead letters; `--scan all` reads everything\n")
    answer = explained(order_worker, lost, "--scan", "all")
    assert answer["state"] == "passed_over"
    assert f"the ledger has lost it. Its record is at {topics.order_placed}-2@3." in answer["summary"]

    nothing = order_worker("explain", "--json", str(unknown), "--scan", "all")
    assert (nothing.code, nothing.document["state"]) == (1, "not_found")
    assert nothing.message.endswith("no record of it is in the input or among the dead letters")


def test_an_order_that_is_cancelled_or_deleted_since_is_not_shown_as_confirmed(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 5})
    cancelled, deleted = uuid4(), uuid4()
    worker = workers.start()
    scene.place([order_value(line(1), order_id=i) for i in (cancelled, deleted)])
    scene.wait_until_drained()
    assert worker.stop() == 0
    scene.shop.sql("UPDATE orders SET status = 'cancelled' WHERE id = $1", cancelled)
    scene.shop.sql("DELETE FROM orders WHERE id = $1", deleted)
    assert on_screen(order_worker, cancelled).splitlines()[1].startswith("Cancelled since. Confirmed at ")
    answer = explained(order_worker, deleted)
    assert answer["summary"].startswith(
        "Gone from the table of orders: deleted since, or not restored. Confirmed"
    )
    assert answer["state"] == "confirmed"


def test_what_is_no_uuid_is_wrong_usage_and_an_absent_server_is_one_line(order_worker: OrderWorker):
    order_worker("explain", "17").assert_one_line(2, "error: 17 is no order id")
    away = order_worker.here("explain", str(uuid4()), ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    away.assert_one_line(1, "error: cannot reach Kafka")


def test_whatever_the_headers_of_a_dead_letter_say_the_order_is_explained(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 5})
    order_id, key = uuid4(), str(uuid4()).encode()
    scene.place([order_value(line(1), order_id=order_id)], partition=0)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    absurd: list[tuple[str, bytes | None]] = [
        ("error.code", b"not_json"),
        ("source.topic", scene.topics.order_placed.encode()),
        ("source.partition", b"1" * 4_301),
        ("source.offset", b"9" * 5_000),
        ("source.timestamp", b"9" * 5_000),
        ("failed_at", b"0001-01-01T00:00:00+23:59"),
    ]
    for one in (str(order_id).encode(), key):
        publish(scene.kafka, scene.topics.dead_letter, [b"x"], partition=3, key=one, headers=absurd)

    answer = explained(order_worker, order_id)
    (letter,) = answer["facts"]["dead_letters"]
    assert (answer["state"], letter["code"], letter["source"], letter["failed_at"]) == (
        "confirmed", "not_json", None, None,
    )  # fmt: skip
    assert "(not_json)" in on_screen(order_worker, order_id)
    assert order_worker.here("reconcile").done().out
    assert order_worker.here("dead-letters", "list").code == 0
    assert order_worker.here("dead-letters", "show", "3:0").code == 0


def test_an_outcome_is_found_where_it_was_before_its_topic_got_more_partitions(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    """A worker that starts later writes elsewhere; what was published stays where it is."""
    scene.shop.stock_up({1: 5})
    before, after = uuid4(), uuid4()
    fewer = f"{scene.topics.order_confirmed}-fewer"
    create_topics(scene.kafka, {fewer: None}, 1)
    with_fewer = OrderWorker({**order_worker.env, "ORDER_WORKER_ORDER_CONFIRMED_TOPIC": fewer})
    for order_id, partitions in ((before, 2), (after, 6)):
        add_partitions(scene.kafka, fewer, partitions)
        scene.place([order_value(line(1), order_id=order_id)], partition=3)
        worker = workers.start(order_confirmed_topic=fewer)
        scene.wait_until_drained()
        assert worker.stop() == 0
    for order_id, place in ((before, f"{fewer}-1@0"), (after, f"{fewer}-3@0")):
        answer = explained(with_fewer, order_id)
        assert answer["summary"].endswith(f"published once at {place}."), answer["summary"]
    delete_topics(scene.kafka, [fewer])


def test_an_order_that_is_not_found_may_have_been_skipped(scene: Scene, order_worker: OrderWorker):
    unknown, there = uuid4(), uuid4()
    scene.place([order_value(line(1), order_id=there)], partition=1)
    scene.rewind("--to-latest")
    scene.shop.sql(
        "INSERT INTO skips (topic, partition, kind, from_offset, to_offset, requested_by, note)"
        " VALUES ($1, 1, 'skipped', 0, 12, 'ada', 'bad disk')",
        scene.topics.order_placed,
    )
    for scan in ("near", "all"):
        missed = order_worker.here("explain", str(unknown), "--scan", scan)
        missed.assert_refused(1, "it may have been among 12 offsets that ada skipped at 2")
    assert order_worker.here("explain", "--json", str(unknown)).document["facts"]["skips"][0]["note"] == (
        "bad disk"
    )
    answer = explained(order_worker, there, "--scan", "all")
    assert answer["state"] == "passed_over"
    assert (
        f"its record at {scene.topics.order_placed}-1@0 could not be read, and was skipped by ada"
        in (answer["summary"])
    )
