"""The group or the ledger is another one than before: nothing is published or decided twice."""

from collections.abc import Mapping
from uuid import uuid4

import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.group_offsets import remember_wrongly
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers
from worker.sandbox.servers.postgres import create_database, drop_database
from worker.sandbox.servers.services import Services

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2]

GROUP = "ORDER_WORKER_GROUP_ID"


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def decide_and_stop(scene: Scene, workers: Workers) -> None:
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0


def wait_until_it_names(worker: WorkerProcess, text: str) -> None:
    """It is not ready, and says what to do."""
    worker.wait_for_log("health, metrics and docs on")
    eventually(lambda: text in worker.get("/readyz")[1], 30, lambda: f"{worker.get('/readyz')} {worker.log}")
    assert worker.get("/readyz")[0] == 503


def test_a_group_of_another_name_publishes_nothing_again(
    scene: Scene, workers: Workers, load: Load, env: Mapping[str, str], order_worker: OrderWorker
):
    load.place(50, 0, 1)
    decide_and_stop(scene, workers)
    published = len(scene.outcomes())
    renamed = f"renamed-{uuid4().hex[:8]}"
    load.place(5, 0, 1)
    worker = workers.start(group_id=renamed)
    wait_until_it_names(worker, "replay --from-group")
    assert env[GROUP] in worker.get("/readyz")[1]
    assert len(scene.outcomes()) == published

    assert worker.stop() == 0
    asked = ("replay", "--from-group", env[GROUP])
    order_worker.here(*asked, **{GROUP: renamed}).done()
    assert len(scene.outcomes()) == published, "without --execute it is a rehearsal"
    order_worker.here(*asked, "--execute", **{GROUP: renamed}).done()
    worker = workers.start(group_id=renamed)
    load.wait_until_decided()
    load.wait_until_decided(load.place(5, 0, 2))
    eventually(lambda: worker.get("/readyz")[0] == 200)
    moved = Scene(scene.kafka, scene.shop, scene.topics, renamed)
    moved.wait_until_drained()
    moved.assert_promises(load.ids)


def test_postgresql_restored_from_a_backup_decides_nothing_a_second_time(
    scene: Scene, workers: Workers, load: Load, services: Services, order_worker: OrderWorker
):
    load.place(50, 0, 1)
    decide_and_stop(scene, workers)
    database = scene.shop.database_url.rpartition("/")[2]
    backup = f"{database}_backup"
    scene.shop.leave()
    create_database(services.database_url, backup, template=database)
    try:
        lost = load.values(60)
        scene.place(lost[:30], partition=0)
        scene.place(lost[30:], partition=1)
        decide_and_stop(scene, workers)
        drop_database(services.database_url, database)
        create_database(services.database_url, database, template=backup)
    finally:
        drop_database(services.database_url, backup)

    published = {m.header("ce_id"): m.value for m in scene.outcomes()}
    scene.place([*load.values(10), *lost], partition=0)
    worker = workers.start()
    wait_until_it_names(worker, "ledger restore")
    assert len(scene.outcomes()) == len(published)
    assert scene.shop.value("SELECT count(*) FROM order_outcomes") == 100, "nothing is decided before that"

    order_worker.here("ledger", "restore").done()
    assert scene.shop.value("SELECT count(*) FROM order_outcomes") == 100
    order_worker.here("ledger", "restore", "--execute").done()
    load.wait_until_decided()
    scene.wait_until_drained()
    eventually(lambda: worker.get("/readyz")[0] == 200)
    assert published.items() <= {m.header("ce_id"): m.value for m in scene.outcomes()}.items()
    scene.assert_promises(load.ids)
    assert order_worker.here("reconcile").code == 0


def test_a_backup_of_before_the_first_order_is_never_taken_for_a_new_group(
    scene: Scene, workers: Workers, load: Load
):
    topic = scene.topics.order_placed
    load.place(40, 0, 1)
    remember_wrongly(scene.kafka, scene.group_id, topic, {0: 40, 1: 40})
    load.place(5, 0)
    worker = workers.start()
    # By the watch, which has looked at idle partitions by then, too.
    worker.wait_for_log("worker.pipeline.maintenance: PostgreSQL knows less than was decided", 60)
    assert f"{topic}-1 (0, not 40)" in worker.get("/readyz")[1]
    assert scene.outcomes() == []
    assert worker.stop() == 0
