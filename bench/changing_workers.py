"""How long an order waits while workers come and go: a rolling restart, more workers and fewer, a kill.

Orders come steadily to every partition. So the longest wait is the time for which
a partition was not processed, plus the usual latency of an order.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.contenders import worker
from bench.crew import Crew
from bench.drain import STARTED_WITHIN_SECONDS, Scene, require_right, scene
from bench.errors import BenchError
from bench.latency import WARM_UP_SECONDS, due_seconds, times_from_due
from bench.run import Bench
from bench.shop import stock_taken
from bench.workload import Workload

ORDERS_A_SECOND: Final = 300.0
PARTITIONS: Final = 6
SECONDS: Final = 25.0  # of orders; each change is over before
_PAUSE_SECONDS: Final = 1.0  # between a group that has settled and the next change
_LOOK_SECONDS: Final = 0.05


@dataclass(slots=True)
class Workers:
    """Workers of one group, each with a name that it keeps over a restart."""

    here: Scene
    folder: Path
    stack: ExitStack
    running: dict[str, Crew] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start these at once; return when the group has settled."""
        for name in names:
            of_this_name = replace(worker(1), environment=(("ORDER_WORKER_INSTANCE_ID", name),))
            (folder := self.folder / name).mkdir(exist_ok=True)
            self.running[name] = self.stack.enter_context(self.here.crew(of_this_name, folder))
        self._settle()

    def stop(self, *names: str) -> None:
        """Stop these as an operator does; return when the group has settled without them."""
        stopped = [self.running.pop(name) for name in names]
        together = Crew([p for c in stopped for p in c.processes], [log for c in stopped for log in c.logs])
        together.stop()
        self._settle()

    def kill(self, name: str) -> None:
        """Kill it (SIGKILL), and return at once."""
        for process in self.running.pop(name).processes:
            process.kill()
            process.wait()

    def _settle(self) -> None:
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        cluster = self.here.servers.cluster
        while not cluster.shares(self.here.group_id, len(self.running), self.here.topics):
            if time.monotonic() > deadline:
                raise BenchError(f"the group did not settle within {STARTED_WITHIN_SECONDS:g} s")
            for crew in self.running.values():
                crew.require_alive()
            time.sleep(_LOOK_SECONDS)
        time.sleep(_PAUSE_SECONDS)


Change = Callable[[Workers], None]


def rolling_restart(workers: Workers) -> None:
    """Each of three is stopped and started again, one after the other."""
    for name in list(workers.running):
        workers.stop(name)
        workers.start(name)


def more_and_fewer(workers: Workers) -> None:
    """Two workers more, and two fewer again."""
    workers.start("three", "four")
    workers.stop("three", "four")


def killed_and_started(workers: Workers) -> None:
    """One is killed, and started again at once, as its supervisor does."""
    workers.kill("one")
    workers.start("one")


def longest_wait(bench: Bench, names: tuple[str, ...], change: Change) -> float:
    """Seconds from due to seen of the order that waited longest around the change; the result is checked."""
    due = due_seconds(ORDERS_A_SECOND, SECONDS)
    workload = Workload(len(due))
    with _workers(bench) as workers:
        before = stock_taken(workers.here.database_url)
        workers.start(*names)
        with ThreadPoolExecutor(1) as producer:
            waited: Future[list[float]] = producer.submit(
                times_from_due, workers.here, list(workload.messages()), due
            )
            time.sleep(WARM_UP_SECONDS)
            change(workers)
            if waited.done():
                waited.result()
                raise BenchError("the orders ended before the change did: their waits do not show it")
            times = waited.result()
        for crew in workers.running.values():
            crew.stop()
        require_right(workers.here, worker(1), workload, before)
    return times[-1]


@contextmanager
def _workers(bench: Bench) -> Iterator[Workers]:
    with (
        scene(bench.servers, PARTITIONS) as here,
        tempfile.TemporaryDirectory(prefix="order-worker-bench-") as folder,
        ExitStack() as stack,
    ):
        yield Workers(here, Path(folder), stack)
