"""`ledger restore`: a database that lost its last hours gets them back from the topics, byte for byte."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.builders import line, order_value
from tests.deadline import eventually
from tests.order_worker import OrderWorker, order_worker_in
from tests.promises import Scene
from tests.shop import Shop
from tests.subscriber import delete_records, publish, remember_wrongly
from tests.worker_process import Workers, workers_in
from worker.local.postgres import create_database, drop_database
from worker.local.services import Services

LAMP, SCARCE, CHAIR = 1, 2, 3
TABLES = {
    "order_outcomes": "order_id, outcome, fingerprint, source_topic, source_partition, source_offset,"
    " event::text, decided_at",
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

    def drain(self) -> None:
        worker = self.workers.start()
        self.scene.wait_until_drained()
        assert worker.stop() == 0


@pytest.fixture
def backup(services: Services, scene: Scene) -> Iterator[str]:
    """The name of the database that the backup becomes."""
    name = f"backup_{uuid4().hex[:12]}"
    yield name
    drop_database(services.database_url, name)


def drain(scene: Scene, workers: Workers) -> None:
    worker = workers.start(batch_max_records="100")
    scene.wait_until_drained()
    assert worker.stop() == 0


@pytest.fixture
def restored(
    services: Services, scene: Scene, workers: Workers, backup: str, env: dict[str, str], tmp_path: Any
) -> Iterator[Restored]:
    """400 orders were decided and published, and the database restored as it was after the first 100."""
    scene.shop.stock_up({LAMP: 10_000, SCARCE: 150, CHAIR: 5_000})
    ids = [uuid4() for _ in range(400)]
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
    scene.place(orders[:100])
    drain(scene, workers)
    create_database(services.database_url, backup, template=scene.shop.database_url.rpartition("/")[2])
    scene.place([*orders[100:], orders[0], orders[399], b"no order"])
    drain(scene, workers)
    assert (len(scene.confirmed()), len(scene.rejected())) == (350, 50)
    url = scene.shop.database_url.rpartition("/")[0] + "/" + backup
    environment = {**env, "ORDER_WORKER_DATABASE_URL": url}
    (tmp_path / "after").mkdir()
    with workers_in(environment, tmp_path / "after") as after, order_worker_in(environment) as command:
        now = replace(scene, shop=Shop(url))
        yield Restored(now, after, command, dump(scene.shop), orders, ids)


def test_all_that_was_lost_is_there_again_byte_for_byte_and_nothing_is_decided_twice(restored: Restored):
    scene, before = restored.scene, dump(restored.scene.shop)
    said = restored.restore()
    assert dump(scene.shop) == before, "a rehearsal changes nothing"
    assert {m["outcome"]: m["orders"] for m in said["missing"]} == {"confirmed": 250, "rejected": 50}
    assert (said["records"], said["records_in_ledger"], said["records_missing"]) == (400, 100, 300)
    assert [m["input_record_gone"] for m in said["missing"]] == [0, 0]
    assert all(p["then"] == "would go on" for p in said["partitions"])
    assert said["partitions"]
    assert said["next_command"] == "order-worker ledger restore --orders --execute"

    done = restored.restore("--orders", "--execute")
    assert (done["complete"], done["outcomes_written"], done["orders_written"]) == (True, 300, 250)
    assert dump(scene.shop) == restored.lost
    told = restored.order_worker.here("reconcile").done().out
    assert "nothing is missing: each of 403 records has exactly one result" in told
    again = restored.restore("--execute")
    assert (again["missing"], again["partitions"], again["complete"]) == ([], [], True)

    outcomes = scene.outcomes()
    scene.place(restored.orders)
    restored.drain()
    assert dump(scene.shop) == restored.lost
    assert scene.outcomes() == outcomes, "the same orders again are duplicates"
    scene.assert_promises(restored.ids, dead_letters=1)


def test_a_worker_that_runs_meanwhile_decides_nothing_of_it_anew(restored: Restored):
    worker = restored.workers.start().wait_until_ready()
    restored.restore("--execute")
    restored.scene.place(restored.orders)
    restored.scene.wait_until_drained()
    assert worker.stop() == 0
    assert dump(restored.scene.shop) == restored.lost
    restored.scene.assert_promises(restored.ids, dead_letters=1)


def test_killed_half_way_it_is_run_again_and_each_order_is_written_once(
    restored: Restored, monkeypatch: pytest.MonkeyPatch
):
    program = (
        "import asyncio, os, signal\n"
        "from worker.operations import restore_writing\n"
        "from worker.operations.restore_ledger import Asked, restore\n"
        "from worker.settings import read_settings\n"
        "restore_writing.PORTION = 40\n"
        "left = [3]\n"
        "def written():\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(restore(read_settings(), Asked(execute=True), print, written=written))\n"
    )
    assert restored.order_worker.python("-c", program)().code == -signal.SIGKILL
    assert restored.scene.shop.value("SELECT count(*) FROM order_outcomes") == 100 + 3 * 40
    restored.scene.shop.assert_conserved()
    assert restored.restore("--execute")["outcomes_written"] == 300 - 3 * 40
    assert dump(restored.scene.shop) == restored.lost


def test_products_that_lack_stock_and_users_that_are_gone_are_named_and_nothing_is_written(
    restored: Restored,
):
    shop = restored.scene.shop
    shop.sql("UPDATE products SET stock_quantity = 7, received_quantity = 507 WHERE id = $1", CHAIR)
    shop.sql("INSERT INTO users (id, email, full_name) VALUES (99, 'x@example.com', 'X')")
    before = dump(shop)
    said = restored.restore()
    assert (said["refused"], said["users_gone"]) == (True, [])
    ((shortage),) = said["shortages"]
    assert (shortage["product_id"], shortage["stock"]) == (CHAIR, 7)
    assert shortage["lacks"] == shortage["sold"] - 7 > 0
    refused = restored.order_worker.here("ledger", "restore", "--execute")
    refused.assert_one_line(1, f"product {CHAIR} lacks", "--ledger-only")
    assert dump(shop) == before

    done = restored.restore("--ledger-only", "--execute")
    assert (done["complete"], done["outcomes_written"], done["orders_written"]) == (True, 300, 0)
    assert dump(shop)["order_outcomes"] == restored.lost["order_outcomes"]
    assert dump(shop)["products"] == before["products"]


def test_rows_alone_that_were_lost_come_back_beside_their_orders(scene: Scene, restored: Restored):
    whole = dump(scene.shop)
    scene.shop.sql("DELETE FROM order_outcomes WHERE source_offset % 2 = 1")
    command = OrderWorker({**restored.order_worker.env, "ORDER_WORKER_DATABASE_URL": scene.shop.database_url})
    said = command.here("ledger", "restore", "--json").done().document
    assert (said["orders_missing"], said["partitions"]) == (0, [])
    command.here("ledger", "restore", "--execute").done()
    assert dump(scene.shop) == whole


def test_a_row_with_other_bytes_than_what_was_published_is_listed_and_left(restored: Restored):
    shop = restored.scene.shop
    changed, published_twice = restored.ids[5], restored.ids[250]
    shop.sql('UPDATE order_outcomes SET event = \'{"by":"hand"}\' WHERE order_id = $1', changed)
    (original,) = [m for m in restored.scene.outcomes() if m.key == str(published_twice).encode()]
    assert original.value
    later = original.value.replace(b'"decided_at":"20', b'"decided_at":"21')
    headers = list(original.headers)
    topic = restored.scene.topics.order_confirmed
    publish(restored.scene.kafka, topic, [later, original.value], headers=headers, key=original.key)
    publish(restored.scene.kafka, topic, [b"nobody's"])
    done = restored.restore("--execute")
    assert {d["order_id"] for d in done["differing"]} == {str(changed), str(published_twice)}
    assert (done["discrepancies"], done["records_foreign"]) == (2, 1)
    stored = dict(shop.sql("SELECT order_id, event::text FROM order_outcomes"))
    assert stored[changed] == '{"by":"hand"}'
    assert stored[published_twice] == original.value.decode(), "the first decision stands"


def test_where_the_input_is_deleted_an_order_that_comes_again_is_decided_by_nobody(restored: Restored):
    scene = restored.scene
    delete_records(scene.kafka, scene.topics.order_placed, dict.fromkeys(range(4), -1))
    said = restored.restore()
    assert {m["outcome"]: m["input_record_gone"] for m in said["missing"]} == {
        "confirmed": 250,
        "rejected": 50,
    }
    assert restored.restore("--execute")["complete"]
    rows = {row[0]: row[:2] + row[6:] for row in restored.lost["order_outcomes"]}
    assert {row[0]: row[:2] + row[6:] for row in dump(scene.shop)["order_outcomes"]} == rows
    outcomes = scene.outcomes()
    scene.place(restored.orders)
    restored.drain()
    assert scene.outcomes() == outcomes
    codes = [letter.header("error.code") for letter in scene.dead_letters()[1:]]
    assert set(codes) <= {"order_id_conflict", "invalid_order", "not_json"}
    scene.shop.assert_conserved()


def test_a_partition_waits_on_while_a_committed_order_is_nowhere_to_be_found(restored: Restored):
    scene, topics = restored.scene, restored.scene.topics
    delete_records(scene.kafka, topics.order_rejected, dict.fromkeys(range(4), -1))
    failed = restored.order_worker.here("ledger", "restore", "--execute")
    failed.assert_one_line(1, "the workers still wait in", "order-worker replay --topic")
    assert restored.scene.shop.value("SELECT count(*) FROM order_outcomes") == 350
    assert len(dump(scene.shop)["orders"]) == len(restored.lost["orders"])
    with suppress(AssertionError):
        scene.shop.assert_conserved()


def test_from_a_time_on_only_what_was_published_since_is_read(restored: Restored):
    published = sorted(m.timestamp for m in restored.scene.outcomes())
    assert published
    said = restored.restore("--from", "2100-01-01T00:00:00Z")
    assert (said["records"], said["missing"]) == (0, [])
    assert all("before --from" in p["then"] for p in said["partitions"])
    refused = restored.order_worker.here("ledger", "restore", "--from", "yesterday")
    refused.assert_refused(2, "--from yesterday: write a time like")


def test_a_backup_of_before_the_first_order_is_filled_as_well(restored: Restored, scene: Scene):
    shop = restored.scene.shop
    for table in ("order_items", "orders", "order_outcomes", "positions"):
        shop.sql(f"DELETE FROM {table}")
    shop.sql("UPDATE products SET stock_quantity = received_quantity")
    done = restored.restore("--execute")
    assert (done["outcomes_written"], {p["known_to"] for p in done["partitions"]}) == (400, {None})
    assert dump(shop) == restored.lost
    eventually(lambda: scene.lag() == 0)
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 1})
    restored.drain()
    restored.scene.assert_promises(restored.ids, dead_letters=1)
