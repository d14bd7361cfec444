"""The workers' consumer group: its lag and members, and offsets that somebody else commits or loses."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as Partition
from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tests.support.kafka_topics import admin_client, partition_numbers
from worker.kafka.offset_mark import MARK

# A new broker says so for a moment to the first client.
_NO_COORDINATOR_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


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


def group_members(bootstrap_servers: str, group_id: str) -> int | None:
    """How many are in the group; None while its coordinator does not know yet."""
    admin = admin_client(bootstrap_servers)
    try:
        return len(admin.describe_consumer_groups([group_id])[group_id].result(10).members)
    except KafkaException as error:
        if error.args[0].code() in _NO_COORDINATOR_YET:
            return None
        raise


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
