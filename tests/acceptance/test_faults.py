"""Nothing lost, nothing twice, stock conserved: processes really killed, servers really restarted."""

import json
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.promises import Scene
from tests.support.topic_changes import set_largest_record
from tests.support.worker_process import WorkerProcess, Workers
from worker.core.steps import Step
from worker.sandbox.servers.services import Server, Services

pytestmark = [pytest.mark.guarantee_1, pytest.mark.guarantee_2, pytest.mark.guarantee_3]

SHORT_SESSION = {"session_timeout_ms": "2000"}
AT_STEP = (sys.executable, "-m", "tests.support.worker_at_step")


def load(count: int, seed: int) -> tuple[set[UUID], list[bytes | None], int]:
    """Orders over few products with more demand than stock, with 5 % exact repeats and 2 % poison.

    Returns the order ids, the values in order, and how many of these are dead letters.
    """
    chance = random.Random(seed)
    ids: set[UUID] = set()
    values: list[bytes | None] = []
    poison = 0
    for _ in range(count):
        order_id = UUID(int=chance.getrandbits(128), version=4)
        ids.add(order_id)
        lines = [line(chance.randint(1, 20), chance.randint(1, 5)) for _ in range(chance.randint(1, 4))]
        values.append(order_value(*lines, order_id=order_id, user_id=chance.randint(1, 10)))
        if chance.random() < 0.05:
            values.append(values[-1])
        if chance.random() < 0.02:
            values.append(b'{"order_id": ')
            poison += 1
    return ids, values, poison


def stock_for(scene: Scene) -> None:
    scene.shop.stock_up(dict.fromkeys(range(1, 21), 400))


def placed(scene: Scene, count: int, seed: int) -> tuple[set[UUID], int]:
    """Stock up and place a load; the order ids, and how many of its records are dead letters."""
    stock_for(scene)
    ids, values, poison = load(count, seed)
    scene.place(values)
    return ids, poison


def require_own(services: Services, server: str) -> None:
    if getattr(services, server) is None:
        pytest.skip(f"given servers are not ours to restart: unset the URLs to test on {server} of our own")


@contextmanager
def crashed(server: Server) -> Iterator[None]:
    """The server is away meanwhile. It returns whatever comes: the tests after this one need it."""
    server.crash()
    try:
        yield
    finally:
        server.restart()


def not_ready_for(worker: WorkerProcess, server: str) -> bool:
    status, answer = worker.get("/readyz")
    return status == 503 and server in json.loads(answer)["reasons"]


def test_workers_killed_at_random_times_lose_and_double_nothing(scene: Scene, workers: Workers):
    stock_for(scene)
    ids, values, poison = load(6_000, seed=1)
    chance = random.Random(1)
    scene.place(values)
    settings = SHORT_SESSION | {"batch_max_records": "100"}
    running = [workers.start(**settings), workers.start(**settings)]
    for _ in range(4):
        victim = chance.randrange(2)
        decided = scene.shop.value("SELECT count(*) FROM order_outcomes")
        wanted = min(decided + chance.randint(200, 800), len(ids))
        eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") >= wanted, 40)  # noqa: B023
        running[victim].kill()
        running[victim] = workers.start(**settings)
    scene.wait_until_drained()
    scene.assert_promises(ids, dead_letters=poison)


@pytest.mark.parametrize("step", [s for s in Step if s is not Step.TAKEOVER_FENCED])
def test_a_worker_killed_at_a_named_step_is_finished_by_the_next(scene: Scene, workers: Workers, step: Step):
    ids, poison = placed(scene, 300, seed=2)
    victim = workers.start(*AT_STEP, step.value, "SIGKILL", **SHORT_SESSION)
    assert victim.wait() == -signal.SIGKILL
    workers.start(**SHORT_SESSION)
    scene.wait_until_drained()
    scene.assert_promises(ids, dead_letters=poison)


@pytest.mark.parametrize(
    "step",
    [Step.BEFORE_DATABASE_COMMIT, Step.AFTER_DATABASE_COMMIT, Step.AFTER_SENDS, Step.BEFORE_KAFKA_COMMIT],
)
def test_a_worker_stopped_past_its_session_wakes_up_as_a_zombie_and_does_no_harm(
    scene: Scene, workers: Workers, step: Step
):
    ids, poison = placed(scene, 400, seed=3)
    zombie = workers.start(*AT_STEP, step.value, "SIGSTOP", **SHORT_SESSION)
    zombie.wait_for_log(f"SIGSTOP at {step}")
    workers.start(**SHORT_SESSION)
    scene.wait_until_drained()
    zombie.signal(signal.SIGCONT)
    # Before the commit PostgreSQL has ended its transaction; after it, Kafka refuses what it sends.
    zombie.wait_for_log(
        "will be tried again"
        if step is Step.BEFORE_DATABASE_COMMIT
        else "fenced: another worker has taken over"
    )
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2, 40)
    more, values, more_poison = load(300, seed=4)
    scene.place(values)
    scene.wait_until_drained()
    scene.assert_promises(ids | more, dead_letters=poison + more_poison)


def test_a_broker_that_crashes_and_returns_costs_nothing(scene: Scene, workers: Workers, services: Services):
    require_own(services, "kafka")
    ids, poison = placed(scene, 3_000, seed=5)
    worker = workers.start(batch_max_records="100", retry_max_seconds="2")
    eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") > 500, 40)
    assert services.kafka is not None
    with crashed(services.kafka):
        eventually(lambda: not_ready_for(worker, "kafka"), 40)
        assert worker.get("/livez")[0] == 200
    scene.wait_until_drained(100)
    eventually(lambda: worker.get("/readyz")[0] == 200, 40)
    scene.assert_promises(ids, dead_letters=poison)


def test_a_database_that_crashes_and_returns_costs_nothing_and_no_dead_letter(
    scene: Scene, workers: Workers, services: Services
):
    require_own(services, "postgres")
    ids, poison = placed(scene, 3_000, seed=6)
    worker = workers.start(batch_max_records="100", retry_max_seconds="2")
    eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") > 500, 40)
    assert services.postgres is not None
    with crashed(services.postgres):
        eventually(lambda: not_ready_for(worker, "database"), 40)
    scene.wait_until_drained(100)
    eventually(lambda: worker.get("/readyz")[0] == 200, 40)
    scene.assert_promises(ids, dead_letters=poison)


@pytest.mark.parametrize("server", ["kafka", "postgres"])
def test_a_server_frozen_past_every_deadline_leaves_no_doubt(
    scene: Scene, workers: Workers, services: Services, server: str
):
    require_own(services, server)
    ids, poison = placed(scene, 3_000, seed=9)
    worker = workers.start(
        batch_max_records="100",
        batch_timeout_seconds="3",
        transaction_timeout_ms="4000",
        request_timeout_ms="2000",
        retry_max_seconds="1",
    )
    eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") > 500, 40)
    frozen = getattr(services, server)
    frozen.freeze()
    try:
        eventually(lambda: worker.get("/readyz")[0] == 503, 40)
        worker.wait_for_log("will be tried again")
    finally:
        frozen.thaw()
    scene.wait_until_drained(100)
    scene.assert_promises(ids, dead_letters=poison)


def test_connections_terminated_again_and_again_cost_nothing(scene: Scene, workers: Workers):
    ids, poison = placed(scene, 2_000, seed=7)
    workers.start(batch_max_records="50", retry_max_seconds="1")
    for wanted in range(200, 1_800, 200):
        eventually(lambda: scene.shop.value("SELECT count(*) FROM order_outcomes") >= wanted, 40)  # noqa: B023
        scene.shop.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'order-worker'"
        )
    scene.wait_until_drained()
    scene.assert_promises(ids, dead_letters=poison)


def test_a_refused_dead_letter_is_not_lost_and_nothing_is_committed_without_it(
    scene: Scene, workers: Workers
):
    stock_for(scene)
    worker = workers.start(retry_max_seconds="1").wait_until_ready()
    set_largest_record(scene.kafka, scene.topics.dead_letter, 2_000)
    order_id = uuid4()
    scene.place([order_value(line(1), order_id=order_id), b"x" * 10_000], partition=0)
    worker.wait_for_log("will be tried again")
    assert scene.outcomes() == [], "the outcome is in the same transaction as the refused dead letter"
    set_largest_record(scene.kafka, scene.topics.dead_letter, 100_000)
    scene.wait_until_drained()
    scene.assert_promises([order_id], dead_letters=1)


def test_a_second_worker_joining_and_leaving_costs_nothing(scene: Scene, workers: Workers):
    ids, poison = placed(scene, 4_000, seed=8)
    workers.start(batch_max_records="50")
    for _ in range(3):
        guest: WorkerProcess = workers.start(batch_max_records="50").wait_until_ready()
        assert guest.stop() == 0
    scene.wait_until_drained()
    scene.assert_promises(ids, dead_letters=poison)


def test_the_stock_of_one_hot_product_is_sold_to_the_last_piece_by_two_workers(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 500})
    ids = [uuid4() for _ in range(2_000)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    for _ in range(2):
        workers.start(batch_max_records="50")
    scene.wait_until_drained()
    assert scene.shop.stock() == {1: 0}
    assert len(scene.confirmed()) == 500
    scene.assert_promises(ids)
