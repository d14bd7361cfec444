"""`ledger prune`: the events of old orders go, and whatever comes of these orders later stays as it was."""

import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.order_worker import OrderWorker, ended
from tests.support.promises import Scene
from tests.support.roles import as_role
from tests.support.topic_changes import delete_records, set_option
from tests.support.worker_process import WorkerProcess, Workers

HOUR_MS = 60 * 60 * 1_000
AGE = timedelta(hours=3)
BEFORE = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
PRICE = "2.50"
KILLED_IN_THE_THIRD_TRANSACTION = """
import asyncio, os, signal, sys
from datetime import datetime
from db.worker import pruning
from worker.operations.prune.prune import PruneRequest, prune as operation
from worker.settings import read_settings
left, prune = [3], pruning.prune
async def killed(session, rows):
    pruned = await prune(session, rows)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return pruned
pruning.prune = killed
asyncio.run(operation(read_settings(), PruneRequest(datetime.fromisoformat(sys.argv[1]), True, None, True)))
"""


@dataclass(frozen=True)
class Old:
    """Orders that were decided long ago, whose records are gone; and two whose records are still there."""

    scene: Scene
    workers: Workers
    worker: WorkerProcess
    order_worker: OrderWorker
    priced: UUID
    plain: UUID
    mixed: UUID
    rejected: UUID
    last: UUID

    def prune(self, *arguments: str) -> Any:
        done = self.order_worker.here("ledger", "prune", "--before", BEFORE, *arguments, "--json").done()
        return done.document

    def states(self, *arguments: str) -> dict[str, int]:
        return {one["state"]: one["rows"] for one in self.prune(*arguments)["states"]}

    def without_event(self) -> set[UUID]:
        rows = self.scene.shop.sql("SELECT order_id FROM order_outcomes WHERE event IS NULL")
        return {row["order_id"] for row in rows}

    def outcomes(self) -> Counter[tuple[bytes | None, bytes | None]]:
        return Counter((m.key, m.value) for m in self.scene.outcomes())


@pytest.fixture
def old(scene: Scene, workers: Workers, order_worker: OrderWorker) -> Old:
    scene.shop.stock_up({1: 100, 2: 100})
    priced, plain, mixed, rejected = ids = [uuid4() for _ in range(4)]
    worker = workers.start().wait_until_ready()
    # Of a partition's last two batches Kafka may lose the offsets.
    last = uuid4()
    for some in (values_of(ids), [order_value()], [order_value(order_id=last)]):
        scene.place(some, partition=0)
        scene.wait_until_drained()
    # As if all had been decided hours ago.
    scene.shop.sql("UPDATE order_outcomes SET decided_at = decided_at - $1::interval", AGE)
    set_option(scene.kafka, scene.topics.order_placed, "retention.ms", str(HOUR_MS))
    delete_records(scene.kafka, scene.topics.order_placed, {0: 4})
    return Old(scene, workers, worker, order_worker, priced, plain, mixed, rejected, last)


def values_of(ids: Iterable[UUID], *, turned: bool = False) -> list[bytes]:
    priced, plain, mixed, rejected = ids
    step = -1 if turned else 1
    return [
        order_value(*[line(1, 1, PRICE), line(2, 3, PRICE)][::step], order_id=priced),
        order_value(*[line(1), line(2, 2)][::step], order_id=plain),
        order_value(*[line(1, 1, PRICE), line(2)][::step], order_id=mixed),
        order_value(*[line(1), line(77)][::step], order_id=rejected),
    ]


def test_a_pruned_order_stays_decided_whatever_comes_again(old: Old):
    scene, ids = old.scene, [old.priced, old.plain, old.mixed, old.rejected]
    outcomes, stock = old.outcomes(), scene.shop.stock()
    assert old.states() == {"prunable": 4, "in_topic": 2}
    assert old.without_event() == set(), "that was a rehearsal"
    done = old.prune("--execute")
    assert (done["executed"], done["pruned"], old.without_event()) == (True, 4, set(ids))
    assert old.states("--execute") == {"pruned": 4, "in_topic": 2}

    placed_again(old, ids)
    assert old.outcomes() == outcomes
    assert scene.shop.stock() == stock
    check_reports_of(old)
    rewound(old)
    scene.shop.assert_conserved()


def placed_again(old: Old, ids: list[UUID]) -> None:
    """As they were, with their lines turned, and with other content."""
    before = old.worker.metric("order_worker_orders_duplicate_total").get("", 0)
    mixed = 2
    turned = values_of(ids, turned=True)
    del turned[mixed]  # nothing shows its lines any more
    conflict = order_value(line(1, 9), order_id=old.plain)
    old.scene.place([*values_of(ids), *turned, conflict], partition=0)
    old.scene.place(values_of(ids), partition=2)
    old.scene.wait_until_drained()
    letters = [(m.key, m.header("error.code")) for m in old.scene.dead_letters()]
    assert [code for _, code in letters] == ["order_id_conflict"]
    eventually(
        lambda: old.worker.metric("order_worker_orders_duplicate_total").get("", 0) - before == 4 + 3 + 4, 10
    )


def check_reports_of(old: Old) -> None:
    """Each command and page shows what is left, and that the rest was pruned."""
    run = old.order_worker.here
    for order_id, words in ((old.priced, "Confirmed at "), (old.rejected, "its reasons were pruned")):
        said = run("explain", str(order_id), "--json").done().document
        assert words in said["summary"]
        assert said["facts"]["decision"]["pruned"]
        status, body = old.worker.get(f"/outcomes/{order_id}")
        assert (status, '"pruned"' in body) == (410, True)
        assert "its event was pruned" in old.worker.get(f"/explain/{order_id}")[1]
    assert old.worker.get(f"/outcomes/{old.last}")[0] == 200
    run("reconcile").done()
    listed = run("orders", "list", "--json").done().document["orders"]
    assert {one["order_id"] for one in listed if one["pruned"]} == {str(i) for i in old.without_event()}
    assert "pruned" in run("orders", "list").done().out
    run("republish", "--order-id", str(old.plain)).assert_refused(
        1, "the events of 1 such outcomes were pruned"
    )
    assert run("republish", "--all", "--json").done().document["pruned"] == 4


def rewound(old: Old) -> None:
    """Publishes again what is there, and of what was pruned nothing, also where its record is back."""
    scene, before = old.scene, old.outcomes()
    assert old.worker.stop() == 0
    old.scene.shop.sql("UPDATE order_outcomes SET event = NULL WHERE source_offset = 4")
    scene.rewind("--to-earliest")
    old.workers.start()
    scene.wait_until_drained()
    assert [key for key, _ in (old.outcomes() - before).elements()] == [str(old.last).encode()]


def test_what_may_not_be_pruned_yet_or_by_this_role_is_refused(old: Old, worker_role: str):
    run = old.order_worker.of("ledger", "prune", "--before").here
    now = datetime.now(UTC)
    run((now - timedelta(minutes=50)).isoformat(), "--execute").assert_refused(
        1, f"{old.scene.topics.order_placed} has retention.ms=3600000", "is the latest time"
    )
    run((now + timedelta(days=1)).isoformat()).assert_refused(1, "is in the future")
    assert "the time zone is missing" in run("2026-01-01T00:00:00").err
    assert run(BEFORE, "--rate", "nan").code == 2
    url = old.scene.shop.database_url
    if (as_worker := as_role(url, worker_role)) != url:
        run(BEFORE, "--execute", ORDER_WORKER_DATABASE_URL=as_worker).assert_refused(
            1, "lacks UPDATE on order_outcomes: GRANT UPDATE ON order_outcomes TO worker_"
        )
    # Nobody knows how far another group is.
    foreign = run(BEFORE, "--json", ORDER_WORKER_GROUP_ID="somebody-else").done().document
    assert {one["state"]: one["rows"] for one in foreign["states"]} == {
        "not_committed": 4,
        "in_topic": 2,
    }
    set_option(old.scene.kafka, old.scene.topics.order_placed, "retention.ms", "-1")
    assert old.states()["prunable"] == 4, "what is gone is gone"
    assert old.without_event() == set()


def test_stopped_and_killed_beside_a_worker_it_continues_with_what_is_left(
    scene: Scene, workers: Workers, order_worker: OrderWorker
):
    """And the orders that come meanwhile are decided and published as ever."""
    scene.shop.stock_up({1: 10_000})
    worker = workers.start().wait_until_ready()
    scene.place([order_value()], partition=0)
    scene.wait_until_drained()
    old_rows = 6_000
    scene.shop.sql(
        "INSERT INTO order_outcomes SELECT gen_random_uuid(), 'rejected', '', $1, 0, -1,"
        " json_build_object('x', repeat('x', 900)), now() - $2::interval FROM generate_series(1, $3)",
        scene.topics.order_placed,
        AGE,
        old_rows,
    )
    set_option(scene.kafka, scene.topics.order_placed, "retention.ms", str(HOUR_MS))

    def left() -> int:
        return int(scene.shop.value("SELECT count(*) FROM order_outcomes WHERE event IS NOT NULL")) - 1

    command = order_worker.of("ledger", "prune", "--before", BEFORE)
    slow = command.start("--rate", "500", "--execute")
    eventually(lambda: left() < old_rows, 60, lambda: f"{left()} of {old_rows}")
    slow.send_signal(signal.SIGINT)
    stopped = ended(slow)
    assert (stopped.code, "continues with what is left" in stopped.err) == (130, True), stopped
    after_stop = left()
    assert 0 < after_stop < old_rows

    killed = order_worker.python("-c", KILLED_IN_THE_THIRD_TRANSACTION)(BEFORE)
    assert killed.code == -signal.SIGKILL, killed
    after_kill = left()
    assert 0 < after_kill < after_stop

    new = [uuid4() for _ in range(300)]
    scene.place([order_value(order_id=order_id) for order_id in new])
    done = command.here("--rate", "0", "--execute", "--json").done().document
    scene.wait_until_drained()
    assert done["pruned"] == after_kill
    assert scene.shop.value("SELECT count(*) FROM order_outcomes WHERE event IS NULL") == old_rows
    published = Counter(m.key for m in scene.outcomes())
    assert [published[str(order_id).encode()] for order_id in new] == [1] * 300
    assert len(published) == 301
    assert worker.stop() == 0
    scene.shop.assert_conserved()
