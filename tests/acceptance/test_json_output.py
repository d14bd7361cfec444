"""What --json prints in a real run is as its schema in docs/json says, and tables fit a narrow terminal."""

import json
import re
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.json_schema import faults
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.terminal import shown_at
from tests.support.worker_process import Workers


@pytest.fixture
def decided(scene: Scene, workers: Workers) -> list[UUID]:
    """An order that was confirmed, one that was rejected, and beside them a record that is none."""
    scene.shop.stock_up({1: 5})
    ids = [uuid4(), uuid4()]
    scene.place([order_value(line(1), order_id=ids[0]), order_value(line(1, 900), order_id=ids[1]), b"{"])
    worker = workers.start()
    scene.wait_until_drained()
    worker.stop()
    return ids


def test_each_document_is_as_its_schema_says(decided: list[UUID], order_worker: OrderWorker, tmp_path: Path):
    path = tmp_path / "orders.jsonl"
    path.write_bytes(order_value(line(1)) + b"\n" + order_value(line(77)) + b"\n{}\n")
    products = tmp_path / "products.csv"
    products.write_text("id,price\n1,3.00\n")
    calls = {
        "lag --interval 0.2": "lag",
        f"explain {decided[0]}": "explain",
        f"explain --scan all {decided[1]}": "explain",
        f"check {path}": "check",
        "dead-letters list": "dead-letters-list",
        "dead-letters redrive": "dead-letters-redrive",
        "dead-letters settle --code not_json": "dead-letters-settle",
        "orders list": "orders-list",
        "orders reopen --reason insufficient_stock": "orders-reopen",
        f"catalog import {products}": "catalog-import",
        "replay --to-earliest": "replay",
        "republish --all": "republish",
        "republish --all --execute": "republish",
        "reconcile": "reconcile",
        "ledger restore": "ledger-restore",
        "replay --to-earliest --execute": "replay",  # the last one: the group is back at the start
    }
    for call, name in calls.items():
        said = order_worker.here(*call.split(), "--json")
        assert said.out, (call, said)
        assert faults(said.document, name) == [], call
        assert "version" in str(said.document)[:20], call
    (group,) = order_worker.here("dead-letters", "list", "--json").document
    shown = order_worker.here("dead-letters", "show", group["sample"], "--json")
    assert faults(shown.document, "dead-letters-show") == []
    (letter,) = order_worker("dead-letters", "export", "--out", "-").out.splitlines()
    assert faults(json.loads(letter), "dead-letters-export") == []


def test_tables_are_whole_at_60_columns_and_cut_no_id(
    decided: list[UUID], order_worker: OrderWorker, scene: Scene
):
    calls = {
        "lag": "drains in",
        f"explain {decided[0]}": str(decided[0]),
        "dead-letters list": "not_json",
        "republish --all": str(decided[0]),
        "reconcile": "confirmed",
        "replay --to-earliest": "partition",
        "topics create": scene.topics.dead_letter,
    }
    for call, text in calls.items():
        code, shown = shown_at(order_worker, 60, call.split())
        assert code == 0, shown
        assert text in shown, shown
        rows = [one for one in shown.splitlines() if re.search(r"\S  +\S", one)]
        assert rows, shown
        assert [one for one in rows if len(one) > 60] == []
