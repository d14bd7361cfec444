"""Which servers are used: given ones, Docker's, or local processes."""

from typing import Any

import pytest
from docker.models.containers import ExecResult

from worker.sandbox.servers import (
    LocalServiceError,
    Services,
    containers,
    running_services,
    services,
)
from worker.sandbox.servers.containers import DockerKafka, DockerPostgres


@pytest.fixture
def without_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "docker_answers", lambda: False)


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
