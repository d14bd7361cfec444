"""What `ledger restore` prints for a person and a script."""

import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic_core import to_json
from rich.console import Console

from db.reconciliation.restoration import DifferingRow, MissingCount, Shortage
from worker.operations.restore.lost_outcomes import Behind
from worker.operations.restore.reading import OutcomesRead
from worker.operations.restore.restore import Restoration, RestoreRequest, WaitingPartition
from worker.operations.restore.terminal import RestoreReport, document, failure, report, show
from worker.operations.restore.writing import WrittenOrders
from worker.settings import Settings

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SHORTAGES = [Shortage(3, 20, 5), Shortage(4, 1, None)]


ALL = RestoreRequest()


def found(asked: RestoreRequest = ALL, **changed: Any) -> RestoreReport:
    restoration = Restoration(
        asked,
        OutcomesRead(records=400, in_ledger=100, missing=300, foreign=2, cut=["order-rejected-0"]),
        {"confirmed": MissingCount("confirmed", 250, NOW, NOW, with_source=240, with_order=30)},
        [WaitingPartition(Behind(0, 27, 105)), WaitingPartition(Behind(2, None, 99), 7, 31)],
        sold=(3, 800),
    )
    for name, value in changed.items():
        setattr(restoration, name, value)
    return report(Settings(_env_file=None), restoration)


def screen_of(of: RestoreReport) -> str:
    out = io.StringIO()
    show(Console(file=out, width=200, highlight=False), of)
    return out.getvalue()


def test_a_rehearsal_shows_what_is_missing_and_how_to_write_it():
    shown = screen_of(found(RestoreRequest(start=NOW)))
    assert "nothing was changed" in shown
    assert "400 outcomes published since 2026-11-23 10:00:00.000Z" in shown
    assert "earlier outcomes in order-rejected-0" in shown
    assert "2 records that no worker wrote are left out" in shown
    assert "Where the input record is gone, the fingerprint is made up" in shown
    assert "220 orders are written as pending, and 800 pieces of 3 products taken" in shown
    assert "To do it: order-worker ledger restore --from 2026-11-23T10:00:00Z --orders --execute" in shown


def test_rows_alone_leave_goods_in_stock_that_are_sold_and_it_says_so():
    shown = screen_of(found(RestoreRequest(orders=False)))
    assert "220 confirmed orders are in no row of `orders`" in shown
    assert "order-worker ledger restore --ledger-only --execute" in shown


def test_each_obstacle_is_listed_with_the_way_out():
    refused = found(shortages=SHORTAGES, users_gone=[9])
    shown = screen_of(refused)
    assert "With --execute it would be refused: product 3 lacks 15: put into stock" in shown
    assert "product 4 is gone: create or import them again; user 9 is gone" in shown
    assert failure(refused, execute=False) is None
    assert (failure(refused, execute=True) or "").startswith("nothing was changed: product 3 lacks 15")
    assert not found(RestoreRequest(orders=False), shortages=SHORTAGES).refused


def test_a_partition_that_waits_on_fails_the_command_with_the_next_step():
    waiting = [WaitingPartition(Behind(0, 27, 105), moved=True), WaitingPartition(Behind(2, 0, 99), 7, 31)]
    done = found(RestoreRequest(execute=True), written=WrittenOrders(250, 220), waiting=waiting)
    assert not done.complete
    why = failure(done, execute=True) or ""
    assert "wait for order-placed-2" in why
    assert "order-worker replay --topic order-placed:2 --to-offset 31 --execute" in why
    waiting[1] = WaitingPartition(Behind(2, 0, 99), moved=True)
    whole = found(RestoreRequest(execute=True), written=WrittenOrders(250, 220), waiting=waiting)
    assert failure(whole, execute=True) is None
    assert "250 ledger rows and 220 orders were written" in screen_of(whole)


def test_one_that_moved_meanwhile_is_named():
    waiting = [WaitingPartition(Behind(0, 27, 105), moved=False)]
    done = found(RestoreRequest(execute=True), written=WrittenOrders(), waiting=waiting)
    assert "has moved meanwhile: run this again" in (failure(done, execute=True) or "")


def test_where_nothing_is_missing_there_is_nothing_to_do():
    assert "there is nothing to restore" in screen_of(found(missing={}, waiting=[], sold=(0, 0)))


def test_what_differs_is_listed_up_to_a_limit():
    rows = [DifferingRow(uuid4(), "order-confirmed", 0, n, "the ledger has other bytes") for n in range(30)]
    shown = screen_of(found(differing=rows, differing_count=5_000))
    assert "order-confirmed-0@19" in shown
    assert "order-confirmed-0@20" not in shown
    assert "… and 4,980 more" in shown


def test_a_script_gets_all_of_it():
    answer = json.loads(to_json(document(found(shortages=SHORTAGES))))
    assert answer["shortages"][1] == {"product_id": 4, "sold": 1, "stock": None, "lacks": 1}
    assert answer["partitions"][1]["first_unaccounted"] == 31
    assert answer["missing"][0]["order_there"] == 30
