"""`lag`, as an operator calls it: beside a stopped group, a running one, and transactions of upstream."""

import json
import os
import pty
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import remember_wrongly
from tests.support.order_worker import OrderWorker, ended
from tests.support.promises import Scene
from tests.support.topic_changes import add_partitions
from tests.support.worker_process import Workers


@contextmanager
def transaction(scene: Scene, partition: int, values: list[bytes]) -> Iterator[Producer]:
    """An upstream service's own transaction, open until the block ends; then committed."""
    producer = Producer({"bootstrap.servers": scene.kafka, "transactional.id": f"upstream-{uuid4()}"})
    producer.init_transactions(10)
    producer.begin_transaction()
    for value in values:
        producer.produce(scene.topics.order_placed, value=value, partition=partition)
    assert producer.flush(10) == 0
    yield producer
    producer.commit_transaction(10)


def orders(count: int) -> list[bytes]:
    return [order_value(line(1), order_id=uuid4()) for _ in range(count)]


def lag_now(order_worker: OrderWorker) -> dict[str, Any]:
    found: dict[str, Any] = order_worker.here("lag", "--json", "--interval", "0.3").done().document
    return found


def lags(found: dict[str, Any]) -> list[int]:
    return [row["lag"] for row in found["partitions"]]


def test_the_lag_of_a_group_through_its_life(scene: Scene, workers: Workers, order_worker: OrderWorker):
    scene.shop.stock_up({1: 1_000})
    scene.place(orders(3), partition=0)

    found = lag_now(order_worker)
    assert (found["never_committed"], lags(found), found["lag"]) == (True, [3, 0, 0, 0], 3)
    shown = order_worker.here("lag", "--interval", "0.3").done().out
    assert "has never committed: all that is in the topic counts" in shown

    with transaction(scene, 1, orders(5)):
        assert lags(lag_now(order_worker)) == [3, 0, 0, 0], "nobody can read them yet"
        found = lag_now(order_worker)
        assert found["partitions"][1]["remarks"] == ["5 offsets behind a transaction that is still open"]
        assert (found["partitions"][1]["hidden"], found["hidden"]) == (5, 5)
        assert "5 offsets behind a transaction" in order_worker.here("lag", "--interval", "0.3").out
    with transaction(scene, 2, orders(2)) as upstream:
        upstream.abort_transaction(10)
        upstream.begin_transaction()
    assert lags(lag_now(order_worker)) == [3, 6, 0, 0], "of an aborted transaction nothing comes"

    worker = workers.start().wait_until_ready()
    eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") == 8)
    found = eventually(lambda: (now := lag_now(order_worker))["lag"] == 0 and now)
    eventually(
        lambda: all(p["committed"] == p["end"] for p in lag_now(order_worker)["partitions"]),
        30,
        lambda: "the committed offset continues after the markers of transactions, for others to see",
    )
    (member,) = found["members"]
    assert (member["host"], found["never_committed"]) == ("127.0.0.1", False)
    assert {row["owner"] for row in found["partitions"]} == {member["member_id"]}
    assert found["pace"]["seconds_to_drain"] == 0
    assert worker.stop() == 0

    scene.place(orders(4), partition=3)
    with transaction(scene, 1, orders(2)):
        pass
    found = lag_now(order_worker)
    assert lags(found) == [0, 3, 0, 4]
    assert found["pace"]["seconds_to_drain"] is None
    assert {row["owner"] for row in found["partitions"]} == {None}
    shown = order_worker("lag").done().out
    assert "nobody is in it" in shown
    (total,) = [text.split() for text in shown.splitlines() if text.startswith(" " * 4 + "total")]
    assert total == ["total", "7", "0", "0", "never"]


@pytest.mark.usefixtures("topics")
def test_watching_continues_until_ctrl_c(order_worker: OrderWorker):
    watching = order_worker.start("lag", "--watch", "--json", "--interval", "0.2")
    assert watching.stdout
    first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
    assert (first["pace"], first["lag"]) == (None, 0)
    assert second["pace"]["decided_per_second"] == 0
    watching.send_signal(signal.SIGINT)
    stopped = ended(watching)
    assert (stopped.code, stopped.err) == (130, "")


@pytest.mark.usefixtures("topics")
def test_without_a_terminal_each_look_is_a_block(order_worker: OrderWorker):
    watching = order_worker.start("lag", "--watch", "--interval", "0.2", PYTHONUNBUFFERED="")
    assert watching.stdout
    seen: list[bytes] = []
    while sum(b"total" in text for text in seen) < 2:
        seen.append(watching.stdout.readline())
        assert seen[-1], "it continues until it is stopped"
    watching.send_signal(signal.SIGINT)
    assert ended(watching).code == 130
    assert sum(text.startswith(b"group ") for text in seen) == 2
    assert b"\x1b" not in b"".join(seen)


@pytest.mark.usefixtures("topics")
def test_in_a_terminal_the_screen_is_drawn_again(order_worker: OrderWorker):
    primary, secondary = pty.openpty()
    watching = order_worker.start(
        *("lag", "--watch", "--interval", "0.2"),
        terminal=secondary,
        TERM="xterm",
        COLUMNS="100",
    )
    os.close(secondary)
    seen = b""
    while seen.count(b"total") < 3:
        seen += os.read(primary, 4096)
    watching.send_signal(signal.SIGINT)
    assert ended(watching).code == 130
    os.close(primary)
    assert b"\x1b[1A" in seen, "the cursor goes up, to draw over what was there"
    assert b"Traceback" not in seen


def test_what_was_skipped_or_deleted_stays_in_the_lag(scene: Scene, order_worker: OrderWorker):
    add = "INSERT INTO skips (topic, partition, kind, from_offset, to_offset, requested_by, note) VALUES"
    scene.shop.sql(f"{add} ($1, 1, 'skipped', 12, 13, 'ada', 'bad disk')", scene.topics.order_placed)
    scene.shop.sql(f"{add} ($1, 1, 'deleted', 100, 150, 'shop', 'retention')", scene.topics.order_placed)
    scene.shop.sql(f"{add} ('another', 1, 'skipped', 1, 2, 'bob', '')")
    row = lag_now(order_worker)["partitions"][1]
    assert [(s["kind"], s["from_offset"], s["to_offset"], s["requested_by"]) for s in row["skips"]] == [
        ("skipped", 12, 13, "ada"),
        ("deleted", 100, 150, "shop"),
    ]
    shown = order_worker.here("lag", "--interval", "0.3").done().out
    assert f"{scene.topics.order_placed}-1: offset 12 was skipped by ada at 2" in shown
    assert "offsets 100 to 149 were deleted before they were decided, up to 50 records (found 2" in shown
    assert "bob" not in shown


def test_without_postgresql_the_lag_is_shown_and_what_is_missing_is_said(
    scene: Scene, order_worker: OrderWorker
):
    scene.place(orders(3), partition=0)
    for url, why in (
        ("postgresql://shop:secret@127.0.0.1:1/shop", "PostgreSQL says: "),
        ("postgresql://shop:sec/ret@127.0.0.1:port/shop", "ORDER_WORKER_DATABASE_URL cannot be read"),
    ):
        shown = order_worker.here("lag", "--interval", "0.3", ORDER_WORKER_DATABASE_URL=url).done().out
        assert f"What was skipped or deleted is not known: {why}" in shown
        assert "secret" not in shown
        assert "sec/ret" not in shown
        (total,) = [text.split() for text in shown.splitlines() if text.startswith(" " * 4 + "total")]
        assert total[1] == "3"


def test_partitions_that_nobody_owns_are_lag_and_are_named(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    # It stays in the group, for as long as this takes, and finds no new partitions.
    worker = workers.start(session_timeout_ms="120000").wait_until_ready()
    watching = order_worker.start("lag", "--watch", "--json", "--interval", "0.2")
    assert watching.stdout
    assert len(json.loads(watching.stdout.readline())["partitions"]) == 4
    worker.signal(signal.SIGSTOP)
    add_partitions(scene.kafka, scene.topics.order_placed, 6)
    scene.place(orders(7), partition=5)

    def named() -> bool:
        found = json.loads(watching.stdout.readline()) if watching.stdout else {}
        return bool(found["unowned"] == [4, 5] and found["lag"] == found["partitions"][5]["lag"] == 7)

    eventually(named, 60)
    watching.send_signal(signal.SIGINT)
    assert ended(watching).code == 130
    shown = order_worker("lag", "--interval", "0.3").done().out
    worker.kill()
    assert f"Nobody owns {scene.topics.order_placed}-4, 5, although the group has members" in shown


def test_an_offset_beyond_the_end_is_no_lag_of_zero(scene: Scene, order_worker: OrderWorker):
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {2: 50})
    scene.place(orders(3), partition=2)
    found = lag_now(order_worker)
    assert (found["lag"], found["partitions"][2]["lag"]) == (None, None)
    shown = order_worker.here("lag", "--interval", "0.3").done().out
    assert "committed at 50, 47 offsets beyond the end" in shown
    assert f"`order-worker replay --topic {scene.topics.order_placed}:2 --to-earliest`" in shown


def test_kafka_away_is_one_line(order_worker: OrderWorker):
    away = order_worker("lag", ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    away.assert_refused(1, "error: cannot reach Kafka")
