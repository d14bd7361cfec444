"""`db upgrade` and `db downgrade`, beside workers and before an older version."""

from uuid import uuid4

import asyncpg

from db import migrate
from tests.support.builders import line, order_value
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers

BEFORE, HEAD = (script.revision for script in migrate.known_revisions()[-2:])


def test_a_running_worker_outlives_one_revision_back_and_forth(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    scene.shop.stock_up({1: 100})
    order_ids = [uuid4() for _ in range(6)]
    worker = workers.start().wait_until_ready()
    scene.place([order_value(line(1), order_id=one) for one in order_ids[:2]])
    scene.wait_until_drained()

    assert (
        f"went back from {HEAD} to revision {BEFORE}"
        in order_worker("db", "downgrade", BEFORE, "--execute").out
    )
    scene.place([order_value(line(1), order_id=one) for one in order_ids[2:4]])
    result = order_worker("db", "upgrade")
    scene.place([order_value(line(1), order_id=one) for one in order_ids[4:]])
    scene.wait_until_drained()

    assert f"upgraded from {BEFORE} to revision {HEAD}" in result.out
    scene.assert_promises(order_ids)
    assert worker.stop() == 0
    assert "nothing is missing" in order_worker("reconcile").out


def test_the_upgrade_of_a_shop_names_each_revision_and_how_long_others_waited(order_worker: OrderWorker):
    order_worker("db", "downgrade", "0003", "--execute")
    lines = order_worker("db", "upgrade").out.splitlines()
    assert lines[1].split() == ["took", "s", "locked", "s", "tries"]
    assert [row.split()[0] for row in lines[2:-1]] == [
        script.revision for script in migrate.known_revisions()[3:]
    ]
    assert {len(row) for row in lines[1:-1]} == {len(lines[1])}
    assert "workers waited" in lines[-1]


def test_going_back_shows_the_statements_first_and_changes_nothing(order_worker: OrderWorker):
    shown = order_worker("db", "downgrade", "0006").done().out
    assert "DROP TABLE withheld_outcomes" in shown
    assert "nothing is changed yet: order-worker db downgrade 0006 --execute" in shown
    assert f"is at revision {HEAD} already" in order_worker("db", "upgrade").out


def test_what_is_no_earlier_revision_is_refused_and_names_those_there_are(order_worker: OrderWorker):
    order_worker.here("db", "downgrade", "7").assert_one_line(2, "there is no revision 7", "0001", HEAD)
    order_worker.here("db", "downgrade", HEAD).assert_one_line(2, f"at revision {HEAD}", "nothing to go back")


async def test_a_session_that_holds_a_table_is_named_with_the_next_step(
    order_worker: OrderWorker, database_url: str
):
    order_worker("db", "downgrade", "0003", "--execute")
    holder = await asyncpg.connect(database_url, server_settings={"application_name": "a report"})
    async with holder.transaction():
        await holder.fetch("SELECT FROM positions")
        refused = order_worker("db", "upgrade", "--lock-timeout", "0.1", "--tries", "2")
        back = order_worker("db", "downgrade", "0002", "--execute", "--lock-timeout", "0.1", "--tries", "2")
    await holder.close()
    back.assert_refused(1, "a report", "order-worker db downgrade")
    refused.assert_refused(1, "0004 got no lock in 2 tries", "a report", "order-worker db upgrade")
