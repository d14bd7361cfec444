"""Every command of a shop's life, each called with the rights of one role."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from contracts.envelope import reopened_id
from tests.support.broken_records import break_batch, flip_a_byte
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.least_privilege import SecuredShop
from tests.support.order_worker import Result
from tests.support.promises import Scene
from tests.support.subscriber import end_of
from tests.support.worker_process import WorkerProcess, Workers

LAMP, PRICE = 10, "2.50"  # of the folder that is imported
MORE = PARTITIONS = 2


@dataclass
class Caller:
    """Calls commands, each with the rights of one role, and remembers which."""

    shop: SecuredShop
    called: set[str] = field(default_factory=set)

    def __call__(self, who: str, *words: str, code: int = 0) -> Result:
        self.called.update({words[0], " ".join(words[:2])})
        result = self.shop.command(who).here(*words)
        assert (result.code, "ermission denied" in result.err, "uthoriz" in result.err) == (
            code,
            False,
            False,
        ), result
        return result


def orders(count: int, **fields: Any) -> tuple[list[UUID], list[bytes]]:
    ids = [uuid4() for _ in range(count)]
    return ids, [order_value(line(LAMP, 1, PRICE), order_id=i, user_id=1, **fields) for i in ids]


def started(workers: Workers, **settings: str) -> WorkerProcess:
    worker = workers.start(**settings).wait_until_ready()
    assert " lacks " not in worker.log, worker.log
    assert "without DESCRIBE_CONFIGS" not in worker.log, worker.log
    return worker


def stopped(worker: WorkerProcess, scene: Scene) -> None:
    assert worker.stop() == 0, worker.log
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 0, 30)


def place_orders(call: Caller, tmp_path: Path) -> tuple[UUID, UUID]:
    """Valid ones, one with a wrong price, and two that are invalid, in partition 0.

    Returns one that is confirmed, and the one that is rejected.
    """
    scene, (ids, good) = call.shop.scene, orders(6)
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(good) + b"\n")
    call("reader", "check", str(tmp_path / "orders.jsonl"))
    call("producer", "place", str(tmp_path / "orders.jsonl"))
    call("producer", "place", "--random", "5", "--items", "1")
    wrong_price, nothing, neither = (uuid4() for _ in range(3))
    scene.place(
        [
            order_value(line(LAMP, 1, "9.99"), order_id=wrong_price),
            *(order_value(line(LAMP, 0), order_id=i) for i in (nothing, neither)),
        ],
        partition=0,
    )
    scene.wait_until_drained()
    assert len(scene.dead_letters()) == 2
    return ids[0], wrong_price


def inspect(call: Caller, order_id: UUID, tmp_path: Path) -> None:
    """As a reader, who may also rehearse what an operator does."""
    call("reader", "explain", str(order_id))
    call("reader", "lag", "--interval", "0.2")
    call("reader", "orders", "list")
    letters = call("reader", "dead-letters", "list").out
    assert "items.0.quantity" in letters
    call("reader", "dead-letters", "show", "0:0")
    call("reader", "dead-letters", "export", "--out", str(tmp_path / "letters.jsonl"))
    call("reader", "reconcile")
    for rehearsal in (
        "dead-letters settle 0:1",
        "replay --to-earliest",
        "republish --all",
        "reconcile --repair",
        "ledger restore",
        "ledger prune --before 2026-01-01T00:00:00Z",
    ):
        call("reader", *rehearsal.split())
    # These two rehearse what they would write, in a transaction that is rolled back.
    call("operator", "dead-letters", "redrive", "0:0", "--set", "items.0.quantity=1")
    call("operator", "orders", "reopen", "--reason", "price_changed", "--drop-prices")
    call("migrator", "db", "downgrade", "0011")


def fix_orders(call: Caller, rejected: UUID) -> None:
    """While a worker runs: redrive a dead letter, settle one, and reopen a rejected order."""
    call("operator", "dead-letters", "redrive", "0:0", "--set", "items.0.quantity=1", "--execute")
    call("operator", "dead-letters", "settle", "0:1", "--note", "upstream knows", "--execute")
    call("operator", "orders", "reopen", "--order-id", str(rejected), "--drop-prices", "--execute")
    found = call.shop.scene.shop.sql("SELECT FROM orders WHERE id = $1", reopened_id(rejected))
    assert len(found) == 1


def publish_again(call: Caller, workers: Workers, order_id: UUID) -> None:
    """While no worker runs: a replay, which publishes nothing, and a republish, which does."""
    scene = call.shop.scene
    published = len(scene.outcomes())
    call("operator", "replay", "--to-earliest", "--execute")
    stopped(drained(call, workers), scene)
    assert len(scene.outcomes()) == published + MORE
    call("operator", "republish", "--order-id", str(order_id), "--execute")
    eventually(lambda: len(scene.outcomes()) == published + MORE + 1)
    assert "nothing" in call("operator", "reconcile", "--repair", "--execute").out


def drained(call: Caller, workers: Workers) -> WorkerProcess:
    """A worker that has decided everything, and one more order in each partition."""
    worker, scene = started(workers), call.shop.scene
    for partition in range(PARTITIONS):  # a transaction marker counts as lag until a record follows it
        scene.place(orders(1)[1], partition=partition)
    scene.wait_until_drained()
    return worker


def lose_and_restore(call: Caller, workers: Workers) -> None:
    """PostgreSQL is that of a backup: an operator restores what it lacks."""
    shop = call.shop.scene.shop
    rows = "SELECT count(*) FROM order_outcomes"
    before = shop.value(rows)
    for statement in (
        "UPDATE products SET stock_quantity = received_quantity",
        "DELETE FROM order_items",
        "DELETE FROM orders",
        "DELETE FROM order_outcomes",
        "DELETE FROM positions",
    ):
        shop.sql(statement)
    call("operator", "ledger", "restore", "--execute")
    assert shop.value(rows) == before
    stopped(drained(call, workers), call.shop.scene)


def skip_a_batch(call: Caller, workers: Workers) -> None:
    """A batch that cannot be unpacked is skipped."""
    scene, broker = call.shop.scene, call.shop.servers.broker
    topic = scene.topics.order_placed
    (lost,), values = orders(1)
    place = end_of(scene.kafka, topic, 1)
    scene.place(values, partition=1)
    break_batch(broker, topic, 1, place, flip_a_byte)
    worker = workers.start()
    worker.wait_for_log("cannot be unpacked")
    where = f"{topic}:1:{place}"
    call("reader", "skip", where)
    call("operator", "skip", where, "--by", "ada", "--note", "disk", "--execute")
    eventually(lambda: scene.lag() == 0, 30)
    stopped(worker, scene)
    assert not scene.shop.sql("SELECT FROM order_outcomes WHERE order_id = $1", lost)


def rename_group(call: Caller) -> None:
    """The group gets another name: the operator needs rights on both."""
    old, new = call.shop, f"{call.shop.scene.group_id}-new"
    moved = replace(old, scene=replace(old.scene, group_id=new))
    moved.grant_acls()
    result = moved.command("operator").here("replay", "--from-group", old.scene.group_id, "--execute")
    assert result.code == 0, result
