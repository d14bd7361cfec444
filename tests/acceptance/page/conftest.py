"""A worker that has decided what the page shows."""

import pytest

from tests.acceptance.page.visits import Placed
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers


@pytest.fixture
def placed(scene: Scene) -> Placed:
    return Placed(scene)


@pytest.fixture
def worker(placed: Placed, scene: Scene, workers: Workers) -> WorkerProcess:
    started = workers.start().wait_until_ready()
    scene.wait_until_drained()
    return started
