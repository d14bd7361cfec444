"""The servers that the runs of one lane share: local processes that faults kill, freeze and cut off."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from db import migrate
from db.engine import create_engine
from tests.faults.proxy import Proxy
from tests.support.pooler import Pooler
from tests.support.shop import run_apart
from tests.support.worker_template import WorkerTemplate
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalController, LocalKafka, new_cluster
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import LocalPostgres
from worker.sandbox.servers.services import KafkaServer

# The commit times give the sequential model the order of the transactions.
POSTGRES_SETTINGS: Final = {"track_commit_timestamp": "on", "log_min_messages": "panic"}
# By default the broker looks for expired transactions every 10 s, which is long for a run.
_KAFKA_SETTINGS: Final = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500"}


class DatabaseServer(Protocol):
    """A PostgreSQL that has databases."""

    def create_database(self, name: str, template: str | None = None) -> str: ...
    def drop_database(self, name: str) -> None: ...


_ONE_MIGRATION_AT_A_TIME: Final = threading.Lock()  # alembic keeps its current context in a global variable


@dataclass(frozen=True)
class Site:
    """One Kafka, one PostgreSQL, a network to each that can fail, and an empty shop to copy."""

    kafka: KafkaServer
    postgres: LocalPostgres
    databases: DatabaseServer
    """where runs have theirs: `postgres`, or a pair of servers"""
    kafka_network: Proxy
    database_network: Proxy
    template: str
    """the name of an upgraded, empty database"""
    folder: Path
    """the servers' data and logs"""
    workers: WorkerTemplate
    pooler: Pooler | None = None
    """the pooler in front of `databases`"""

    def through_network(self, database_url: str) -> str:
        """The same database, by way of the pooler or of `database_network`."""
        parts, door = urlsplit(database_url), self.pooler or self.database_network
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{door.port}"))


@contextmanager
def broker_apart(folder: Path, **options: Any) -> Iterator[LocalKafka]:
    """A broker, to be started, with a running controller in a process of its own, which no fault touches.

    One that is its own controller comes up from a crash as the leader of what it does not lead any more
    (docs/kafka-limits.md). Both are gone at the end.
    """
    member = new_cluster(1)[0]
    controller = LocalController(folder, member)
    kafka = LocalKafka(folder, member=replace(member, node_id=member.node_id + 1), **options)
    try:
        controller.start()
        yield kafka
    finally:
        kafka.abandon()
        controller.abandon()


@contextmanager
def running_site(report: Callable[[str], None] = lambda sentence: None) -> Iterator[Site]:
    """A site with running servers; nothing of it is left at the end. Raises LocalServiceError."""
    with ExitStack() as stack:
        folder = stack.enter_context(data_folder())
        port = free_port()
        postgres = LocalPostgres(folder, settings=POSTGRES_SETTINGS)
        stack.callback(postgres.abandon)
        postgres.start()
        options = {"settings": _KAFKA_SETTINGS, "proxy_port": port, "report": report}
        kafka = stack.enter_context(broker_apart(folder, **options))
        kafka.start()
        assert kafka.proxied_port
        workers = WorkerTemplate(folder / "workers")
        stack.callback(workers.close)
        yield Site(
            kafka,
            postgres,
            postgres,
            stack.enter_context(Proxy(kafka.proxied_port, port=port)),
            stack.enter_context(Proxy(postgres.port)),
            make_template(postgres),
            folder,
            workers,
        )


def make_template(postgres: DatabaseServer) -> str:
    """Create the upgraded, empty database that each run's is copied from; its name."""

    async def upgrade() -> None:
        engine = create_engine(postgres.create_database("template_shop"))
        await migrate.upgrade(engine, "public")
        await engine.dispose()

    with _ONE_MIGRATION_AT_A_TIME:
        run_apart(upgrade())
    return "template_shop"
