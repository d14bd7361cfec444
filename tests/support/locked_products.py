"""Products that another session keeps locked, so that no batch can be decided meanwhile."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tests.support.deadline import eventually
from tests.support.promises import Scene
from tests.support.worker_process import ROOT

PATIENT: Final[Mapping[str, str]] = {
    "lock_timeout_ms": "60000",
    "statement_timeout_ms": "60000",
    "session_timeout_ms": "2000",
}
"""settings of a worker that waits for the locks, and whose partitions others get soon after it is gone"""


@contextmanager
def locked_products(scene: Scene) -> Iterator[None]:
    """Another session holds every product: a batch in flight cannot end by itself."""
    command = [sys.executable, "-m", "tests.support.lock_holder", scene.shop.database_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            yield
        finally:
            holder.kill()


def wait_for_a_waiting_batch(scene: Scene) -> None:
    eventually(lambda: scene.shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
