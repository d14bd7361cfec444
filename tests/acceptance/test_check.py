"""`check`, as an upstream team calls it before it sends a file."""

import json
from pathlib import Path
from uuid import UUID, uuid4

from tests.support.builders import line, order_value
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers


def write(path: Path, *values: bytes) -> Path:
    path.write_bytes(b"\n".join(values))
    return path


def test_a_file_with_every_kind_of_line_is_reported_as_the_workers_then_decide(
    scene: Scene, workers: Workers, order_worker: OrderWorker, tmp_path: Path
):
    scene.shop.stock_up({1: 10, 2: 5, 3: 1_000_000_000})
    decided, twice, direct = uuid4(), uuid4(), uuid4()
    worker = workers.start()
    scene.place([order_value(line(1), order_id=decided)])
    scene.wait_until_drained()
    assert worker.stop() == 0
    scene.shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES ($1, 1, 2.5, now())", direct
    )
    values = [
        order_value(line(1, 6)),  # 1: takes 6 of the 9 that are left
        order_value(line(1, 4)),  # 2: 3 are left
        order_value(line(1, 3, "2.50")),  # 3: and this takes them
        order_value(line(1, 1), line(2, 3), line(2, 3)),  # 4: two reasons
        b"",
        order_value(line(1, 1), user_id=99),  # 6: two reasons
        order_value(line(2, 1), line(77, 1), line(2, 1, "2.55")),  # 7: two reasons
        order_value(line(2, 0)),  # 8
        b'{"order_id": 7',  # 9
        order_value(line(1), order_id=decided),  # 10: duplicate of the ledger's
        order_value(line(2), order_id=decided),  # 11: conflict with it
        order_value(line(2), order_id=twice, extra=1),  # 12
        order_value(line(2), order_id=twice),  # 13: duplicate of line 12
        order_value(line(2, 2), order_id=twice),  # 14: conflict with it
        order_value(line(2), order_id=direct),  # 15
        order_value(line(3), padding="x" * 300_000),  # 16
        order_value(*[line(3, 1_000_000)] * 1_000),  # 17: confirmed, 2.5e9
    ]
    path = write(tmp_path / "orders.jsonl", *values)
    before = scene.shop.sql("SELECT * FROM products ORDER BY id")

    result = order_worker("check", str(path))
    assert (result.code, result.err) == (1, "")
    *lines, summary = result.out.splitlines()
    assert [text.removeprefix(f"{path}:") for text in lines] == [
        "2: items.0.quantity: product 1: 4 requested, 3 available (insufficient_stock)",
        "4: items.0.quantity: product 1: 1 requested, 0 available (insufficient_stock)",
        "4: items.1.quantity: product 2: 6 requested, 5 available (insufficient_stock)",
        "6: user_id: there is no user 99 (unknown_user)",
        "6: items.0.quantity: product 1: 1 requested, 0 available (insufficient_stock)",
        "7: items.2.unit_price: product 2 costs 2.50, not 2.55 (price_changed)",
        "7: items.1.product_id: there is no product 77 (unknown_product)",
        "8: items.0.quantity: a quantity is an integer from 1 to 1000000 (invalid_order)",
        f"9: {lines[8].split(': ', 1)[1]}",
        "11: items.0.product_id: another order of this id was decided, from"
        f" {scene.topics.order_placed}-{source_partition(scene, decided)}@0: items.0.product_id differs from"
        " the decided order's; that decision stands (order_id_conflict)",
        "14: order_id: another order of this id stands in line 12 (order_id_conflict)",
        "15: order_id: this id belongs to an order that was not placed through Kafka (order_id_taken)",
        f"16: {len(values[15])} bytes, at most 262144 are allowed (too_large)",
    ]
    assert lines[8].endswith("(not_json)")
    assert summary == (
        "16 orders: 4 would be confirmed, 4 would be rejected (3 insufficient_stock, 1 price_changed,"
        " 1 unknown_product, 1 unknown_user), 2 duplicates, 3 conflicts, 3 invalid; 1 unknown field ignored"
    )
    assert scene.shop.sql("SELECT * FROM products ORDER BY id") == before

    document = order_worker.here("check", "--json", str(path)).document
    assert len(document["findings"]) == 13
    assert document["findings"][0] == {
        "line": 2,
        "order_id": json.loads(values[1])["order_id"],
        "fate": "rejected",
        "code": "insufficient_stock",
        "path": "items.0.quantity",
        "message": "product 1: 4 requested, 3 available",
    }
    assert document["summary"]["fates"] == {
        "confirmed": 4,
        "rejected": 4,
        "duplicate": 2,
        "conflict": 3,
        "invalid": 3,
    }

    # And so it is: the workers decide these very lines.
    workers.start()
    scene.place([value for value in values if value], partition=0)
    scene.wait_until_drained()
    outcomes = scene.shop.sql(
        "SELECT outcome, count(*) FROM order_outcomes WHERE order_id <> $1 GROUP BY 1 ORDER BY 1", decided
    )
    assert [tuple(row) for row in outcomes] == [("confirmed", 4), ("rejected", 4)]
    assert len(scene.dead_letters()) == 6


def source_partition(scene: Scene, order_id: UUID) -> int:
    return int(scene.shop.value("SELECT source_partition FROM order_outcomes WHERE order_id = $1", order_id))


def test_the_contract_alone_needs_no_server(tmp_path: Path):
    order_worker = OrderWorker(
        {
            "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "ORDER_WORKER_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/nowhere",
        }
    )
    same = order_value()
    good = write(tmp_path / "good.jsonl", order_value(), same, same)
    result = order_worker.here("check", "--contract-only", str(good))
    assert result.done().out == "3 orders: 2 keep the contract, 1 duplicate\n"
    bad = order_worker("check", "--contract-only", "-", stdin=order_value(line(1, -1)))
    assert bad.code == 1
    assert bad.out.startswith("standard input:1: items.0.quantity: ")
    order_worker.here("check", str(good)).assert_one_line(1, "cannot reach PostgreSQL")


def test_a_good_file_ends_with_0(scene: Scene, order_worker: OrderWorker, tmp_path: Path):
    scene.shop.stock_up({1: 10})
    good = write(tmp_path / "orders.jsonl", order_value(), order_value())
    result = order_worker.here("check", str(good))
    assert (result.code, result.out) == (0, "2 orders: 2 would be confirmed\n")
    assert order_worker("check", "--json", "-", stdin=order_value()).document == {
        "version": 1,
        "findings": [],
        "summary": {"orders": 1, "fates": {"confirmed": 1}, "reasons": {}, "unknown_fields": 0},
    }


def test_what_cannot_be_checked_is_one_line(tmp_path: Path):
    check = OrderWorker({}).of("check").here
    empty = check("--json", str(write(tmp_path / "empty.jsonl", b"", b"  ")))
    assert (empty.code, empty.out, empty.message) == (1, "", f"{tmp_path}/empty.jsonl holds no orders")
    check("no-such-file.jsonl").assert_one_line(2)
