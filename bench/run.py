"""What every part of the benchmark works with: servers of its own, its sizes, its rounds."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, TypeVar

import psutil

from bench.contenders import Contender
from bench.drain import PARTITIONS, Drained, Scene, Servers, drain
from bench.errors import BenchError
from bench.kafka import Cluster
from bench.screen import Screen
from bench.shop import LOG_KEPT_BYTES, Shops
from bench.workload import Workload
from worker.sandbox.servers import Services, running_services
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.postgres import LocalPostgres
from worker.sandbox.servers.services import NO_DOCKER_VARIABLE

T = TypeVar("T")

LEAST_ORDERS: Final = 200
_BUFFERS_AT_MOST_BYTES: Final = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Bench:
    """One run. `scale` multiplies all numbers of orders, `rounds` is how often each is measured."""

    servers: Servers
    screen: Screen
    rounds: int
    scale: float
    postgres_version: str

    def orders(self, count: int) -> int:
        return max(LEAST_ORDERS, round(count * self.scale))

    def drain(
        self,
        contender: Contender,
        workload: Workload,
        *,
        partitions: int = PARTITIONS,
        after_years: bool = False,
        afterwards: Callable[[Scene], None] = lambda _: None,
    ) -> Drained:
        with self.screen.bars(contender.name, workload.records) as (filled, shown):
            return drain(
                self.servers,
                contender,
                workload,
                filled=filled,
                shown=shown,
                partitions=partitions,
                after_years=after_years,
                afterwards=afterwards,
            )

    @contextmanager
    def default_postgres(self) -> Iterator["Bench"]:
        """This run on another PostgreSQL, which has its own defaults, until the block ends."""
        with data_folder() as folder:
            postgres = LocalPostgres(folder, shared_buffers="128MB", max_connections=100)
            try:
                postgres.start()
                shops = Shops(postgres.url)
                shops.prepare(log_kept_bytes=0)
                yield replace(
                    self, servers=replace(self.servers, shops=shops, postgres_pid=int(postgres.pid or 0))
                )
            finally:
                postgres.stop()
                postgres.abandon()

    def interleaved(
        self, entries: Mapping[str, Callable[[], T]], show: Callable[[T], str]
    ) -> dict[str, list[T]]:
        """The results of each entry, round by round."""
        results: dict[str, list[T]] = {name: [] for name in entries}
        for number in range(self.rounds):
            for name in turned(list(entries), number):
                result = entries[name]()
                results[name].append(result)
                self.screen.say(f"round {number + 1} of {self.rounds}  {name:<24} {show(result)}")
        return results


def turned(names: Sequence[T], number: int) -> Sequence[T]:
    """Each round begins with another entry, so that no entry always follows the same one."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


def orders_a_second(drained: Drained) -> str:
    return f"{drained.orders_per_second:>9,.0f} orders/s"


def median_rate(drains: Sequence[Drained]) -> float:
    return median(drained.orders_per_second for drained in drains)


@contextmanager
def running_bench(screen: Screen, rounds: int, scale: float) -> Iterator[Bench]:
    """Our own servers as local processes, never in Docker, so that their CPU time can be measured."""
    os.environ[NO_DOCKER_VARIABLE] = "1"
    with running_services(report=screen.say, postgres_settings=_server_settings()) as services:
        shops = Shops(services.database_url)
        version = shops.prepare()
        postgres_pid, kafka_pid = _pids(services)
        servers = Servers(Cluster(services.kafka_bootstrap_servers), shops, postgres_pid, kafka_pid)
        yield Bench(servers, screen, rounds, scale, version)


def _server_settings() -> Mapping[str, str]:
    """What PostgreSQL's manual advises for a server that writes much; its defaults are for any small machine.

    A quarter of the memory for buffers, and room for the log, so that checkpoints come by time, not by size.
    Files of the log that are there are kept, and not recreated.
    """
    buffers_bytes = min(_BUFFERS_AT_MOST_BYTES, psutil.virtual_memory().total // 4)
    return {
        "shared_buffers": f"{buffers_bytes // 1024**2}MB",
        "max_wal_size": "8GB",
        "min_wal_size": f"{LOG_KEPT_BYTES // 1024**2}MB",
    }


def _pids(services: Services) -> tuple[int, int]:
    pids = [getattr(server, "pid", None) for server in (services.postgres, services.kafka)]
    if not all(pids):
        raise BenchError("the servers are no processes of ours")
    return int(pids[0] or 0), int(pids[1] or 0)
