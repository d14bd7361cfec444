"""A worker that is killed, and the one that is started in its place: nobody waits for the session timeout."""

import os
import signal
from uuid import uuid4

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.promises import Scene
from tests.support.worker_process import RUN, Workers

# Longer than any deadline here: what waits for it fails.
FOREVER_MS = "600000"


def test_a_worker_takes_the_place_of_a_killed_one_of_its_name(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100_000})
    killed = workers.start(instance_id="one", session_timeout_ms=FOREVER_MS).wait_until_ready()
    other = workers.start(instance_id="two", session_timeout_ms=FOREVER_MS).wait_until_ready()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2)
    killed.kill()
    ids = [uuid4() for _ in range(200)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    workers.start(instance_id="one", session_timeout_ms=FOREVER_MS)
    scene.wait_until_drained()
    assert other.stop() == 0
    scene.assert_promises(ids)


def test_a_killed_worker_of_several_is_not_waited_for(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100_000})
    supervisor = workers.start(*RUN, "--workers", "2", session_timeout_ms=FOREVER_MS)
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2)
    supervisor.wait_for_log("assigned partitions")
    first = next(text for text in supervisor.log.splitlines() if "worker 0 is process" in text)
    os.kill(int(first.rsplit(" ", 1)[1]), signal.SIGKILL)
    ids = [uuid4() for _ in range(200)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    scene.wait_until_drained()
    assert supervisor.stop() == 0
    scene.assert_promises(ids)


def test_two_live_workers_of_one_name_both_work(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100_000})
    pair = [workers.start(instance_id="same").wait_until_ready() for _ in range(2)]
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2)
    ids = [uuid4() for _ in range(200)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    scene.wait_until_drained()
    assert [worker.stop() for worker in pair] == [0, 0]
    scene.assert_promises(ids)
