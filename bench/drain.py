"""One drain: a backlog, the processes that drain it, what was measured, and whether the result is right.

What is measured, exactly:

- *Orders per second* = (all orders − those decided at the first look) ÷ (time of the last look − time of the
  first look). The first look is the first one that finds something decided by every process; the last one
  finds everything decided. A look is taken every 100 ms, near both ends every 20 ms. So start-up, joining
  the group and each process's first batch are excluded; everything else, the taking over of further
  partitions included, counts.
- An order of the *worker* counts when its input offset is committed. That commit and its outcome are one
  Kafka transaction, so it is the moment the outcome becomes visible to `read_committed` subscribers.
- An order of the *baseline* counts when its outcome is in the topic; it has no transactions, and its
  offsets are committed on a timer.
- The worker's whole backlog is written to Kafka before the processes start, in a transaction that is
  committed when every process has its partitions: two processes begin together, and on a full topic.
- *CPU*, in cores, between the same two looks: the processes, PostgreSQL (all backends), Kafka, and
  everything else on the machine.
- *Peak memory*: the largest VmHWM of any one process, from its start to the end of the drain.
"""

import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Final
from uuid import uuid4

from bench.contenders import Contender
from bench.crew import Crew, cpu_seconds, machine_cpu_seconds, peak_bytes, resident_bytes, started
from bench.errors import BenchError, WrongResultError
from bench.kafka import Backlog, Cluster, Topics
from bench.shop import Shops, as_plain_role, find_faults, stock_taken
from bench.workload import Workload

# Looking 50 times a second all the time cost Kafka a quarter of a core; the ends are what has to be sharp.
LOOK_SECONDS: Final = 0.1
SHARP_LOOK_SECONDS: Final = 0.02
SHARP_FROM: Final = 0.9  # of the orders
PARTITIONS: Final = 4
STARTED_WITHIN_SECONDS: Final = 120.0
# Not a speed limit: nothing at all moved for so long.
STUCK_SECONDS: Final = 120.0

Advance = Callable[[int], None]
"""shows a bar's new position"""


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one run. The pids are those of the server processes, for their CPU time."""

    cluster: Cluster
    shops: Shops
    postgres_pid: int
    kafka_pid: int


@dataclass(frozen=True, slots=True)
class Cores:
    """CPU time ÷ time: 1.0 is one core, busy all the time."""

    client: float
    postgres: float
    kafka: float
    elsewhere: float
    """on the rest of the machine, the benchmark's own looks included: far above 0.1, it was not quiet"""


@dataclass(frozen=True, slots=True)
class Look:
    """How many orders were decided at a time, by partition, and the memory of the largest process then."""

    at: float  # monotonic seconds
    by_partition: Mapping[int, int]
    resident_bytes: int = 0

    @property
    def orders(self) -> int:
        return sum(self.by_partition.values())


@dataclass(frozen=True, slots=True)
class Drained:
    """The measurements of one drain. `looks`: from the first that counts to the end."""

    orders_per_second: float
    cores: Cores | None  # None for a peer, and so is the next one
    peak_bytes: int | None
    looks: Sequence[Look] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """One measurement's own database, topics and consumer group."""

    servers: Servers
    database_url: str
    topics: Topics
    group_id: str

    def crew(self, contender: Contender, folder: Path) -> AbstractContextManager[Crew]:
        """The contender's processes, until the block ends; their logs are in the folder."""
        environment = self._environment(contender) | dict(contender.environment)
        return started(contender.command, contender.processes, environment, folder)

    def _environment(self, contender: Contender) -> dict[str, str]:
        values = {
            "KAFKA_BOOTSTRAP_SERVERS": self.servers.cluster.bootstrap_servers,
            "DATABASE_URL": as_plain_role(self.database_url) if contender.plain_role else self.database_url,
            "GROUP_ID": self.group_id,
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": "0",
            "ORDER_PLACED_TOPIC": self.topics.placed,
            "ORDER_CONFIRMED_TOPIC": self.topics.confirmed,
            "ORDER_REJECTED_TOPIC": self.topics.rejected,
            "DEAD_LETTER_TOPIC": self.topics.dead_letter,
        }
        return {f"ORDER_WORKER_{name}": value for name, value in values.items()}


def drain(
    servers: Servers,
    contender: Contender,
    workload: Workload,
    *,
    filled: Advance,
    shown: Advance,
    partitions: int = PARTITIONS,
    after_years: bool = False,
    afterwards: Callable[[Scene], None] = lambda _: None,
) -> Drained:
    """Drain the workload once on fresh topics and a fresh database; WrongResultError if the result is wrong.

    `after_years`: the tables are full already. `afterwards` sees the scene before it is gone.
    """
    with scene(servers, partitions, after_years) as here:
        before = stock_taken(here.database_url)
        with tempfile.TemporaryDirectory(prefix="order-worker-bench-") as folder:
            backlog = Backlog(servers.cluster.bootstrap_servers, here.topics.placed)
            backlog.fill(workload.messages(), filled)
            if not contender.exactly_once:
                backlog.release()
            with here.crew(contender, Path(folder)) as crew:
                shares = [set(range(partitions))]
                if contender.exactly_once:
                    shares = wait_until_shared_out(here, crew)
                    backlog.release()
                looks = _looks(here, contender, crew, workload.records, shown)
                result = _measure(servers, crew, from_where_all_began(looks, shares))
                crew.stop()
        require_right(here, contender, workload, before)
        afterwards(here)
        return result


def rate(first: Look, last: Look) -> float:
    """Orders per second between two looks."""
    return (last.orders - first.orders) / max(last.at - first.at, 1e-9)


def from_where_all_began(looks: Iterable[Look], shares: Sequence[Collection[int]]) -> Iterator[Look]:
    """The looks from the first on that finds something decided in each share of the partitions.

    An earlier begin would count a batch as done in no time, which another process has nearly finished.
    """
    return dropwhile(
        lambda look: not all(any(look.by_partition.get(p) for p in share) for share in shares), looks
    )


@contextmanager
def scene(servers: Servers, partitions: int = PARTITIONS, after_years: bool = False) -> Iterator[Scene]:
    """A database and topics that are gone afterwards."""
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.shops.fresh(after_years))
        topics = Topics.fresh(partitions)
        servers.cluster.create(topics)
        stack.callback(servers.cluster.delete, topics)
        yield Scene(servers, database_url, topics, f"bench-{uuid4().hex[:8]}")


def wait_until_shared_out(scene: Scene, crew: Crew, members: int | None = None) -> list[set[int]]:
    """Each member's partitions, as soon as each has some. `members`: of the group; default: the processes."""
    members = members or len(crew.processes)
    deadline = time.monotonic() + STARTED_WITHIN_SECONDS
    while not (shares := scene.servers.cluster.shares(scene.group_id, members, scene.topics)):
        crew.require_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"the processes had no partitions within {STARTED_WITHIN_SECONDS:g} s")
        time.sleep(0.1)
    return shares


def _measure(servers: Servers, crew: Crew, coming: Iterator[Look]) -> Drained:
    looks = [next(coming)]
    cpu_before = _cpu(servers, crew)
    looks.extend(coming)
    cpu_after = _cpu(servers, crew)
    first, last = looks[0], looks[-1]
    if last.orders <= first.orders:
        raise BenchError("everything was decided at the first look: take a larger --scale")
    seconds = last.at - first.at
    client, postgres, kafka, machine = (
        (after - before) / seconds for before, after in zip(cpu_before, cpu_after, strict=True)
    )
    cores = Cores(client, postgres, kafka, max(0.0, machine - client - postgres - kafka))
    return Drained(rate(first, last), cores, max(map(peak_bytes, crew.pids)), looks)


def _looks(scene: Scene, contender: Contender, crew: Crew, total: int, shown: Advance) -> Iterator[Look]:
    """Each look that saw more orders than the previous one, until all are decided."""
    seen, moved_at = 0, time.monotonic()
    while seen < total:
        look = Look(time.monotonic(), decided(scene, contender), max(map(resident_bytes, crew.pids)))
        if look.orders > total:
            raise WrongResultError(f"{look.orders} outcomes for {total} orders")
        if look.orders > seen:
            seen, moved_at = look.orders, look.at
            shown(seen)
            yield look
        elif look.at - moved_at > STUCK_SECONDS:
            raise BenchError(f"nothing moved for {STUCK_SECONDS:g} s at {seen} of {total} orders")
        crew.require_alive()
        time.sleep(LOOK_SECONDS if 0 < seen < SHARP_FROM * total else SHARP_LOOK_SECONDS)


def decided(scene: Scene, contender: Contender) -> dict[int, int]:
    cluster = scene.servers.cluster
    if contender.exactly_once:
        return cluster.committed(scene.group_id, scene.topics)
    return cluster.written(scene.topics)


def _cpu(servers: Servers, crew: Crew) -> tuple[float, float, float, float]:
    return (
        cpu_seconds(crew.pids),
        cpu_seconds([servers.postgres_pid]),
        cpu_seconds([servers.kafka_pid]),
        machine_cpu_seconds(),
    )


def require_right(
    scene: Scene, contender: Contender, workload: Workload, taken_before: Mapping[int, int]
) -> None:
    """Raise WrongResultError unless every order of the workload is confirmed, stored and published, once."""
    expected = workload.expected
    faults = find_faults(scene.database_url, expected, taken_before, has_ledger=contender.exactly_once)
    cluster, topics = scene.servers.cluster, scene.topics
    published = cluster.keys(topics.confirmed, topics)
    if unpublished := len(expected.order_ids - published.keys()):
        faults.append(f"{unpublished} orders have no outcome")
    if repeated := sum(count > 1 for count in published.values()):
        faults.append(f"{repeated} orders have more than one outcome")
    if foreign := len(published.keys() - expected.order_ids):
        faults.append(f"{foreign} outcomes are of orders that were never placed")
    for name, topic in (("rejections", topics.rejected), ("dead letters", topics.dead_letter)):
        if unwanted := cluster.keys(topic, topics).total():
            faults.append(f"{unwanted} {name}")
    if faults:
        raise WrongResultError(f"{contender.name}: {'; '.join(faults)}")
