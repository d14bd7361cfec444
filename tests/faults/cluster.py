"""Three Kafka brokers as local processes: every record is on all of them, and two are enough to continue."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import ClusterMetadata

from tests.faults.site import Site
from tests.support.kafka_topics import admin_client
from worker.sandbox.servers import LocalServiceError
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import ClusterMember, LocalKafka, new_cluster
from worker.sandbox.servers.processes import wait_until
from worker.sandbox.servers.services import start_together

GROUPS: Final = "__consumer_offsets"
TRANSACTIONS: Final = "__transaction_state"

_BROKERS: Final = 3
_IN_SYNC_SECONDS: Final = 60
_REPLICATED: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",  # its minimum in sync is the default's, as of all other topics
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class LocalKafkaCluster:
    """Brokers 1 to 3, each a controller as well: what is acknowledged survives any one of them.

    The verbs are those of a single server; with node ids they act on these brokers, without on all. Data and
    logs live in `folder`, which the caller makes and removes.
    """

    def __init__(self, folder: Path) -> None:
        self._brokers = {m.node_id: _broker(folder, m) for m in new_cluster(_BROKERS)}
        self.port = self._brokers[1].port

    @property
    def bootstrap_servers(self) -> str:
        """Of all three, so that a client finds the others when one is away."""
        return ",".join(broker.bootstrap_servers for broker in self._brokers.values())

    def start(self, *node_ids: int) -> None:
        """Return when they answer clients and have caught up on every partition they keep."""
        chosen = self._chosen(node_ids)
        start_together({f"Kafka {node_id}": broker for node_id, broker in chosen.items()})
        if not wait_until(lambda: self.in_sync(*chosen), _IN_SYNC_SECONDS):
            logs = ", ".join(str(broker.log_path) for broker in chosen.values())
            raise LocalServiceError(f"Kafka was not in sync within {_IN_SYNC_SECONDS} s; see {logs}")

    def stop(self, *node_ids: int) -> None:
        """An orderly shutdown, at the same time: the last of them would wait for the others' consent."""
        chosen = self._chosen(node_ids).values()
        with ThreadPoolExecutor(len(chosen)) as pool:
            list(pool.map(LocalKafka.stop, chosen))

    def crash(self, *node_ids: int) -> None:
        """`kill -9`; the others continue, if most are left."""
        for broker in self._chosen(node_ids).values():
            broker.crash()

    def restart(self, *node_ids: int) -> None:
        """Stop if they run, then start on the same data and ports; return when they have caught up."""
        self.stop(*node_ids)
        self.start(*node_ids)

    def freeze(self, *node_ids: int) -> None:
        """They stand still; connections stay open and they answer nobody."""
        for broker in self._chosen(node_ids).values():
            broker.freeze()

    def thaw(self, *node_ids: int) -> None:
        """Undo `freeze`."""
        for broker in self._chosen(node_ids).values():
            broker.thaw()

    def abandon(self) -> None:
        """Kill all of them for good, also out of a start in another thread."""
        for broker in self._brokers.values():
            broker.abandon()

    def leader(self, topic: str, partition: int) -> int:
        """The node id of the broker that leads the partition; -1 while none does."""
        return int(self._described().topics[topic].partitions[partition].leader)

    def coordinator_of(self, kept_in: str, name: str) -> int:
        """The broker in charge of a group (kept in `GROUPS`) or a transactional id (in `TRANSACTIONS`)."""
        partitions = self._described().topics[kept_in].partitions
        return int(partitions[_java_hash(name) % len(partitions)].leader)

    def in_sync(self, *node_ids: int) -> bool:
        """Whether they run, are in the cluster, and in sync with the leader of every partition they keep.

        The cluster itself notices a death only when the broker's session ends, after 1.5 s.
        """
        if not all(broker.alive for broker in self._chosen(node_ids).values()):
            return False
        try:
            described = self._described()
        except KafkaException:
            return False
        partitions = [p for topic in described.topics.values() for p in topic.partitions.values()]
        return all(p.leader >= 0 for p in partitions) and all(
            n in described.brokers and all(n in p.isrs or n not in p.replicas for p in partitions)
            for n in self._chosen(node_ids)
        )

    def _described(self) -> ClusterMetadata:
        return admin_client(self.bootstrap_servers).list_topics(timeout=5)

    def _chosen(self, node_ids: tuple[int, ...]) -> dict[int, LocalKafka]:
        return {node_id: self._brokers[node_id] for node_id in node_ids or self._brokers}


@contextmanager
def on_three_brokers(site: Site) -> Iterator[Site]:
    """The site with a cluster of three in the place of its Kafka; nothing of it is left at the end."""
    with data_folder() as folder:
        cluster = LocalKafkaCluster(folder)
        try:
            cluster.start()
            yield replace(site, kafka=cluster)
        finally:
            cluster.abandon()


def _broker(folder: Path, member: ClusterMember) -> LocalKafka:
    own = folder / f"broker-{member.node_id}"
    own.mkdir()
    return LocalKafka(own, settings=_REPLICATED, member=member)


def _java_hash(name: str) -> int:
    """As Kafka turns a name into the number of its partition: Java's hash of it, without the sign."""
    number = 0
    for character in name:
        number = (31 * number + ord(character)) % 2**32
    return min(number, 2**32 - number)
