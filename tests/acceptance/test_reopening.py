"""A wrong price list for an hour: rejected orders listed, checked, and placed again, each once."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from contracts.envelope import reopened_id
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker, ended
from tests.support.promises import Scene
from tests.support.redriving import killed_at
from tests.support.subscriber import Message, read_topic
from tests.support.topic_changes import delete_records
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_1

PRICES = ("--reason", "price_changed")


@pytest.fixture
def orders(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("orders")


@pytest.fixture
def worker_runs(scene: Scene, workers: Workers) -> None:
    scene.shop.stock_up({1: 1_000_000, 2: 1_000_000})
    workers.start().wait_until_ready()


def place_rejected(scene: Scene, number: int, partition: int = 1, price: str = "9.99") -> list[UUID]:
    """So many orders with a price that is not in force; their ids, once they are rejected."""
    ids = [uuid4() for _ in range(number)]
    values = [order_value(line(1, 2, price), line(2), order_id=i, channel="web") for i in ids]
    scene.place(values, partition=partition, headers=[("correlation_id", b"c-7")])
    scene.wait_until_drained()
    return ids


def reopened_records(scene: Scene) -> list[Message]:
    """The records of the input topic that a reopen has sent."""
    return [m for m in read_topic(scene.kafka, scene.topics.order_placed) if m.header("supersedes")]


def assert_each_once(scene: Scene, ids: Sequence[UUID]) -> None:
    """Each of these orders is in the input topic under its new id, once."""
    sent = Counter((m.header("supersedes"), m.event["order_id"]) for m in reopened_records(scene))
    assert sent == Counter((str(i), str(reopened_id(i))) for i in ids)


def assert_promises(scene: Scene, ids: Sequence[UUID], partitions: Sequence[int]) -> None:
    """Those of the scene, also of the orders that were reopened.

    The mark of a transaction, behind the last record, counts as lag until a record follows it.
    """
    more = [uuid4() for _ in partitions]
    for partition, order_id in zip(partitions, more, strict=True):
        scene.place([order_value(line(1), order_id=order_id)], partition=partition)
    scene.wait_until_drained()
    scene.assert_promises([*ids, *map(reopened_id, ids), *more])


@pytest.mark.usefixtures("worker_runs")
def test_orders_rejected_by_a_wrong_price_list_are_placed_again_and_confirmed(
    scene: Scene, order_worker: OrderWorker, orders: OrderWorker, tmp_path: Path
):
    ids = place_rejected(scene, 12) + place_rejected(scene, 4, partition=3)
    (good,) = place_rejected(scene, 1, price="2.50")  # which is in force
    listed = orders.here("list", *PRICES, "--json").done().document
    assert {one["order_id"] for one in listed["orders"]} == {str(i) for i in ids}
    assert listed["summary"] == {"orders": 16, "more": False}
    assert listed["orders"][0]["reasons"][0]["code"] == "price_changed"
    table = orders.here("list", "--outcome", "rejected", "--product", "1", "--user", "1").done().out
    assert len({len(row) for row in table.splitlines()[2:-1] if row.strip()}) == 1, "it aligns"
    assert table.splitlines()[-1] == "16 orders."
    assert "there are more" in orders.here("list", "--limit", "5").done().out

    file = tmp_path / "rejected.jsonl"
    written = orders.here("list", *PRICES, "--out", str(file))
    assert (written.code, written.err) == (0, f"16 orders written to {file}\n")
    checked = order_worker.here("check", str(file))
    assert checked.code == 1
    assert checked.out.splitlines()[-1] == (
        "16 orders: 16 rejected before (to place them again: `order-worker orders reopen`);"
        " 16 unknown fields ignored"
    )
    assert (
        f"orders reopen --order-id {json.loads(file.read_text().splitlines()[0])['order_id']}" in checked.out
    )

    again = orders.here("reopen", *PRICES).done().out
    assert "rejected again" in again
    assert "--drop-prices leaves out the prices" in again
    rehearsal = orders.here("reopen", *PRICES, "--drop-prices", "--json").done().document
    assert (rehearsal["selection"]["orders"], rehearsal["fates"]) == (16, {"confirmed": 16})
    assert rehearsal["steps"] == [1, 2, 5, 8]
    assert reopened_records(scene) == []
    done = orders("reopen", *PRICES, "--drop-prices", "--execute", "--by", "Ann", "--json")
    assert (done.code, done.document["results"]) == (0, {"confirmed": 16}), done

    assert_each_once(scene, ids)
    new = {m.event["order_id"]: m for m in scene.confirmed()}
    for order_id in ids:
        outcome = new[str(reopened_id(order_id))]
        assert (outcome.header("supersedes"), outcome.header("correlation_id")) == (str(order_id), "c-7")
        assert [item["unit_price"] for item in outcome.event["items"]] == ["2.50", "2.50"]
    assert {m.event["channel"] for m in reopened_records(scene)} == {"web"}
    assert {m.event["items"][0]["unit_price"] for m in reopened_records(scene)} == {None}
    orders.here("reopen", *PRICES, "--execute").assert_one_line(1, "16 reopened before")
    assert "placed again as" in orders.here("list", *PRICES).done().out
    assert order_worker.here("check", str(file)).done().out.startswith("16 orders: 16 duplicates;")
    assert order_worker.here("reconcile").done().out

    old_id, new_id = ids[0], reopened_id(ids[0])
    answer = order_worker.here("explain", str(old_id), "--json").done().document
    assert (
        f"It was placed again as {new_id} without the prices that the buyer saw by Ann at"
        in answer["summary"]
    )
    assert answer["facts"]["reopened_as"]["outcome"] == "confirmed"
    answer = order_worker.here("explain", str(new_id), "--json").done().document
    assert answer["summary"].endswith(f"It supersedes {old_id}, which was rejected.")
    orders.here("reopen", "--order-id", str(good)).assert_one_line(
        1, f"1 not rejected, but confirmed ({good})"
    )


@pytest.mark.usefixtures("worker_runs")
def test_what_is_rejected_again_stops_a_reopen_and_can_be_reopened_itself(
    scene: Scene, order_worker: OrderWorker, orders: OrderWorker
):
    ids = place_rejected(scene, 5)
    stopped = orders.here("reopen", *PRICES, "--execute")
    stopped.assert_one_line(1, "1 of 1 were not confirmed (1 price_changed)", "--drop-prices", "explain")
    assert "Not sent, and free for a later run: 4." in stopped.out
    (first,) = [UUID(m.header("supersedes")) for m in reopened_records(scene)]

    second = reopened_id(first)
    done = orders.here("reopen", *PRICES, "--drop-prices", "--execute", "--json").done().document
    assert (done["results"], done["selection"]["reopened_before"]) == ({"confirmed": 5}, 1)
    third = reopened_id(second)
    sent = {m.header("supersedes"): m for m in reopened_records(scene)}
    assert sent.keys() == {str(i) for i in (*ids, second)}
    assert sent[str(second)].event["order_id"] == str(third)
    assert [name for name, _ in sent[str(second)].headers].count("supersedes") == 1
    answer = order_worker.here("explain", str(second)).done().out.replace("\n", " ")
    assert f"It supersedes {first}, which was rejected. It was placed again as {third}" in answer
    scene.shop.assert_conserved()


@pytest.mark.usefixtures("worker_runs")
def test_killed_anywhere_and_run_again_each_order_is_placed_once(scene: Scene, orders: OrderWorker):
    ids = place_rejected(scene, 30) + place_rejected(scene, 10, partition=2)
    reopen = ("reopen", *PRICES, "--drop-prices", "--execute")
    for step in ("claimed 1", "committed 3", "sent 2", "marked 1"):
        assert killed_at(orders, step)(*reopen).code == -signal.SIGKILL, step
    assert "of a reopen that was interrupted" in orders.here(*reopen[:-1]).done().out
    doubted = killed_at(orders, "doubted 2")(*reopen)
    doubted.assert_one_line(1, "Kafka stopped taking orders", "run the same again")
    done = orders.here(*reopen, "--json").done().document
    assert (done["earlier"], set(done["results"])) == ({"sent": 2, "released": 0}, {"confirmed"})
    assert_each_once(scene, ids)
    assert_promises(scene, ids, [1, 2])


@pytest.mark.usefixtures("worker_runs")
def test_a_second_reopen_ends_the_first_and_places_nothing_twice(scene: Scene, orders: OrderWorker):
    ids = place_rejected(scene, 12)
    reopen = ("reopen", *PRICES, "--drop-prices", "--execute")
    first = orders.start(*reopen, "--rate", "2")
    eventually(lambda: len(reopened_records(scene)) >= 3)
    second = orders.here(*reopen, "--json")
    assert second.code == 0, second.err
    ended(first).assert_one_line(1, "another reopen for the group", "has begun")
    assert_each_once(scene, ids)
    assert_promises(scene, ids, [1])


@pytest.mark.usefixtures("worker_runs")
def test_of_reopens_that_begin_at_once_one_places_what_all_were_asked_for(scene: Scene, orders: OrderWorker):
    ids = place_rejected(scene, 30) + place_rejected(scene, 30, partition=2)
    together = [orders.start("reopen", *PRICES, "--drop-prices", "--execute") for _ in range(3)]
    results = [ended(process) for process in together]
    assert sorted(result.code for result in results) == [0, 1, 1], results
    assert_each_once(scene, ids)
    assert_promises(scene, ids, [1, 2])


@pytest.mark.usefixtures("worker_runs")
def test_orders_of_a_file_are_reopened_and_those_that_cannot_be_are_named(
    scene: Scene, orders: OrderWorker, tmp_path: Path
):
    gone = place_rejected(scene, 2, partition=0)
    delete_records(scene.kafka, scene.topics.order_placed, {0: 2})
    ids, unknown = place_rejected(scene, 2), uuid4()
    (confirmed,) = place_rejected(scene, 1, price="2.50")
    file = tmp_path / "ids"
    file.write_text(
        "\n".join([order_value(line(1), order_id=ids[0]).decode(), str(ids[1]), "", str(unknown)])
    )
    with file.open("a") as more:
        more.write("".join(f"\n{i}" for i in (confirmed, *gone)))
    chosen = ("reopen", "--from-file", str(file), "--drop-prices")
    rehearsal = orders.here(*chosen).done().out
    assert "2 rejected orders would be placed again under new ids" in rehearsal
    done = orders.here(*chosen, "--execute").done().out
    for out in (rehearsal, done):
        assert f"1 not rejected, but confirmed ({confirmed})" in out
        assert f"1 not decided, or unknown ({unknown})" in out
        assert "2 no longer in the input topic (retention)" in out
        assert all(str(i) in out for i in gone)
    assert_each_once(scene, ids)
    assert scene.shop.value("SELECT count(*) FROM order_reopenings") == 2

    written = orders.here("list", "--out", "-")
    assert written.code == 0
    assert {json.loads(one)["order_id"] for one in written.out.splitlines()} == {
        str(i) for i in (*ids, *map(reopened_id, ids), confirmed)
    }
    for order_id in gone:
        assert f"not written: {order_id}: its record {scene.topics.order_placed}-0@" in written.err
    file.write_text(f"{ids[0]}\nno id\n")
    orders.here(*chosen).assert_refused(2, f"{file}:2: no order id")


def test_a_list_reads_on_to_its_end_and_every_filter_holds(scene: Scene, orders: OrderWorker):
    scene.shop.sql(
        "INSERT INTO order_outcomes SELECT gen_random_uuid(), kind, '', 'order-placed', 0, i,"
        " CASE kind WHEN 'confirmed' THEN json_build_object('user_id', i % 3 + 1, 'placed_at', 'then',"
        " 'items', json_build_array(json_build_object('product_id', i % 5),"
        " json_build_object('product_id', 7)))"
        " ELSE json_build_object('user_id', i % 3 + 1, 'placed_at', 'then', 'reasons',"
        " json_build_array(json_build_object('code', 'unknown_user'),"
        " json_build_object('code', 'price_changed', 'product_id', i % 5))) END,"
        " timestamptz '2026-11-23T10:00:00Z' + i * interval '1 second'"
        " FROM generate_series(1, 600) i, unnest(ARRAY['confirmed', 'rejected']) kind"
    )

    def listed(*filters: str) -> int:
        document = orders.here("list", "--json", "--limit", "5000", *filters).done().document
        ids = [one["order_id"] for one in document["orders"]]
        assert (ids, document["summary"]["more"]) == (sorted(set(ids)), False)
        return len(ids)

    assert listed() == 1_200
    assert listed("--outcome", "confirmed") == 600
    assert listed("--reason", "price_changed") == 600
    assert listed("--reason", "insufficient_stock") == 0
    assert listed("--user", "2", "--outcome", "rejected") == 200
    assert listed("--product", "7") == 600
    assert listed("--product", "3") == 240
    assert listed("--product", "3", "--reason", "unknown_user", "--user", "1") == 40
    hour = ("--from", "2026-11-23T10:01:00Z", "--to", "2026-11-23T11:02:00+01:00")
    assert listed(*hour) == 120
    bounded = orders.here("list", "--json").done().document
    assert (len(bounded["orders"]), bounded["summary"]) == (1_000, {"orders": 1_000, "more": True})
    assert orders.here("list", "--limit", "1200", "--json").done().document["summary"]["more"] is False


def test_a_reopen_needs_workers_and_says_which_orders(scene: Scene, orders: OrderWorker):
    assert scene
    orders.here("reopen").assert_refused(2, "which orders?")
    orders.here("reopen", *PRICES, "--order-id", str(uuid4())).assert_refused(2, "give one of them")
    orders.here("reopen", "--outcome", "confirmed").assert_refused(2, "only rejected orders")
    orders.here("list", "--from", "2026-11-23").assert_refused(2, "the time zone is missing")
    orders.here("list", "--reason", "price_changed", "--outcome", "confirmed").assert_refused(2, "has none")
    orders.here("reopen", *PRICES).assert_refused(1, "nothing to reopen", "orders list")
    orders.here("reopen", *PRICES, "--execute").assert_refused(
        1, "no worker of the group", "nothing was sent"
    )
    empty = orders.here("list", "--json").done().document
    assert empty == {"version": 1, "orders": [], "summary": {"orders": 0, "more": False}}
