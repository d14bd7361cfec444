"""`order-worker run --workers N`: several workers, and the supervisor that starts and stops them."""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.locked_products import PATIENT, locked_products, wait_for_a_waiting_batch
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import RUN, WorkerProcess, Workers


def processes_of(supervisor: WorkerProcess) -> list[int]:
    """Of its workers, by their numbers, as long as none was started again."""
    found = dict(re.findall(r"worker (\d) is process (\d+)", supervisor.log))
    return [int(found[number]) for number in sorted(found)]


def test_several_workers_share_the_partitions_and_a_killed_one_is_started_again(
    scene: Scene, workers: Workers
):
    scene.shop.stock_up({1: 100_000})
    supervisor = workers.start(*RUN, "--workers", "2", session_timeout_ms="2000")
    eventually(lambda: len(re.findall(r"assigned partitions: \d, \d$", supervisor.log, re.MULTILINE)) >= 2)
    os.kill(processes_of(supervisor)[0], signal.SIGKILL)
    eventually(lambda: supervisor.log.count("worker 0 is process") == 2)
    ids = [uuid4() for _ in range(500)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    scene.wait_until_drained()
    assert supervisor.stop() == 0
    scene.assert_promises(ids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_worker_that_cannot_be_started_again_now_does_not_end_the_others(workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2")
    supervisor.wait_for_log("worker 1 is process")
    files = resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE, (3, files[1]))
    os.kill(processes_of(supervisor)[0], signal.SIGKILL)
    supervisor.wait_for_log("worker 0 cannot be started (too many open files)")
    resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE, files)
    eventually(lambda: supervisor.log.count("worker 0 is process") == 2)
    assert supervisor.stop() == 0


def test_workers_that_are_all_stopped_with_their_supervisor_finish_their_batch(
    scene: Scene, workers: Workers
):
    """As systemd does: each process gets the signal, and from the supervisor once more."""
    scene.shop.stock_up({1: 100})
    ids = [uuid4() for _ in range(20)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    with locked_products(scene):
        supervisor = workers.start(*RUN, "--workers", "2", **PATIENT)
        wait_for_a_waiting_batch(scene)
        for process in (supervisor.process.pid, *processes_of(supervisor)):
            os.kill(process, signal.SIGTERM)
        supervisor.wait_for_log("finishing the batch in flight")
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(1)
    assert supervisor.wait() == 0
    assert "stopped twice" not in supervisor.log
    assert len(scene.confirmed()) == scene.shop.value("SELECT count(*) FROM order_outcomes") > 0


def test_workers_whose_supervisor_is_stopped_twice_leave_at_once(scene: Scene, workers: Workers):
    scene.shop.stock_up({1: 100})
    scene.place([order_value(line(1))])
    with locked_products(scene):
        supervisor = workers.start(*RUN, "--workers", "2", **PATIENT)
        wait_for_a_waiting_batch(scene)
        supervisor.signal(signal.SIGTERM)
        supervisor.signal(signal.SIGINT)
        assert supervisor.wait(15) == 130


def test_workers_that_are_stopped_while_they_start_end_well(scene: Scene, workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2")
    supervisor.wait_for_log("worker 1 is process")
    eventually(lambda: supervisor.catches(signal.SIGTERM))
    assert supervisor.stop() == 0


def test_workers_end_with_a_supervisor_that_is_killed(scene: Scene, workers: Workers):
    supervisor = workers.start(*RUN, "--workers", "2", session_timeout_ms="2000")
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 2)
    supervisor.kill()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 0)


def test_several_workers_that_cannot_start_say_so_and_end(run: OrderWorker):
    result = run("--workers", "2")
    assert result.code == 1
    assert "order-worker topics create" in result.err


def test_several_workers_are_not_taken_from_the_folder_they_are_started_in(run: OrderWorker, tmp_path: Path):
    """They were: a project with a `worker.py` of its own was started in their place, again and again."""
    (tmp_path / "worker.py").write_text('print("a worker of somebody else")')
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "__init__.py").touch()
    ended = subprocess.run(
        [Path(sys.executable).with_name("order-worker"), "run", "--workers", "2"],
        cwd=tmp_path,
        env={**os.environ, **run.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "somebody else" not in ended.stdout + ended.stderr
    assert (ended.returncode, "order-worker topics create" in ended.stderr) == (1, True)
