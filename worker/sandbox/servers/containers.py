"""Kafka and PostgreSQL in Docker, by testcontainers."""

from collections.abc import Mapping
from typing import Any

from worker.sandbox.servers.errors import LocalServiceError, missing_package
from worker.sandbox.servers.kafka import SINGLE_BROKER_SETTINGS, answers
from worker.sandbox.servers.ports import free_port, is_open
from worker.sandbox.servers.processes import wait_until
from worker.sandbox.servers.threads import run_async

KAFKA_IMAGE = "apache/kafka:4.3.1"
POSTGRES_IMAGE = "postgres:18"
_READY_SECONDS = 120
_STOP_SECONDS = 15
_CONTROLLER_PORT, _INTERNAL_PORT, _EXTERNAL_PORT = 9093, 19092, 9092
_POSTGRES_PORT = 5432


def docker_answers() -> bool:
    """Whether there is a Docker engine to talk to; any trouble means no."""
    try:
        import docker

        client = docker.from_env(timeout=2)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:
        return False


class _Container:
    """The verbs both share. The port was chosen beforehand, so it outlives stop, crash and restart."""

    name: str

    def __init__(self, port: int | None) -> None:
        self.port = port or free_port()
        self._container: Any = None
        self._host = "127.0.0.1"
        self._abandoned = False

    def start(self) -> None:
        """Return when the server answers."""
        if self._container is None:
            self._container, self._host = self._create()
            self._container.start()
        else:
            self._docker.start()
        if self._abandoned:
            self.abandon()
            raise LocalServiceError(f"{self.name} was stopped while it was starting")
        if not wait_until(self._is_ready, _READY_SECONDS):
            late = f"{self.name} was not ready in Docker within {_READY_SECONDS} s"
            raise LocalServiceError(f"{late}; its log ends: {self._log_end()}")

    def stop(self) -> None:
        """An orderly shutdown; the data stay."""
        if self._container is not None:
            self._docker.stop(timeout=_STOP_SECONDS)

    def crash(self) -> None:
        """SIGKILL; the data stay."""
        self._docker.kill()

    def restart(self) -> None:
        """Stop if it runs, then start on the same data and port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Freeze the server: connections stay open and get no answer."""
        self._docker.pause()

    def thaw(self) -> None:
        self._docker.unpause()

    def abandon(self) -> None:
        """Remove the container and its data, also if it was never started."""
        self._abandoned = True
        if self._container is not None:
            self._container.stop(force=True, delete_volume=True)

    @property
    def _docker(self) -> Any:
        return self._container.get_wrapped_container()

    def _log_end(self) -> str:
        log: bytes = self._docker.logs(tail=5)
        return " | ".join(log.decode(errors="replace").split("\n"))

    def _create(self) -> tuple[Any, str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError


class DockerKafka(_Container):
    """One broker that is its own controller, as `kafka.LocalKafka`."""

    name = "Kafka"

    def __init__(
        self, *, heap: str = "256m", settings: Mapping[str, str] | None = None, port: int | None = None
    ) -> None:
        super().__init__(port)
        self._heap = heap
        self._settings = dict(settings or {})

    @property
    def bootstrap_servers(self) -> str:
        return f"{self._host}:{self.port}"

    def environment(self, host: str) -> dict[str, str]:
        """What the image `apache/kafka` makes its server.properties from."""
        settings = {**_listeners(host, self.port), **SINGLE_BROKER_SETTINGS, **self._settings}
        variables = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
        return variables | {"KAFKA_HEAP_OPTS": f"-Xmx{self._heap}"}

    def _create(self) -> tuple[Any, str]:
        container_class = _import_container()
        # Not testcontainers' KafkaContainer: it does not fit this image.
        container = container_class(KAFKA_IMAGE).with_bind_ports(_EXTERNAL_PORT, self.port)
        host = _host(container)
        return container.with_envs(**self.environment(host)), host

    def _is_ready(self) -> bool:
        return is_open(self.port, self._host) and run_async(lambda: answers(self.bootstrap_servers))


class DockerPostgres(_Container):
    """As `postgres.LocalPostgres`."""

    name = "PostgreSQL"

    def __init__(
        self,
        *,
        shared_buffers: str = "256MB",
        max_connections: int = 200,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(port)
        self._settings = {
            "shared_buffers": shared_buffers,
            "max_connections": str(max_connections),
            **(settings or {}),
        }

    @property
    def url(self) -> str:
        return f"postgresql://postgres:postgres@{self._host}:{self.port}/postgres"

    def _create(self) -> tuple[Any, str]:
        container_class = _import_postgres_container()
        names = dict.fromkeys(("username", "password", "dbname"), "postgres")
        container = container_class(POSTGRES_IMAGE, driver=None, **names)
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        container = container.with_bind_ports(_POSTGRES_PORT, self.port).with_command(["postgres", *options])
        return container, _host(container)

    def _is_ready(self) -> bool:
        return is_open(self.port, self._host) and run_async(lambda: _accepts_queries(self.url))


async def _accepts_queries(url: str) -> bool:
    import asyncpg

    try:
        connection: Any = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


def _listeners(host: str, port: int) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@localhost:{_CONTROLLER_PORT}",
        "controller.listener.names": "CONTROLLER",
        # The broker writes transaction markers to itself, at its advertised address: that of the host
        # means nothing in there.
        "inter.broker.listener.name": "INTERNAL",
        "listeners": (
            f"EXTERNAL://0.0.0.0:{_EXTERNAL_PORT},INTERNAL://localhost:{_INTERNAL_PORT},"
            f"CONTROLLER://localhost:{_CONTROLLER_PORT}"
        ),
        "advertised.listeners": f"EXTERNAL://{host}:{port},INTERNAL://localhost:{_INTERNAL_PORT}",
        "listener.security.protocol.map": "EXTERNAL:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }


def _host(container: Any) -> str:
    host = str(container.get_docker_client().host())
    # "localhost" may mean ::1 first, where not every engine forwards the port.
    return "127.0.0.1" if host == "localhost" else host


def _import_container() -> Any:
    try:
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        raise missing_package(error) from error
    return DockerContainer


def _import_postgres_container() -> Any:
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError as error:
        raise missing_package(error) from error
    return PostgresContainer
