"""Every command, and a worker that is killed, over TLS and with the rights of deploy/ and no others."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, ResourceType

from tests.support.catalog_folder import CatalogFolder
from tests.support.commands_by_role import (
    LAMP,
    PARTITIONS,
    PRICE,
    Caller,
    fix_orders,
    inspect,
    lose_and_restore,
    orders,
    place_orders,
    publish_again,
    rename_group,
    skip_a_batch,
    started,
    stopped,
)
from tests.support.deadline import eventually
from tests.support.kafka_acls import bindings, grant, granted, printed_commands, take
from tests.support.least_privilege import SecuredServers, SecuredShop, secured_servers, secured_shop
from tests.support.order_worker import command_names
from tests.support.shop import run_apart
from tests.support.worker_process import workers_in
from tests.support.worker_template import WorkerTemplate
from worker.core.steps import Step
from worker.errors import CommandError
from worker.kafka.rights import require_kafka_rights
from worker.sandbox.servers.kafka import kafka_tool_command
from worker.settings import Settings, read_settings

# It has servers of its own; what workers run; and what `secured_shop` has called as the migrator.
ELSEWHERE = {"demo", "run", "db upgrade"}


@pytest.fixture(scope="module")
def servers() -> Iterator[SecuredServers]:
    with secured_servers() as running:
        yield running


@pytest.fixture
def shop(servers: SecuredServers) -> SecuredShop:
    return secured_shop(servers)


@pytest.mark.timeout(400)
@pytest.mark.takes_long
def test_every_command_does_its_work_with_the_rights_of_its_role(
    shop: SecuredShop, tmp_path: Path, worker_template: WorkerTemplate
):
    call, catalog = Caller(shop), CatalogFolder(tmp_path)
    call("migrator", "topics", "create", "--partitions", str(PARTITIONS))
    call("operator", "catalog", "import", str(catalog.path))
    catalog.write("products", [(LAMP, "Lamp", "bright", PRICE, 1_000_000, 1)])
    call("operator", "catalog", "import", str(catalog.path), "--stock", "set", "--execute")
    with workers_in(shop.env("worker"), tmp_path, worker_template) as workers:
        worker = started(workers)
        confirmed, rejected = place_orders(call, tmp_path)
        inspect(call, rejected, tmp_path)
        fix_orders(call, rejected)
        stopped(worker, shop.scene)
        publish_again(call, workers, confirmed)
        lose_and_restore(call, workers)
        skip_a_batch(call, workers)
    rename_group(call)
    assert set(command_names()) - call.called == ELSEWHERE
    shop.scene.shop.assert_conserved()


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
