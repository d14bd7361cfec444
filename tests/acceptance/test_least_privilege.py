"""Every command, and a worker that is killed, over TLS and with the rights of deploy/ and no others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, ResourceType

from contracts.envelope import reopened_id
from tests.support.broken_records import break_batch, flip_a_byte
from tests.support.builders import line, order_value
from tests.support.catalog_folder import CatalogFolder
from tests.support.deadline import eventually
from tests.support.kafka_acls import bindings, grant, granted, printed_commands, take
from tests.support.least_privilege import SecuredServers, SecuredShop, secured_servers, secured_shop
from tests.support.order_worker import Result, command_names
from tests.support.promises import Scene
from tests.support.shop import run_apart
from tests.support.subscriber import end_of, group_members
from tests.support.worker_process import WorkerProcess, Workers, workers_in
from tests.support.worker_template import WorkerTemplate
from worker.core.steps import Step
from worker.errors import CommandError
from worker.kafka.rights import require_kafka_rights
from worker.sandbox.servers.kafka import kafka_tool_command
from worker.settings import Settings, read_settings

LAMP, PRICE = 10, "2.50"  # of the folder that is imported
MORE = PARTITIONS = 2
# It has servers of its own; what workers run; and what `secured_shop` has called as the migrator.
ELSEWHERE = {"demo", "run", "db upgrade"}


@pytest.fixture(scope="module")
def servers() -> Iterator[SecuredServers]:
    with secured_servers() as running:
        yield running


@pytest.fixture
def shop(servers: SecuredServers) -> SecuredShop:
    return secured_shop(servers)


@dataclass
class People:
    """Call commands, each as somebody, and remember which."""

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


@pytest.mark.timeout(400)
@pytest.mark.takes_long
def test_every_command_does_its_work_with_the_rights_of_its_role(
    shop: SecuredShop, tmp_path: Path, worker_template: WorkerTemplate
):
    people, catalog = People(shop), CatalogFolder(tmp_path)
    people("migrator", "topics", "create", "--partitions", str(PARTITIONS))
    people("operator", "catalog", "import", str(catalog.path))
    catalog.write("products", [(LAMP, "Lamp", "bright", PRICE, 1_000_000, 1)])
    people("operator", "catalog", "import", str(catalog.path), "--stock", "set", "--execute")
    with workers_in(shop.env("worker"), tmp_path, worker_template) as workers:
        worker = started(workers)
        confirmed, rejected = orders_are_placed(people, tmp_path)
        looked_at(people, rejected, tmp_path)
        mended(people, rejected)
        stopped(worker, shop.scene)
        published_again(people, workers, confirmed)
        lost_and_restored(people, workers)
        skipped(people, workers)
    renamed(people)
    assert set(command_names()) - people.called == ELSEWHERE
    shop.scene.shop.assert_conserved()


def orders_are_placed(people: People, tmp_path: Path) -> tuple[UUID, UUID]:
    """Good ones, one with a wrong price, and two that are none, in partition 0.

    Returns one that is confirmed, and the one that is rejected.
    """
    scene, (ids, good) = people.shop.scene, orders(6)
    (tmp_path / "orders.jsonl").write_bytes(b"\n".join(good) + b"\n")
    people("reader", "check", str(tmp_path / "orders.jsonl"))
    people("producer", "place", str(tmp_path / "orders.jsonl"))
    people("producer", "place", "--random", "5", "--items", "1")
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


def looked_at(people: People, order_id: UUID, tmp_path: Path) -> None:
    """By a reader, who may also rehearse what an operator does."""
    people("reader", "explain", str(order_id))
    people("reader", "lag", "--interval", "0.2")
    people("reader", "orders", "list")
    letters = people("reader", "dead-letters", "list").out
    assert "items.0.quantity" in letters
    people("reader", "dead-letters", "show", "0:0")
    people("reader", "dead-letters", "export", "--out", str(tmp_path / "letters.jsonl"))
    people("reader", "reconcile")
    for rehearsal in (
        "dead-letters settle 0:1",
        "replay --to-earliest",
        "republish --all",
        "reconcile --repair",
        "ledger restore",
        "ledger prune --before 2026-01-01T00:00:00Z",
    ):
        people("reader", *rehearsal.split())
    # These two rehearse what they would write, in a transaction that is rolled back.
    people("operator", "dead-letters", "redrive", "0:0", "--set", "items.0.quantity=1")
    people("operator", "orders", "reopen", "--reason", "price_changed", "--drop-prices")
    people("migrator", "db", "downgrade", "0011")


def mended(people: People, rejected: UUID) -> None:
    """While a worker runs: a dead letter is redriven, one settled, a rejected order placed again."""
    people("operator", "dead-letters", "redrive", "0:0", "--set", "items.0.quantity=1", "--execute")
    people("operator", "dead-letters", "settle", "0:1", "--note", "upstream knows", "--execute")
    people("operator", "orders", "reopen", "--order-id", str(rejected), "--drop-prices", "--execute")
    found = people.shop.scene.shop.sql("SELECT FROM orders WHERE id = $1", reopened_id(rejected))
    assert len(found) == 1


def published_again(people: People, workers: Workers, order_id: UUID) -> None:
    """While no worker runs: a replay, which is silent, and a republish, which is not."""
    scene = people.shop.scene
    published = len(scene.outcomes())
    people("operator", "replay", "--to-earliest", "--execute")
    stopped(drained(people, workers), scene)
    assert len(scene.outcomes()) == published + MORE
    people("operator", "republish", "--order-id", str(order_id), "--execute")
    eventually(lambda: len(scene.outcomes()) == published + MORE + 1)
    assert "nothing" in people("operator", "reconcile", "--repair", "--execute").out


def drained(people: People, workers: Workers) -> WorkerProcess:
    """A worker that has decided all that is there, and an order more in each partition."""
    worker, scene = started(workers), people.shop.scene
    for partition in range(PARTITIONS):  # the mark of a transaction counts as lag until a record follows it
        scene.place(orders(1)[1], partition=partition)
    scene.wait_until_drained()
    return worker


def lost_and_restored(people: People, workers: Workers) -> None:
    """The database is that of a backup: an operator restores what it lacks."""
    shop = people.shop.scene.shop
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
    people("operator", "ledger", "restore", "--execute")
    assert shop.value(rows) == before
    stopped(drained(people, workers), people.shop.scene)


def skipped(people: People, workers: Workers) -> None:
    """What nobody can unpack is skipped."""
    scene, broker = people.shop.scene, people.shop.servers.broker
    topic = scene.topics.order_placed
    (lost,), values = orders(1)
    place = end_of(scene.kafka, topic, 1)
    scene.place(values, partition=1)
    break_batch(broker, topic, 1, place, flip_a_byte)
    worker = workers.start()
    worker.wait_for_log("cannot be unpacked")
    where = f"{topic}:1:{place}"
    people("reader", "skip", where)
    people("operator", "skip", where, "--by", "ada", "--note", "disk", "--execute")
    eventually(lambda: scene.lag() == 0, 30)
    stopped(worker, scene)
    assert not scene.shop.sql("SELECT FROM order_outcomes WHERE order_id = $1", lost)


def renamed(people: People) -> None:
    """A group that gets another name: the operator needs rights on both."""
    old, new = people.shop, f"{people.shop.scene.group_id}-new"
    moved = replace(old, scene=replace(old.scene, group_id=new))
    moved.grant_acls()
    result = moved.command("operator").here("replay", "--from-group", old.scene.group_id, "--execute")
    assert result.code == 0, result


@pytest.mark.timeout(300)
def test_a_worker_killed_in_mid_batch_costs_nothing_under_these_rights(
    shop: SecuredShop, tmp_path: Path, worker_template: WorkerTemplate
):
    scene = shop.scene
    shop.command("migrator").here("topics", "create", "--replication", "1").done()
    scene.shop.stock_up({LAMP: 1_000_000})
    ids: list[UUID] = []

    def is_killed_by_more_orders() -> bool:
        more, values = orders(20)
        ids.extend(more)
        scene.place(values)
        return victim.process.poll() is not None

    with workers_in(shop.env("worker"), tmp_path, worker_template) as workers:
        at_step = (sys.executable, "-m", "tests.support.worker_at_step", Step.AFTER_SENDS.value, "SIGKILL")
        other = started(workers, session_timeout_ms="2000")
        victim = workers.start(*at_step, session_timeout_ms="2000")
        eventually(is_killed_by_more_orders, 60, lambda: victim.log[-2000:])
        assert victim.wait() == -signal.SIGKILL
        scene.wait_until_drained()
        scene.assert_promises(ids)
        assert other.stop() == 0


MISSING = {
    "READ on topic {placed}": (ResourceType.TOPIC, "placed", AclOperation.READ),
    "WRITE on topic {confirmed}": (ResourceType.TOPIC, "confirmed", AclOperation.WRITE),
    "WRITE on topic {letters}": (ResourceType.TOPIC, "letters", AclOperation.WRITE),
    "READ on group {group}": (ResourceType.GROUP, "group", AclOperation.READ),
    "WRITE on transactional ids that begin with {group}.": (
        ResourceType.TRANSACTIONAL_ID,
        "group",
        AclOperation.WRITE,
    ),
}


def test_each_right_that_a_worker_lacks_in_kafka_is_named_before_it_starts(
    shop: SecuredShop, tmp_path: Path, worker_template: WorkerTemplate
):
    """Also one of a bad day only: that to write dead letters."""
    kafka, topics = shop.scene.kafka, shop.scene.topics
    shop.command("migrator").here("topics", "create", "--replication", "1").done()
    names = {
        "placed": topics.order_placed,
        "confirmed": topics.order_confirmed,
        "letters": topics.dead_letter,
        "group": shop.scene.group_id,
    }
    no_word = shop.command("operator").here("topics", "create")
    no_word.assert_refused(1, "Kafka does not say how many copies its brokers keep", "say --replication N")
    with patch.dict(os.environ, shop.env("worker")):
        settings = read_settings()
    assert remark(settings) is None
    for said, (kind, name, operation) in MISSING.items():
        lacks = f"lacks rights in Kafka: {said.format(**names)}: grant"
        acl = acl_of_worker(shop, kind, names[name], operation)
        take(kafka, acl)
        eventually(lambda: lacks in (remark(settings) or ""), 10)  # noqa: B023 (it is over by then)
        if kind is ResourceType.GROUP:
            with workers_in(shop.env("worker"), tmp_path, worker_template) as workers:
                worker = workers.start()
                assert worker.wait(60) == 1
                assert lacks in worker.log.splitlines()[-1]
        grant(kafka, {acl})
    for topic in (topics.order_placed, topics.dead_letter):
        take(kafka, acl_of_worker(shop, ResourceType.TOPIC, topic, AclOperation.DESCRIBE_CONFIGS))
    unread = "; ".join(
        f"DESCRIBE_CONFIGS on topic {one}" for one in (topics.order_placed, topics.dead_letter)
    )
    eventually(lambda: remark(settings) == f"Kafka's own limits are assumed, without {unread}", 10)


@pytest.mark.timeout(180)
@pytest.mark.takes_long
def test_a_right_withdrawn_from_a_running_worker_is_named_until_it_is_given_back(
    shop: SecuredShop, tmp_path: Path, worker_template: WorkerTemplate
):
    """And with it the worker continues by itself, whatever Kafka had refused meanwhile."""
    scene, kafka = shop.scene, shop.scene.kafka
    names = {"placed": scene.topics.order_placed, "confirmed": scene.topics.order_confirmed}
    names["group"] = scene.group_id
    shop.command("migrator").here("topics", "create", "--replication", "1").done()
    scene.shop.stock_up({LAMP: 1_000_000})
    ids, values = orders(1)
    with workers_in(shop.env("worker"), tmp_path, worker_template) as workers:
        worker = started(workers, retry_max_seconds="1")
        # Before it has joined its group, it would end, to be started again.
        scene.place(values)
        scene.wait_until_drained()
        for said, (kind, name, operation) in MISSING.items():
            if name not in names:
                continue  # dead letters have none here
            acl = acl_of_worker(shop, kind, names[name], operation)
            take(kafka, acl)
            more, values = orders(3)
            ids.extend(more)
            scene.place(values)
            eventually(
                lambda: "grant the worker's user" in worker.get("/readyz")[1],
                20,
                lambda: f"without {said}: {worker.get('/readyz')}",  # noqa: B023 (it is over by then)
            )
            grant(kafka, {acl})
            eventually(
                lambda: worker.get("/readyz")[0] == 200 and scene.lag() == 0,
                40,
                lambda: f"after {said}: {worker.get('/readyz')} {worker.log[-2000:]}",  # noqa: B023
            )
        scene.assert_promises(ids)
        assert worker.stop() == 0


def remark(settings: Settings) -> str | None:
    """What a worker says of its rights in Kafka at its start, whether it continues or not."""
    try:
        return run_apart(require_kafka_rights(settings))
    except CommandError as error:
        return str(error)


def acl_of_worker(shop: SecuredShop, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    (found,) = (
        one
        for one in granted(**shop.names)
        if (one.principal, one.restype, one.name.removesuffix("."), one.operation)
        == ("User:order-worker", kind, name, operation)
    )
    return found


def test_kafkas_own_tool_grants_what_a_printed_command_is_taken_for(servers: SecuredServers):
    """The other tests grant what `bindings` reads of the commands, by a client and without Java for each."""
    kafka = servers.broker.bootstrap_servers
    (command,) = (
        one for one in printed_commands(ORDER_WORKER_GROUP_ID="other") if "--transactional-id" in one
    )
    tool = kafka_tool_command("org.apache.kafka.tools.AclCommand", *command[1:])
    tool[tool.index("--bootstrap-server") + 1] = kafka
    subprocess.run(tool, check=True, capture_output=True, timeout=60)
    for acl in bindings(command):
        take(kafka, acl)  # which fails where it is not there
