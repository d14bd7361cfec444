"""Chooses where Kafka and PostgreSQL run, and sees to it that they are gone afterwards."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, Protocol

from worker.sandbox.servers.containers import DockerKafka, DockerPostgres, docker_answers
from worker.sandbox.servers.errors import LocalServiceError
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import LocalPostgres

NO_DOCKER_VARIABLE = "ORDER_WORKER_NO_DOCKER"
_GIVE_UP_SECONDS = 5
_KAFKA_PORT, _POSTGRES_PORT = 9092, 5432  # the usual ones

Report = Callable[[str], None]
Kind = Literal["given", "docker", "local"]


class Server(Protocol):
    """What can be done to a server, in Docker or not. Port and data outlive stop, crash and restart."""

    port: int

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def crash(self) -> None: ...
    def restart(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def abandon(self) -> None: ...


class KafkaServer(Server, Protocol):
    @property
    def bootstrap_servers(self) -> str: ...


class PostgresServer(Server, Protocol):
    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class Services:
    kind: Kind
    kafka_bootstrap_servers: str
    database_url: str
    kafka: KafkaServer | None = None
    """None if given: what is not ours is not stopped"""
    postgres: PostgresServer | None = None


@contextmanager
def running_services(
    *,
    given_kafka: str | None = None,
    given_database: str | None = None,
    report: Report = lambda sentence: None,
    kafka_heap: str = "256m",
    kafka_settings: Mapping[str, str] | None = None,
    postgres_settings: Mapping[str, str] | None = None,
    usual_ports: bool = False,
) -> Iterator[Services]:
    """Kafka and PostgreSQL that answer: those given, else in Docker, else as local processes.

    What was started here is stopped and its data are removed at the end, whatever the end; should this
    process be killed, the servers die with it. `report` gets a sentence for people now and then, from
    several threads but never from two at a time. `usual_ports`: 9092 and 5432, where nobody listens on them.
    """
    if given_kafka or given_database:
        yield _given(given_kafka, given_database)
        return
    report = _one_at_a_time(report)

    def port(usual: int) -> int:
        return free_port(usual if usual_ports else None)

    with ExitStack() as stack:
        yield _in_docker(
            stack,
            lambda: DockerKafka(heap=kafka_heap, settings=kafka_settings, port=port(_KAFKA_PORT)),
            lambda: DockerPostgres(settings=postgres_settings, port=port(_POSTGRES_PORT)),
            report,
        ) or _local(
            stack,
            report,
            lambda folder: LocalKafka(
                folder, heap=kafka_heap, settings=kafka_settings, port=port(_KAFKA_PORT), report=report
            ),
            lambda folder: LocalPostgres(folder, settings=postgres_settings, port=port(_POSTGRES_PORT)),
        )


def _given(kafka: str | None, database: str | None) -> Services:
    if not kafka or not database:
        present, missing = (
            ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")
            if kafka
            else ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
        )
        raise LocalServiceError(
            f"ORDER_WORKER_{present} is set and ORDER_WORKER_{missing} is not: "
            "set both to use running servers, or neither"
        )
    return Services("given", kafka, database)


def _in_docker(
    stack: ExitStack,
    make_kafka: Callable[[], KafkaServer],
    make_postgres: Callable[[], PostgresServer],
    report: Report,
) -> Services | None:
    if os.environ.get(NO_DOCKER_VARIABLE) or not docker_answers():
        return None
    report("Starting Kafka and PostgreSQL in Docker (the first time their images are fetched)")
    try:
        kafka, postgres = make_kafka(), make_postgres()
        start_together({"Kafka": kafka, "PostgreSQL": postgres}, report)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        report(f"Docker answers but could not run them ({reason}); using local processes instead")
        return None
    stack.callback(kafka.abandon)
    stack.callback(postgres.abandon)
    return Services("docker", kafka.bootstrap_servers, postgres.url, kafka, postgres)


def _local(
    stack: ExitStack,
    report: Report,
    make_kafka: Callable[[Path], LocalKafka],
    make_postgres: Callable[[Path], LocalPostgres],
) -> Services:
    report("Starting Kafka and PostgreSQL as local processes")
    folder = stack.enter_context(data_folder())
    kafka, postgres = make_kafka(folder), make_postgres(folder)
    for server in (kafka, postgres):
        stack.callback(server.abandon)
        stack.callback(server.stop)
    start_together({"Kafka": kafka, "PostgreSQL": postgres}, report)
    return Services("local", kafka.bootstrap_servers, postgres.url, kafka, postgres)


def start_together(servers: Mapping[str, Server], report: Report = lambda sentence: None) -> None:
    """All of them run, or none: the first error, or Ctrl-C, ends the others too."""
    outcomes: SimpleQueue[Exception | None] = SimpleQueue()

    def start(name: str, server: Server) -> None:
        began = time.monotonic()
        try:
            server.start()
            report(f"{name} ready in {time.monotonic() - began:.1f} s")
            outcomes.put(None)
        except Exception as error:
            outcomes.put(error)

    # Daemons: a Ctrl-C should not have to wait for Docker to fetch an image.
    threads = [threading.Thread(target=start, args=item, daemon=True) for item in servers.items()]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            if error := outcomes.get():
                raise error
    except BaseException:
        _give_up(list(servers.values()), threads)
        raise


def _give_up(servers: Sequence[Server], threads: Sequence[threading.Thread]) -> None:
    with ExitStack() as every_one:
        for server in servers:
            every_one.callback(server.abandon)
    for thread in threads:
        if thread.is_alive():
            thread.join(_GIVE_UP_SECONDS)


def _one_at_a_time(report: Report) -> Report:
    lock = threading.Lock()

    def report_alone(sentence: str) -> None:
        with lock:
            report(sentence)

    return report_alone
