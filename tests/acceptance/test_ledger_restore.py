"""`ledger restore`: a database that lost its last hours gets them back from the topics, byte for byte."""

import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.shop import Shop
from tests.support.topic_changes import delete_records, set_option
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2]

LAMP, SCARCE, CHAIR = 1, 2, 3
KILLED_AFTER_120 = """
import asyncio, os, signal
from worker.operations.restore import writing
from worker.operations.restore.restore import RestoreRequest, restore
from worker.settings import read_settings
writing.PORTION = 40
left = [3]
def written():
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(restore(read_settings(), RestoreRequest(execute=True), print, written=written))
"""
STORED = ("users", "products", "orders", "order_items", "order_outcomes", "positions")  # by their references
TABLES = {
    "order_outcomes": "order_id, outcome, fingerprint || coalesce(sorted_fingerprint, ''), source_topic,"
    " source_partition, source_offset, event::text, decided_at, passed_on",
    "orders": "*",
    "order_items": "*",
    "products": "*",
}


def dump(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the shop and its ledger."""
    return {
        table: [tuple(row) for row in shop.sql(f"SELECT {columns} FROM {table} ORDER BY 1, 2")]
        for table, columns in TABLES.items()
    }


@dataclass(frozen=True)
class Restored:
    """A shop whose database is a backup by now, and what the lost one held."""

    scene: Scene
    workers: Workers
    order_worker: OrderWorker
    lost: Mapping[str, list[tuple[Any, ...]]]
    orders: list[bytes]  # all that was ever placed
    ids: list[UUID]

    def restore(self, *arguments: str) -> Any:
        return self.order_worker.here("ledger", "restore", *arguments, "--json").done().document

    def outcomes(self) -> Counter[tuple[bytes | None, bytes | None]]:
        return Counter((m.key, m.value) for m in self.scene.outcomes())

    def place_again(self) -> None:
        """Let a worker see all orders once more: nothing comes of it."""
        outcomes = self.outcomes()
        self.scene.place(self.orders)
        worker = self.workers.start()
        self.scene.wait_until_drained()
        assert worker.stop() == 0
        assert self.outcomes() == outcomes


def back_up(shop: Shop) -> None:
    for table in STORED:
        shop.sql(f"CREATE TABLE {table}_backup AS TABLE {table}")


def restore_backup(shop: Shop) -> None:
    for table in reversed(STORED):
        shop.sql(f"DELETE FROM {table}")
    for table in STORED:
        shop.sql(f"INSERT INTO {table} SELECT * FROM {table}_backup")


@pytest.fixture
def restored(scene: Scene, workers: Workers, order_worker: OrderWorker) -> Restored:
    """400 orders were decided and published, and the database restored as it was after the first 100."""
    shop, ids = scene.shop, [uuid4() for _ in range(400)]
    shop.stock_up({LAMP: 10_000, SCARCE: 150, CHAIR: 5_000})
    orders = [
        order_value(
            line(LAMP, n % 3 + 1, *(["2.50"] if n % 2 else [])),
            *([line(SCARCE)] if n % 2 else [line(LAMP), line(CHAIR, 4)]),
            order_id=order_id,
            user_id=n % 10 + 1,
            placed_at=f"2026-11-23T10:00:{n % 60:02d}+02:00",
        )
        for n, order_id in enumerate(ids)
    ]
    worker = workers.start(batch_max_records="100")
    scene.place(orders[:100])
    scene.wait_until_drained()
    back_up(shop)
    caused_by = [("correlation_id", b"c-1"), ("ce_id", b"e-1"), ("ce_source", b"/shop")]
    scene.place([*orders[100:], orders[0], orders[1], b"no order"], headers=caused_by)
    scene.wait_until_drained()
    assert worker.stop() == 0
    lost = dump(shop)
    restore_backup(shop)
    assert shop.value("SELECT count(*) FROM order_outcomes") == 100
    return Restored(scene, workers, order_worker, lost, orders, ids)


def test_all_that_was_lost_is_there_again_byte_for_byte_and_nothing_is_decided_twice(restored: Restored):
    scene, outcomes, before = restored.scene, restored.outcomes(), dump(restored.scene.shop)
    scene.place(restored.orders)
    worker = restored.workers.start()
    worker.wait_for_log("health, metrics and docs on")
    eventually(
        lambda: "order-worker ledger restore" in worker.get("/readyz")[1], 60, lambda: worker.log[-2000:]
    )
    said = restored.restore()
    assert dump(scene.shop) == before, "a worker decides nothing, and a rehearsal changes nothing"
    assert {m["outcome"]: m["orders"] for m in said["missing"]} == {"confirmed": 250, "rejected": 50}
    assert (said["records"], said["records_in_ledger"], said["records_missing"]) == (400, 100, 300)
    assert [m["input_record_gone"] for m in said["missing"]] == [0, 0]
    assert {p["then"] for p in said["partitions"]} == {"would be whole"}
    assert said["next_command"] == "order-worker ledger restore --orders --execute"

    done = restored.restore("--orders", "--execute")
    assert (done["complete"], done["outcomes_written"], done["orders_written"]) == (True, 300, 250)
    scene.wait_until_drained()  # by the worker that waited
    assert worker.stop() == 0
    assert dump(scene.shop) == restored.lost
    assert restored.outcomes() == outcomes, "the same orders again are duplicates"
    scene.assert_promises(restored.ids, dead_letters=1)
    answer = restored.order_worker.here("reconcile").done().out
    assert "nothing is missing: each of 803 records has exactly one result" in answer

    scene.shop.sql("DELETE FROM order_outcomes WHERE source_offset % 2 = 1")
    rows_alone = restored.restore("--execute")
    assert (rows_alone["orders_missing"], rows_alone["partitions"], rows_alone["orders_written"]) == (
        0,
        [],
        0,
    )
    assert dump(scene.shop) == restored.lost
    again = restored.restore("--execute")
    assert (again["missing"], again["partitions"], again["complete"]) == ([], [], True)


def test_obstacles_are_named_first_and_a_restore_killed_half_way_continues(restored: Restored):
    shop = restored.scene.shop
    stock_is_lacking_and_a_user_gone(restored)
    restore_backup(shop)
    positions = shop.sql("SELECT * FROM positions")
    assert restored.order_worker.python("-c", KILLED_AFTER_120)().code == -signal.SIGKILL
    assert shop.value("SELECT count(*) FROM order_outcomes") == 100 + 120
    shop.assert_conserved()
    assert shop.sql("SELECT * FROM positions") == positions, "they go last"
    assert restored.restore("--execute")["outcomes_written"] == 300 - 120
    assert dump(shop) == restored.lost


def stock_is_lacking_and_a_user_gone(restored: Restored) -> None:
    """Both are listed, and nothing is written but with --ledger-only."""
    shop = restored.scene.shop
    shop.sql("DELETE FROM order_items USING orders WHERE order_id = orders.id AND user_id = 10")
    shop.sql("DELETE FROM orders WHERE user_id = 10")
    shop.sql("DELETE FROM users WHERE id = 10")
    shop.sql("UPDATE products SET stock_quantity = 7 WHERE id = $1", CHAIR)
    before = dump(shop)
    said = restored.restore()
    assert (said["refused"], said["users_gone"]) == (True, [10])
    ((shortage),) = said["shortages"]
    assert (shortage["product_id"], shortage["stock"]) == (CHAIR, 7)
    assert shortage["lacks"] == shortage["sold"] - 7 > 0
    refused = restored.order_worker.here("ledger", "restore", "--execute")
    refused.assert_one_line(
        1, f"product {CHAIR} lacks {shortage['lacks']}", "user 10 is gone", "--ledger-only"
    )
    assert dump(shop) == before

    answer = restored.order_worker.here("ledger", "restore", "--ledger-only").done().out
    assert "workers would sell them again" in answer
    done = restored.restore("--ledger-only", "--execute")
    assert (done["complete"], done["outcomes_written"], done["orders_written"]) == (True, 300, 0)
    after = dump(shop)
    assert after["order_outcomes"] == restored.lost["order_outcomes"]
    assert {**after, "order_outcomes": None} == {**before, "order_outcomes": None}


def test_other_bytes_are_listed_and_a_missing_outcome_keeps_its_partition_waiting(
    restored: Restored,
):
    scene, changed, published_twice = restored.scene, restored.ids[5], restored.ids[250]
    scene.shop.sql('UPDATE order_outcomes SET event = \'{"by":"hand"}\' WHERE order_id = $1', changed)
    (original,) = [m for m in scene.outcomes() if m.key == str(published_twice).encode()]
    assert original.value
    later = original.value.replace(b'"decided_at":"20', b'"decided_at":"21')
    topic = scene.topics.order_confirmed
    publish(scene.kafka, topic, [later, original.value], headers=original.headers, key=original.key)
    publish(scene.kafka, topic, [b"nobody's"])
    later = restored.restore("--from", "2100-01-01T00:00:00Z")
    assert (later["records"], later["missing"]) == (0, [])
    assert all("before --from" in p["then"] for p in later["partitions"])

    delete_records(scene.kafka, scene.topics.order_rejected, dict.fromkeys(range(4), -1))
    failed = restored.order_worker.here("ledger", "restore", "--execute", "--json")
    failed.assert_one_line(1, "the workers of all partitions wait for", "order-worker replay --topic")
    done = failed.document
    waiting = {p["partition"] for p in done["partitions"] if not p["moved"]}
    assert waiting == {row[4] for row in restored.lost["order_outcomes"] if row[1] == "rejected"}
    assert sum(p["unaccounted"] for p in done["partitions"]) == 50
    assert (done["outcomes_written"], done["orders_written"]) == (250, 250)
    scene.shop.assert_conserved()
    assert {d["order_id"] for d in done["differing"]} == {str(changed), str(published_twice)}
    assert (done["discrepancies"], done["records_foreign"]) == (2, 1)
    stored = {row[0]: row[1] for row in scene.shop.sql("SELECT order_id, event::text FROM order_outcomes")}
    assert stored[changed] == '{"by":"hand"}'
    assert stored[published_twice] == original.value.decode(), "the first decision stands"


def test_where_the_input_is_deleted_an_order_that_comes_again_is_not_decided_again(restored: Restored):
    scene = restored.scene
    delete_records(scene.kafka, scene.topics.order_placed, dict.fromkeys(range(4), -1))
    said = restored.restore()
    gone = {m["outcome"]: m["input_record_gone"] for m in said["missing"]}
    assert gone == {"confirmed": 250, "rejected": 50}
    assert restored.restore("--execute")["complete"]
    assert known(dump(scene.shop)) == known(restored.lost)
    assert dump(scene.shop)["orders"] == restored.lost["orders"]

    restored.place_again()
    assert known(dump(scene.shop)) == known(restored.lost)
    seen = Counter(letter.header("error.code") for letter in scene.dead_letters())
    # Of the orders that name no price, those that were confirmed are known again.
    assert set(seen) == {"not_json", "order_id_conflict"}
    assert seen["order_id_conflict"] == 150
    answer = restored.order_worker.here("reconcile").done().out
    assert "not judged: decided from records that are deleted by now" in answer


def known(content: Mapping[str, list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """The ledger's rows without the fingerprint and the source."""
    return [(*row[:2], *row[6:]) for row in content["order_outcomes"]]


def test_a_backup_from_before_the_first_order_is_filled_from_the_topics(restored: Restored):
    scene, shop = restored.scene, restored.scene.shop
    for table in ("order_items", "orders", "order_outcomes", "positions"):
        shop.sql(f"DELETE FROM {table}")
    shop.sql("UPDATE products SET stock_quantity = received_quantity")
    done = restored.restore("--execute")
    assert (done["outcomes_written"], {p["known_to"] for p in done["partitions"]}) == (400, {None})
    assert dump(shop) == restored.lost
    scene.remember_wrongly()
    restored.place_again()
    scene.assert_promises(restored.ids, dead_letters=1)


def test_a_withheld_outcome_published_after_the_backup_is_not_published_again(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({LAMP: 10_000})
    ids = [uuid4() for _ in range(5)]
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "4000")
    scene.place([order_value(*[line(LAMP)] * (200 if n == 2 else 1), order_id=i) for n, i in enumerate(ids)])
    worker = workers.start()
    scene.wait_until_drained()
    back_up(scene.shop)
    scene.shop.sql("CREATE TABLE withheld_backup AS TABLE withheld_outcomes")
    set_option(scene.kafka, scene.topics.order_confirmed, "max.message.bytes", "1000000")
    scene.place([order_value(line(LAMP), order_id=(last := uuid4()))])
    eventually(lambda: len(scene.confirmed()) == 6, 60)
    assert worker.stop() == 0

    restore_backup(scene.shop)
    scene.shop.sql("DELETE FROM withheld_outcomes")
    scene.shop.sql("INSERT INTO withheld_outcomes SELECT * FROM withheld_backup")
    rows = scene.shop.sql("SELECT order_id, published_at FROM withheld_outcomes")
    assert [tuple(row) for row in rows] == [(ids[2], None)]
    waiting = workers.start()
    waiting.wait_for_log("health, metrics and docs on")
    waiting.wait_for_log("order-worker ledger restore", 60)
    order_worker.here("ledger", "restore", "--execute").done()
    eventually(lambda: waiting.get("/readyz")[0] == 200, 60, lambda: waiting.get("/readyz")[1])
    scene.place([order_value(line(LAMP), order_id=(behind := uuid4()))])
    eventually(lambda: len(scene.confirmed()) == 7, 60)
    assert waiting.stop() == 0
    assert not scene.shop.value("SELECT count(*) FROM withheld_outcomes WHERE published_at IS NULL")
    scene.assert_promises([*ids, last, behind])
