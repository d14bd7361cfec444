"""Tables that somebody alters beside a running worker."""

import json
from uuid import UUID

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers


@pytest.mark.guarantee_1
@pytest.mark.guarantee_3
def test_tables_altered_under_a_worker_are_named_until_they_are_repaired(scene: Scene, workers: Workers):
    """First one that PostgreSQL complains of, then one that it would round amounts for in silence."""
    scene.shop.stock_up({1: 1_000}, price="3.00")  # the rows that are there stay as they are
    worker = workers.start(retry_max_seconds="1").wait_until_ready()
    values = [order_value(line(1)) for _ in range(6)]
    scene.place(values[:3])
    scene.wait_until_drained()
    scene.shop.sql("ALTER TABLE orders RENAME TO away")
    scene.place(values[3:])
    wait_until_named(worker, "lacks orders")
    scene.shop.sql("ALTER TABLE away ALTER total_amount TYPE numeric(14,0)")
    scene.shop.sql("ALTER TABLE away RENAME TO orders")
    wait_until_named(worker, "ALTER TABLE orders ALTER total_amount TYPE numeric(14,2)")
    assert scene.shop.value("SELECT count(*) FROM order_outcomes") == 3
    scene.shop.sql("ALTER TABLE orders ALTER total_amount TYPE numeric(14,2)")
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200, 20, lambda: worker.get("/readyz")[1])
    scene.assert_promises(UUID(json.loads(value)["order_id"]) for value in values)


def wait_until_named(worker: WorkerProcess, what: str) -> None:
    eventually(
        lambda: worker.get("/readyz")[0] == 503 and what in worker.get("/readyz")[1],
        30,
        lambda: f"{worker.get('/readyz')} {worker.log[-2000:]}",
    )
