"""What one run has of its own: database, topics, group and worker processes. Runs share the servers.

The arena keeps the wanted number of workers alive, as a supervisor would: a worker that dies is replaced. A
fault acts on the arena; everything is seen from outside, in the database and in Kafka.
"""

import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import psutil

from contracts.events import DeadLetterCode
from tests.faults.placed import Placed
from tests.faults.publishing import publish
from tests.faults.site import Site
from tests.faults.workload import PRICE, Kind, Record, Workload
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.kafka_topics import create_topics, delete_topics
from tests.support.odd_records import ODD_VALUE, publish_odd
from tests.support.order_worker import OrderWorker, Result
from tests.support.promises import Scene
from tests.support.shop import Shop
from tests.support.topic_names import TopicNames
from tests.support.worker_process import WorkerProcess, Workers, workers_in
from worker.core.steps import Step

# Time limits so short that a fault of a second or two exceeds them.
SETTINGS: Final = {
    "batch_max_records": "150",
    "session_timeout_ms": "2000",
    "batch_timeout_seconds": "4",
    "transaction_timeout_ms": "5000",
    "request_timeout_ms": "2000",
    "lock_timeout_ms": "1000",
    "retry_max_seconds": "1",
}
LARGEST_BYTES: Final = {"order_placed": 2 * 1024 * 1024, "dead_letter": 3 * 1024 * 1024}
PATIENCE_SECONDS: Final = 60.0


@dataclass
class Arena:
    """What a fault may act on. `chance` is the run's own source of randomness."""

    site: Site
    scene: Scene
    workload: Workload
    chance: random.Random
    workers: Workers
    size: int
    partitions: int
    """of the input topic"""
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    crew: list[WorkerProcess] = field(default_factory=list)
    injected: int = 0
    published: int = 0
    placed: Placed = field(default_factory=Placed)
    clocks: Sequence[int] = ()
    """by how many seconds the clock of a new worker is off: one of these; empty: it is right"""
    rewinds: int = 0
    """how often the run moved the offsets back: outcomes may be published again this many times"""

    @property
    def shop(self) -> Shop:
        return self.scene.shop

    def decided(self) -> int:
        """How many orders are decided; -1 while the database does not say."""
        try:
            return int(self.shop.value("SELECT count(*) FROM order_outcomes"))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return -1

    def feed(self, share: float = 1.0) -> None:
        """Publish the next records: this share of the workload."""
        first = self.published
        self.published = min(first + round(share * len(self.workload.records)), len(self.workload.records))
        records = self.workload.records[first : self.published]
        publish(self.scene.kafka, self.scene.topics.order_placed, records)
        self.placed.add(records)

    def place_extra(self, partition: int, count: int) -> None:
        """Publish `count` orders beside the workload, as one batch if the client does so."""
        extra = [self._extra_order(partition) for _ in range(count)]
        publish(self.scene.kafka, self.scene.topics.order_placed, extra)
        self.placed.add(extra, extra=True)

    def place_odd(self, partition: int) -> None:
        """Publish a batch in which each second record has a header name that nobody can decode."""
        orders = [self._extra_order(partition) for _ in range(self.chance.randint(1, 3))]
        records = [record for order in orders for record in (_odd_record(partition), order)]
        publish_odd(
            self.scene.kafka,
            self.scene.topics.order_placed,
            [None if record.code else record.value for record in records],
            partition=partition,
            compression=self.chance.choice(["none", "gzip", "snappy", "lz4", "zstd"]),
        )
        self.placed.add(records, extra=True)

    def _extra_order(self, partition: int) -> Record:
        order_id = UUID(int=self.chance.getrandbits(128), version=4)
        items = [line(self.chance.choice(list(self.workload.products)), self.chance.randint(1, 3))]
        value = order_value(*items, order_id=order_id, user_id=self.chance.randint(1, self.workload.users))
        return Record(Kind.ORDER, partition, None, value, (), order_id, None)

    def command(self, *words: str) -> Result:
        """Run `order-worker` in the environment of the workers."""
        return OrderWorker(self.workers.environment)(*words)

    def reasons(self) -> str:
        """What all workers that answer say of their readiness."""
        reasons = ""
        for worker in self.crew:
            with suppress(AssertionError, OSError):  # it has only just been started
                reasons += worker.get("/readyz")[1]
        return reasons

    def some_progress(self) -> None:
        """Feed a little, and wait until some orders are decided. Workers that die meanwhile are replaced."""
        before = max(self.decided(), 0)
        self.feed(1 / 16)
        if before < self.orders:
            wanted = before + self.chance.randint(1, max(1, self.orders // 20))
            self.until(lambda: self.decided() >= wanted or self.scene.lag() == 0)

    def until(self, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition, with the crew kept at its size."""

        def kept() -> Any:
            self.keep()
            return condition()

        eventually(kept, seconds, lambda: f"decided {self.decided()} of {self.orders}")

    @property
    def orders(self) -> int:
        return len(self.workload.orders)

    def keep(self) -> None:
        """Replace every worker that has ended."""
        self.crew = [w for w in self.crew if w.process.poll() is None]
        while len(self.crew) < self.size:
            self.crew.append(self.workers.start(*self._with_a_clock(), **self.settings))

    def _with_a_clock(self) -> Sequence[str]:
        if not self.clocks:
            return ()
        return (sys.executable, "-m", "tests.support.worker_off_clock", str(self.chance.choice(self.clocks)))

    def kill_all(self) -> None:
        """No worker is left until `keep` starts others."""
        for worker in self.crew:
            worker.kill()

    def drain(self) -> None:
        """All that is published is decided and committed."""
        self.until(lambda: self.scene.lag() == 0)

    def add_at_step(self, step: Step, action: str, passed: int, **settings: str) -> WorkerProcess:
        """One more worker, which does `action` to itself after it has passed the step `passed` times."""
        command = (sys.executable, "-m", "tests.support.worker_at_step", step.value, action, "1", str(passed))
        worker = self.workers.start(*command, **{**self.settings, **settings})
        self.crew.append(worker)
        return worker

    def is_over(self) -> bool:
        """Everything is published and committed, so that a fault would have no effect any more."""
        return self.published == len(self.workload.records) and self.scene.lag() == 0

    def retries(self) -> int:
        """How often a worker has said that it will try a batch again."""
        return self.workers.logs.count("will be tried again")

    @contextmanager
    def retrying(self) -> Iterator[None]:
        """The block ends when a worker has failed and retries because of it.

        Or when nothing is left to decide, which should not happen; then the verdict shows why.
        """
        before = self.retries()
        yield
        self.until(lambda: self.retries() > before or self.scene.lag() == 0)

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """The block ends when a busy worker has become not ready because of it."""
        self.some_progress()
        worker = self.any_worker().wait_until_ready()
        self.feed(1 / 4)
        yield
        # It becomes so after all its own time limits. A worker that dies now could not start again.
        eventually(lambda: worker.get("/readyz")[0] == 503, PATIENCE_SECONDS)

    def largest_worker_bytes(self) -> int:
        """Resident memory of the largest worker that lives."""
        living = [w.process.pid for w in self.crew if w.process.poll() is None]
        return max((psutil.Process(pid).memory_info().rss for pid in living), default=0)

    def any_worker(self) -> WorkerProcess:
        self.keep()
        return self.chance.choice(self.crew)

    def dismiss(self) -> list[int]:
        """End all workers as an operator would; their exit codes."""
        for worker in self.crew:
            # Before it has its handler, the signal itself would end it, with no exit code of its own.
            eventually(lambda: worker.process.poll() is not None or worker.catches(signal.SIGTERM))  # noqa: B023
        codes = [worker.stop() for worker in self.crew]
        self.crew = []
        return codes


@contextmanager
def arena(
    site: Site, workload: Workload, *, seed: int, partitions: int, folder: Path, networked: bool = False
) -> Iterator[Arena]:
    """A fresh arena with its catalogue in the database and nothing in its topics yet.

    With `networked` its workers reach both servers through the site's networks only.
    """
    chance = random.Random(f"arena {seed}")
    names = TopicNames(*(f"{name}-{uuid4().hex[:8]}" for name in ("placed", "confirmed", "rejected", "dlt")))
    database = f"arena_{uuid4().hex[:12]}"
    shop = Shop(site.databases.create_database(database, template=site.template))
    scene = Scene(site.kafka.bootstrap_servers, shop, names, f"arena-{uuid4().hex[:8]}")
    kafka, database_url = scene.kafka, shop.database_url
    if networked:
        kafka, database_url = f"127.0.0.1:{site.kafka_network.port}", site.through_network(database_url)
    try:
        shop.stock_up(workload.products, price=PRICE, users=workload.users)
        with (
            _topics(scene.kafka, names, partitions),
            workers_in(_environment(scene, kafka, database_url), folder, site.workers) as workers,
        ):
            yield Arena(site, scene, workload, chance, workers, chance.randint(2, 4), partitions)
    finally:
        site.databases.drop_database(database)


def _environment(scene: Scene, kafka: str, database_url: str) -> Mapping[str, str]:
    return {
        "ORDER_WORKER_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "ORDER_WORKER_DATABASE_URL": database_url,
        "ORDER_WORKER_GROUP_ID": scene.group_id,
        "ORDER_WORKER_HTTP_PORT": "0",
        "ORDER_WORKER_HTTP_HOST": "127.0.0.1",
        "ORDER_WORKER_ORDER_PLACED_TOPIC": scene.topics.order_placed,
        "ORDER_WORKER_ORDER_CONFIRMED_TOPIC": scene.topics.order_confirmed,
        "ORDER_WORKER_ORDER_REJECTED_TOPIC": scene.topics.order_rejected,
        "ORDER_WORKER_DEAD_LETTER_TOPIC": scene.topics.dead_letter,
    }


def _odd_record(partition: int) -> Record:
    return Record(Kind.POISON, partition, None, ODD_VALUE, (), None, DeadLetterCode.UNREADABLE.value)


@contextmanager
def _topics(bootstrap_servers: str, names: TopicNames, partitions: int) -> Iterator[None]:
    largest = {name: LARGEST_BYTES.get(kind, 1024 * 1024) for kind, name in vars(names).items()}
    # With as many replicas as the servers are set to: one, or three on a cluster.
    create_topics(bootstrap_servers, largest, partitions, replicas=-1)
    yield
    delete_topics(bootstrap_servers, largest)


def wake(worker: WorkerProcess) -> None:
    """Let a stopped worker continue, if it still lives."""
    if worker.process.poll() is None:
        worker.signal(signal.SIGCONT)
