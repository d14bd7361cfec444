"""A subscriber without code of the worker: librdkafka, read_committed, from a topic's start to its end."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from operator import methodcaller
from typing import Any, Final
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as Partition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from tests.support.deadline import eventually
from tests.support.shop import run_apart
from worker.kafka.offset_mark import MARK
from worker.kafka.topic_metadata import until_all_brokers_know

# A new broker says so for a moment to the first client.
_NO_COORDINATOR_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@dataclass(frozen=True)
class Message:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int
    offset: int
    timestamp: int

    @property
    def event(self) -> Any:
        assert self.value is not None
        return json.loads(self.value)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return values[-1].decode() if values and values[-1] is not None else None


@cache
def admin_client(bootstrap_servers: str) -> AdminClient:
    """The one client that asks these servers; it comes back by itself when they do.

    Never dropped: a failed future keeps a client in a cycle, and where the garbage collector frees that in a
    thread of librdkafka's, the process ends.
    """
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def partition_numbers(client: Consumer | AdminClient, topic: str) -> list[int]:
    """Which partitions the topic has.

    It asks until the broker knows the topic, which may be after the answer to its creation. Until then the
    broker names no partition, and a client would take the topic for empty.
    """
    return eventually(
        lambda: sorted(client.list_topics(topic, timeout=10).topics[topic].partitions),
        20,
        lambda: f"as the partitions of {topic}",
    )


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """All committed messages that are in the topic now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reader-{uuid4()}",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        partitions = partition_numbers(consumer, topic)
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        open_partitions, messages = set(partitions), []
        while open_partitions:
            # One at a time: a call for many waits until there are so many, or until its timeout.
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is None:
                messages.append(_message(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise AssertionError(error)
        return messages
    finally:
        consumer.close()


def publish(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    partition: int | None = None,
    headers: Sequence[tuple[str, bytes | None]] | None = None,
    key: bytes | None = None,
    compression: str = "none",
    timestamp_ms: int = 0,
) -> None:
    """Publish the values in order, and return when all are acknowledged. `timestamp_ms`: 0 is now."""
    producer = _producer(bootstrap_servers, compression)
    failures: list[Any] = []
    where: dict[str, Any] = {} if partition is None else {"partition": partition}
    try:
        producer.list_topics(topic, timeout=30)  # which may have got more partitions since it last looked
        for value in values:
            producer.produce(
                topic,
                value=value,
                key=key,
                headers=[*(headers or [])],
                timestamp=timestamp_ms,
                on_delivery=lambda error, _message: failures.append(error) if error else None,
                **where,
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not failures, failures
    except BaseException:
        forget_producers()
        raise


@cache
def _producer(bootstrap_servers: str, compression: str) -> Producer:
    """The one client that publishes to these servers: each new one waits for its id, half a second."""
    # A batch of the client counts as one message against the topic's limit, so it is kept below.
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,  # else a record that is tried again comes after those behind it
            "message.max.bytes": 9_000_000,
            "batch.size": 500_000,
            "linger.ms": 5,
            "compression.type": compression,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


def forget_producers() -> None:
    """Begin again with new clients: brokers that have forgotten records refuse what the old ones send."""
    _producer.cache_clear()


def committed_lag(bootstrap_servers: str, group_id: str, topic: str) -> int | None:
    """How many records of the topic the group has not committed yet; None while Kafka does not say."""
    with asking_for_lag(bootstrap_servers, group_id, topic) as lag:
        return lag()


@contextmanager
def asking_for_lag(bootstrap_servers: str, group_id: str, topic: str) -> Iterator[Callable[[], int | None]]:
    """`committed_lag`, for callers that poll."""
    # Not the admin client: when it learns that the coordinator has moved, it follows a null pointer
    # (librdkafka 2.16.0, its issue 5040).
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group_id,
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )

    def lag() -> int | None:
        try:
            asked = [TopicPartition(topic, number) for number in partition_numbers(consumer, topic)]
            committed = consumer.committed(asked, timeout=10)
            ends = [consumer.get_watermark_offsets(partition, timeout=10) for partition in committed]
        except KafkaException:
            return None
        return sum(
            end - (partition.offset if partition.offset >= 0 else start)
            for partition, (start, end) in zip(committed, ends, strict=True)
        )

    try:
        yield lag
    finally:
        consumer.close()


def end_of(bootstrap_servers: str, topic: str, partition: int) -> int:
    """The offset behind the last record or marker of a partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "end-of", "log_level": 0})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
    finally:
        consumer.close()


def foreign_consumer_in(
    bootstrap_servers: str, group_id: str, topic: str, protocol: str = "classic"
) -> Consumer:
    """A consumer in the workers' group that is no worker: it commits what it has read, automatically."""
    timeout = {"session.timeout.ms": 6_000} if protocol == "classic" else {}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group_id,
            "group.protocol": protocol,
            "client.id": "console-consumer",
            **timeout,
            "auto.commit.interval.ms": 200,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    return consumer


def forget_offsets(bootstrap_servers: str, group_id: str) -> None:
    """Let Kafka forget what the group has committed; nobody may be in it."""
    admin_client(bootstrap_servers).delete_consumer_groups([group_id])[group_id].result(10)


def remember_wrongly(
    bootstrap_servers: str,
    group_id: str,
    topic: str,
    offsets: Mapping[int, int],
    *,
    metadata: str = MARK,
) -> None:
    """Let Kafka return these offsets by partition, as if workers had committed them last; "": an operator."""

    async def commit() -> None:
        # librdkafka would add a null to the metadata. On its way out an automatic commit would commit the
        # same offsets without any metadata, now and then: an operator's move, which has to be believed.
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap_servers, group_id=group_id, enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign([Partition(topic, p) for p in offsets])
            await consumer.commit({Partition(topic, p): (o, metadata) for p, o in offsets.items()})
        finally:
            await consumer.stop()

    asyncio.run(commit())


def remember_wrongly_while_in_use(
    bootstrap_servers: str, group_id: str, topic: str, offsets: Mapping[int, int]
) -> None:
    """As `remember_wrongly`, with workers in the group: their own way to commit is open to anybody."""

    async def commit() -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, transactional_id=f"wrong-{uuid4()}"
        ) as producer:
            await producer.begin_transaction()
            answer = {Partition(topic, p): OffsetAndMetadata(o, MARK) for p, o in offsets.items()}
            await producer.send_offsets_to_transaction(answer, group_id)
            await producer.commit_transaction()

    asyncio.run(commit())


def create_topics(
    bootstrap_servers: str, largest_bytes: Mapping[str, int | None], partitions: int, replicas: int = 1
) -> None:
    """Create topics that take so large records (None: Kafka's own limit), and wait until all see them.

    `replicas`: -1 for as many as the brokers are set to.
    """
    admin = admin_client(bootstrap_servers)
    configs = {
        name: {} if size is None else {"max.message.bytes": str(size)} for name, size in largest_bytes.items()
    }
    new = [NewTopic(name, partitions, replicas, config=config) for name, config in configs.items()]
    for future in admin.create_topics(new).values():
        future.result(20)
    wait_until_known(bootstrap_servers, dict.fromkeys(largest_bytes, partitions))


def wait_until_known(bootstrap_servers: str, partitions: Mapping[str, int]) -> None:
    """Wait until each broker knows the partitions of each topic (a number), and a leader of each of them.

    The answer to a creation comes before that, and any of them may be asked next.
    """

    async def wait() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await admin.start()
        try:
            await until_all_brokers_know(admin, partitions)
        finally:
            await admin.close()

    run_apart(wait())


def delete_topics(bootstrap_servers: str, names: Iterable[str]) -> None:
    """Delete the topics, without waiting until clients notice."""
    for future in admin_client(bootstrap_servers).delete_topics(list(names)).values():
        future.result(60)  # at load 24, 10 s were too few right behind a restart of the broker


def recreate_topic(bootstrap_servers: str, topic: str, partitions: int | None = None) -> None:
    """Delete the topic and create an empty one of the same name, by default with as many partitions."""
    admin = admin_client(bootstrap_servers)
    partitions = partitions or len(partition_numbers(admin, topic))
    admin.delete_topics([topic])[topic].result(10)

    def created() -> bool:
        with suppress(KafkaException):  # still being deleted
            admin.create_topics([NewTopic(topic, partitions)])[topic].result(10)
            return True
        return False

    eventually(created)
    wait_until_known(bootstrap_servers, {topic: partitions})


def delete_records(bootstrap_servers: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete what lies before these offsets by partition, as retention would; -1: everything."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    for future in admin_client(bootstrap_servers).delete_records(places).values():
        future.result(10)


def group_members(bootstrap_servers: str, group_id: str) -> int | None:
    """How many are in the group; None while its coordinator does not know yet."""
    admin = admin_client(bootstrap_servers)
    try:
        return len(admin.describe_consumer_groups([group_id])[group_id].result(10).members)
    except KafkaException as error:
        if error.args[0].code() in _NO_COORDINATOR_YET:
            return None
        raise


def set_largest_record(bootstrap_servers: str, topic: str, largest_bytes: int) -> None:
    """Change how large a record the topic takes."""
    set_option(bootstrap_servers, topic, "max.message.bytes", str(largest_bytes))


def set_option(bootstrap_servers: str, topic: str, name: str, value: str) -> None:
    """Change an option of the topic."""
    _set_option(bootstrap_servers, ConfigResource.Type.TOPIC, topic, name, value)


def set_broker_option(bootstrap_servers: str, name: str, value: str) -> None:
    """Change an option that brokers take while they run, on each of them."""
    for node_id in admin_client(bootstrap_servers).list_topics(timeout=10).brokers:
        _set_option(bootstrap_servers, ConfigResource.Type.BROKER, str(node_id), name, value)


@contextmanager
def unverified_transactions(bootstrap_servers: str) -> Iterator[None]:
    """The brokers take records of transactions that the partition was not added to."""
    name = "transaction.partition.verification.enable"
    set_broker_option(bootstrap_servers, name, "false")
    try:
        yield
    finally:
        set_broker_option(bootstrap_servers, name, "true")


def _set_option(bootstrap_servers: str, kind: Any, resource_name: str, name: str, value: str) -> None:
    admin = admin_client(bootstrap_servers)
    change = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(kind, resource_name, incremental_configs=[change])
    admin.incremental_alter_configs([resource])[resource].result(10)
    asked = ConfigResource(kind, resource_name)
    # The answer says that it is stored; it is not in effect yet.
    eventually(lambda: admin.describe_configs([asked])[asked].result(10)[name].value == value, 10)


def _message(message: Any) -> Message:
    return Message(
        message.key(),
        message.value(),
        _headers(message),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
    )


# Called from C, which checks whether a call has left an error set. The interpreter's own method call does not
# check, and the error would be raised by the next call.
_READ_HEADERS: Final = methodcaller("headers")


def _headers(message: Any) -> list[tuple[str, bytes | None]]:
    """Empty where a name is not UTF-8, which librdkafka's binding cannot read."""
    try:
        return list(_READ_HEADERS(message) or ())
    except (SystemError, UnicodeDecodeError):
        return []
