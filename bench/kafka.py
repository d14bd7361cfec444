"""The benchmark's view of Kafka, through librdkafka: a client that shares no code with what is measured."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from bench.errors import BenchError
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.operations.place.messages import Message
from worker.sandbox.servers.threads import run_async

REQUEST_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 5.0  # the caller polls anyway, and need not wait for an answer that may never come
# Its log lines about a server that starts or stops would break the table; errors are raised anyway.
_QUIET: Final[dict[str, str | int | float | bool]] = {"log_level": 0}
# At once: the answer has no records, and by default the broker waits for some.
_TOLD_OF_THE_END: Final[dict[str, int | bool]] = {"enable.partition.eof": True, "fetch.wait.max.ms": 10}
_DEAD_LETTER_MAX_BYTES: Final = 2 * 1024 * 1024
_HELD_AT_MOST_MS: Final = 10 * 60 * 1000  # how long a backlog may stay invisible; Kafka's cap is 15 min


@dataclass(frozen=True, slots=True)
class Topics:
    """One drain's own topics, all with the same number of partitions."""

    partitions: int
    placed: str
    confirmed: str
    rejected: str
    dead_letter: str

    @classmethod
    def fresh(cls, partitions: int) -> "Topics":
        suffix = uuid4().hex[:8]
        return cls(
            partitions,
            f"order-placed-{suffix}",
            f"order-confirmed-{suffix}",
            f"order-rejected-{suffix}",
            f"order-placed-dlt-{suffix}",
        )

    @property
    def outcomes(self) -> tuple[str, str]:
        return self.confirmed, self.rejected

    @property
    def all(self) -> tuple[str, str, str, str]:
        return self.placed, self.confirmed, self.rejected, self.dead_letter


class Backlog:
    """Orders that are in the topic, on disk, but in an open transaction: `read_committed` readers wait.

    So workers can start and share out the partitions first, and none of them gets a head start.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": f"bench-{topic}",
                "transaction.timeout.ms": _HELD_AT_MOST_MS,
                "acks": "all",
                **_QUIET,
                "linger.ms": 20,
                # As Kafka's own clients place a key.
                "partitioner": "murmur2_random",
            }
        )
        self._producer.init_transactions(REQUEST_SECONDS)
        self._producer.begin_transaction()

    def fill(self, messages: Iterable[Message], sent: Callable[[int], None]) -> None:
        """Return when every message is acknowledged; `sent` gets the number of those handed over."""
        for number, message in enumerate(messages, 1):
            self._produce(message)
            if number % 1_000 == 0:
                self._producer.poll(0)
                sent(number)
        self._producer.flush(REQUEST_SECONDS)

    def release(self) -> None:
        """From now on everybody sees all of it. Raises KafkaException if a single record is not there."""
        self._producer.commit_transaction(REQUEST_SECONDS)

    def _produce(self, message: Message) -> None:
        while True:
            try:
                self._producer.produce(self._topic, message.value, message.key)
                return
            except BufferError:
                self._producer.poll(0.05)


class Cluster:
    """Topics, offsets and outcomes of the benchmark's Kafka."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})

    def create(self, topics: Topics) -> None:
        room = {"max.message.bytes": str(_DEAD_LETTER_MAX_BYTES)}
        new = [
            NewTopic(name, topics.partitions, 1, config=room if name == topics.dead_letter else {})
            for name in topics.all
        ]
        for created in self._admin.create_topics(new).values():
            created.result(REQUEST_SECONDS)
        # Acknowledged, and not known to the brokers yet: a worker that starts now would miss its topics.
        run_async(lambda: self._until_known(topics))

    async def _until_known(self, topics: Topics) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        await admin.start()
        try:
            await until_all_brokers_know(admin, dict.fromkeys(topics.all, topics.partitions))
        finally:
            await admin.close()

    def delete(self, topics: Topics) -> None:
        for deleted in self._admin.delete_topics(list(topics.all)).values():
            deleted.result(REQUEST_SECONDS)

    def committed(self, group_id: str, topics: Topics) -> dict[int, int]:
        """How many records of each input partition the group has committed; the partitions begin at offset 0.

        The marker of the backlog's transaction, at each partition's end, is no record.
        """
        group = ConsumerGroupTopicPartitions(group_id, _parts(topics.placed, topics))
        answer = self._admin.list_consumer_group_offsets([group], request_timeout=REQUEST_SECONDS)
        found = answer[group_id].result(REQUEST_SECONDS).topic_partitions
        records = {p: max(0, end - 1) for p, end in self._ends(topics.placed, topics).items()}
        return {p.partition: min(max(0, p.offset), records[p.partition]) for p in found}

    def written(self, topics: Topics) -> dict[int, int]:
        """How many outcomes were ever written, by partition number, if nobody writes in transactions."""
        found: Counter[int] = Counter()
        for topic in topics.outcomes:
            found.update(self._ends(topic, topics))
        return dict(found)

    def _ends(self, topic: str, topics: Topics) -> dict[int, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = dict.fromkeys(_parts(topic, topics), latest)
        answer = self._admin.list_offsets(asked, request_timeout=REQUEST_SECONDS)
        return {p.partition: end.result(REQUEST_SECONDS).offset for p, end in answer.items()}

    def shares(self, group_id: str, members: int, topics: Topics) -> list[set[int]]:
        """Each member's partitions, once there are this many members and every partition has its owner.

        Empty until then.
        """
        try:
            answer = self._admin.describe_consumer_groups([group_id], request_timeout=LOOK_SECONDS)
            group = answer[group_id].result(LOOK_SECONDS)
        except (KafkaException, TimeoutError):
            return []  # the first member makes the group, and the first group of a cluster its coordinators
        owned = [{p.partition for p in m.assignment.topic_partitions} for m in group.members if m.assignment]
        settled = (
            group.state == ConsumerGroupState.STABLE
            and len(owned) == members
            and all(owned)
            and sum(map(len, owned)) == topics.partitions
        )
        return owned if settled else []

    def is_read(self, topics: Topics) -> bool:
        """Whether some group's members own all partitions of the input."""
        listed = self._admin.list_consumer_groups(request_timeout=REQUEST_SECONDS).result(REQUEST_SECONDS)
        for one in listed.valid or ():
            group = self._admin.describe_consumer_groups([one.group_id], request_timeout=REQUEST_SECONDS)
            members = group[one.group_id].result(REQUEST_SECONDS).members
            owned = {
                p.partition
                for m in members
                if m.assignment
                for p in m.assignment.topic_partitions
                if p.topic == topics.placed
            }
            if len(owned) == topics.partitions:
                return True
        return False

    def keys(self, topic: str, topics: Topics) -> Counter[bytes]:
        """How often each key occurs, as a `read_committed` subscriber sees the topic."""
        consumer = self.subscriber([topic], topics, **_TOLD_OF_THE_END)
        try:
            return self._read_to_end(consumer, topics.partitions)
        finally:
            consumer.close()

    def subscriber(self, names: Iterable[str], topics: Topics, **settings: str | int | bool) -> Consumer:
        """A `read_committed` subscriber, at the beginning of these topics."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap_servers,
                "group.id": f"bench-reader-{uuid4()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                **_QUIET,
                **settings,
            }
        )
        consumer.assign([TopicPartition(name, n, 0) for name in names for n in range(topics.partitions)])
        return consumer

    def _read_to_end(self, consumer: Consumer, partitions: int) -> Counter[bytes]:
        seen: Counter[bytes] = Counter()
        ended: set[int | None] = set()
        heard_at = time.monotonic()
        while len(ended) < partitions:
            # It waits for so many records or so long, whichever comes first.
            records: list[Any] = consumer.consume(5_000, 0.1)
            if records:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > REQUEST_SECONDS:
                raise BenchError(f"Kafka sent nothing for {REQUEST_SECONDS:g} s while outcomes were read")
            for record in records:
                error = record.error()
                if error is None:
                    seen[record.key() or b""] += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(record.partition())
                else:
                    raise KafkaException(error)
        return seen


def _parts(topic: str, topics: Topics) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(topics.partitions)]
