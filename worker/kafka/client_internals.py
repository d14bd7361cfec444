"""What clients and producers need of private attributes of aiokafka (0.14)."""

import asyncio
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import NoError, UnknownMemberIdError, for_code
from aiokafka.protocol.group import LeaveGroupRequest

SENDER_SECONDS: Final = 0.1  # for requests that have been answered already


async def leave_group(admin: AIOKafkaAdminClient, group_id: str, member_id: str) -> None:
    """Remove a member from its group; it need not be a member. Raises the coordinator's error."""
    coordinator = await admin.find_coordinator(group_id)
    answer = await admin._send_request_to_node(coordinator, LeaveGroupRequest(group_id, member_id))
    error = for_code(answer.error_code)
    if error not in (NoError, UnknownMemberIdError):
        raise error(f"removing {member_id} from the group {group_id}")


def hidden_topics(consumer: AIOKafkaConsumer) -> Collection[str]:
    """The consumer's topics that its user may not see."""
    hidden: Collection[str] = consumer._client.cluster.unauthorized_topics
    return hidden


async def partitions_of_topic(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    """The topic's partitions; `partitions_for_topic` knows only the topics that are assigned already."""
    found: set[int] = await consumer._client._wait_on_metadata(topic)
    return found


async def brokers_now(admin: AIOKafkaAdminClient) -> list[int]:
    """The ids of the brokers that the cluster lists now, in order."""
    await admin._client.force_metadata_update()
    return sorted(broker.nodeId for broker in admin._client.cluster.brokers())


async def ask_broker(admin: AIOKafkaAdminClient, broker: int, request: Any) -> Any:
    """This broker's response. Raises the error of the connection."""
    return await admin._client.send(broker, request)


def learn_brokers(
    consumer: AIOKafkaConsumer, producers: Iterable[AIOKafkaProducer], asked: AIOKafkaAdminClient
) -> bool:
    """Give the brokers' addresses of a new client to each client that knows none of them.

    aiokafka asks the bootstrap servers once. From then on it learns addresses from the brokers that it knows.
    If all of them have moved, it tries their old addresses without end. Returns whether that was so for any
    client.
    """
    now = asked._client.cluster
    lost = [
        client
        for client in (consumer._client, *(producer.client for producer in producers))
        if now._brokers and not _addresses(client.cluster) & _addresses(now)
    ]
    for client in lost:
        client.cluster._brokers = dict(now._brokers)
        client.force_metadata_update()
    return bool(lost)


def _addresses(cluster: ClusterMetadata) -> set[tuple[str, int]]:
    return {(broker.host, broker.port) for broker in cluster.brokers()}


def copies_of(client: AIOKafkaClient, partition: TopicPartition) -> tuple[int, int] | None:
    """How many copies of the partition are in sync, and how many there are, by the known metadata."""
    known = client.cluster._partitions.get(partition.topic, {}).get(partition.partition)
    return None if known is None else (len(known.isr), len(known.replicas))


def join_transaction(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """Add a partition to the open transaction; aiokafka itself adds one with a record only."""
    producer._txn_manager.maybe_add_partition_to_txn(place)


def end_of_transaction(producer: AIOKafkaProducer) -> "asyncio.Future[Any] | None":
    """Kafka's answer to the end of the transaction, if that is under way."""
    end: asyncio.Future[Any] | None = producer._txn_manager.wait_for_transaction_end()
    return end


def coordinator_awaited(producer: AIOKafkaProducer) -> str | None:
    """The topic of the coordinator that owes the open transaction an answer; None: none does."""
    open_one = producer._txn_manager
    is_joining = open_one.partitions_to_add() or open_one.consumer_group_to_add() is not None
    if is_joining or open_one.needs_transaction_commit() is not None:
        return "__transaction_state"
    return "__consumer_offsets" if open_one.offsets_to_commit() is not None else None


async def end_sender(producer: AIOKafkaProducer) -> None:
    """End the tasks that send: `stop` waits for messages that may never go out."""
    sender = producer._sender.sender_task
    # Cancelled, it waits for the requests that it has begun; cancelled once more, it ends.
    while sender is not None and not sender.done():
        sender.cancel()
        await asyncio.wait([sender], timeout=SENDER_SECONDS)
    for batch in _unsent(producer):
        batch.future.cancel()  # which `stop` still waits for, in a task of its own


def never_awaited(producer: AIOKafkaProducer) -> "list[asyncio.Future[Any]]":
    """What fails with the producer, and nobody waits for: of each batch, that it is on its way."""
    return [batch._drain_waiter for batch in _unsent(producer)]


def _unsent(producer: AIOKafkaProducer) -> Iterable[Any]:
    """The batches that are not acknowledged."""
    unsent = producer._message_accumulator
    return chain(unsent._pending_batches, *unsent._batches.values())
