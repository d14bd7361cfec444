"""`order-worker run` when it stops: by signals, at once if asked twice, and by its watchdog."""

import signal
import sys
from uuid import uuid4

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.locked_products import PATIENT, locked_products, wait_for_a_waiting_batch
from tests.support.promises import Scene
from tests.support.worker_process import Workers
from worker.core.steps import Step


def test_sigterm_finishes_the_batch_in_flight_leaves_the_group_and_exits_0(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100_000})
    ids = [uuid4() for _ in range(2_000)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with locked_products(scene):
        worker = workers.start(**PATIENT, batch_max_records="200")
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("finishing the batch in flight")
    assert worker.wait() == 0
    decided = scene.shop.value("SELECT count(*) FROM order_outcomes")
    assert 0 < decided < len(ids)
    assert len(scene.confirmed()) == decided, "the batch in flight was finished: nothing waits in the ledger"
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_stopped_twice_it_leaves_at_once_and_nothing_is_lost(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with locked_products(scene):
        worker = workers.start(**PATIENT)
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        worker.wait_for_log("finishing the batch in flight")
        worker.signal(signal.SIGTERM)
        assert worker.wait(5) == 130
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_a_batch_that_does_not_end_in_time_is_left_behind_at_shutdown(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with locked_products(scene):
        worker = workers.start(**PATIENT, shutdown_timeout_seconds="1")
        wait_for_a_waiting_batch(scene)
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 1
    workers.start()
    scene.wait_until_drained()
    scene.assert_promises(ids)


def test_a_stall_ends_the_worker_with_3_so_that_it_is_started_again(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 10})
    scene.place([order_value(line(1))])
    worker = workers.start(
        *(sys.executable, "-m", "tests.support.worker_at_step", Step.BEFORE_DATABASE_COMMIT.value, "hang"),
        stall_limit_seconds="5",
    )
    assert worker.wait() == 3
    assert "no progress" in worker.log


def test_a_closed_terminal_stops_a_worker_as_sigterm_does_though_it_is_said_twice(workers: Workers):
    worker = workers.start().wait_until_ready()
    worker.signal(signal.SIGHUP)  # the kernel's
    worker.wait_for_log("stopping: finishing the batch in flight")
    worker.signal(signal.SIGHUP)  # the shell's
    assert worker.wait() == 0
    assert "stopped twice" not in worker.log


def test_a_worker_that_is_stopped_while_it_joins_leaves_the_group_at_once(scene: Scene, workers: Workers):
    """It waited up to 15 s for its turn, and the others then up to 10 s for it, though it was gone."""
    first = workers.start(session_timeout_ms="30000").wait_until_ready()
    first.signal(signal.SIGSTOP)  # the group waits for it
    second = workers.start()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2, 60)
    second.signal(signal.SIGTERM)
    assert second.wait(10) == 0
    assert group_members(scene.kafka, scene.group_id) == 1
    assert "no answer" not in second.log
