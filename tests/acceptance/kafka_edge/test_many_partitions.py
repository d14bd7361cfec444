"""One worker with many partitions, and the files that a process may have open."""

import resource
import sys
from typing import Final

import psutil
import pytest

from tests.acceptance.kafka_edge.load import Load
from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.topic_changes import add_partitions
from tests.support.worker_process import WorkerProcess, Workers
from worker.sandbox.servers.services import Services

PARTITIONS: Final = 500
USUAL_SOFT_LIMIT: Final = 1_024
FEW_FILES: Final = 14
# A minute on a machine of its own.
TAKEN_OVER_SECONDS: Final = 180.0


@pytest.fixture(scope="session")
def services(on_own_kafka: Services) -> Services:
    return on_own_kafka


@pytest.fixture
def load(scene: Scene) -> Load:
    return Load(scene)


def start_with_files(workers: Workers, soft: int, hard: int) -> WorkerProcess:
    """A worker that may have so many files open, and may raise that to `hard`."""
    limits = f"ulimit -Sn {soft} && ulimit -Hn {hard} && exec"
    return workers.start("/bin/sh", "-c", f"{limits} {sys.executable} -m worker run")


@pytest.mark.timeout(400)
@pytest.mark.takes_long
def test_five_hundred_partitions_are_taken_over_by_one_worker(scene: Scene, workers: Workers, load: Load):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    add_partitions(scene.kafka, scene.topics.order_placed, PARTITIONS)
    load.place_one_on_each(PARTITIONS)
    worker = start_with_files(workers, USUAL_SOFT_LIMIT, hard)
    load.wait_until_decided(seconds=TAKEN_OVER_SECONDS)
    scene.wait_until_drained(20)
    assert psutil.Process(worker.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
    eventually(lambda: worker.get("/readyz")[0] == 200)
    assert worker.log.count("assigned partitions") == 1, "it never lost its membership"
    assert "too many open files" not in worker.log.lower()
    scene.assert_promises(load.ids)


def test_too_few_files_are_named_with_what_to_do(scene: Scene, workers: Workers, load: Load):
    load.place_one_on_each(4)
    worker = start_with_files(workers, FEW_FILES, FEW_FILES)
    eventually(
        lambda: "open files" in worker.log or worker.process.poll() is not None,
        60,
        lambda: worker.log[-2000:],
    )
    assert "too many open files" in worker.log
    eventually(lambda: "ulimit" in worker.log, 30, lambda: worker.log[-2000:])
    assert worker.log.count("Traceback") == 0
