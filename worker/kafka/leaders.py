"""Finds partitions without a leader: aiokafka waits for one until its time limit, and does not name them."""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from worker.kafka.client_internals import copies_of

# An election takes less, once the brokers have noticed that the leader died.
PATIENCE_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 5.0  # far away, with TLS and a login, it takes some round trips
_ASK_AGAIN_SECONDS: Final = 0.25
_MOST_NAMED: Final = 3


class _SentenceError(KafkaError):  # type: ignore[misc]
    """Its text is a sentence for people, without the name of the error before it."""

    def __str__(self) -> str:
        return str(self.args[0])


class NoLeaderError(_SentenceError):
    """No broker leads these partitions, or the one that does cannot be reached."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        copies = "its copies" if len(partitions) == 1 else "their copies"
        super().__init__(f"no broker leads {_names(partitions)}: start one of those that hold {copies}")


class UnknownPartitionError(NoLeaderError):
    """The brokers know no such partitions (any more)."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        super().__init__(partitions)
        self.args = (
            f"Kafka knows no {_names(partitions)}: was the topic deleted, or created again with fewer"
            " partitions?",
        )


class TooFewInSyncError(_SentenceError):
    """Too few copies of these partitions are in sync, so they accept no records."""

    def __init__(self, client: AIOKafkaClient, partitions: Collection[TopicPartition]) -> None:
        names = ", ".join(_with_copies(client, partitions))
        super().__init__(
            f"fewer copies than min.insync.replicas are in sync of {names}: start a broker that holds one"
        )


class NotTakenError(_SentenceError):
    """These partitions have not acknowledged in time what was sent: perhaps too few copies are in sync."""

    def __init__(
        self, client: AIOKafkaClient, partitions: Collection[TopicPartition], seconds: float
    ) -> None:
        names = ", ".join(_with_copies(client, partitions))
        super().__init__(
            f"no answer within {seconds:g} s to what was sent to {names}: look at its brokers, and"
            " whether fewer copies than min.insync.replicas are in sync"
        )


class NoCoordinatorError(_SentenceError):
    """A coordinator has not answered in time, for example because it cannot write to its topic."""

    def __init__(self, topic: str, seconds: float) -> None:
        """`topic`: where the coordinator keeps its state."""
        super().__init__(
            f"no answer within {seconds:g} s from the coordinator that writes to {topic}: look at its"
            " brokers, and whether fewer copies than min.insync.replicas are in sync"
        )


class NotStartedError(_SentenceError):
    """A producer could not start in time: Kafka has to store its id, and to end its open transaction."""

    def __init__(self, client: AIOKafkaClient, outputs: Collection[TopicPartition], seconds: float) -> None:
        """`outputs`: the partitions where the open transaction may have written."""
        behind = [p for p in sorted(outputs) if _is_behind(client, p)]
        names = ["__transaction_state", "__consumer_offsets", *_with_copies(client, behind)]
        super().__init__(
            f"Kafka has not ended the last transaction within {seconds:g} s, or begun no other: look at the"
            f" brokers of {', '.join(names)}, and whether fewer copies than min.insync.replicas are in sync"
        )


class LeaderReturnedError(_SentenceError):
    """These partitions had no leader when the lease was taken, so it lacks their ends."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        super().__init__(f"{_names(partitions)} had no leader before")


async def leaderless(
    client: AIOKafkaClient, partitions: Iterable[TopicPartition], patience_seconds: float = PATIENCE_SECONDS
) -> set[TopicPartition]:
    """Those without a leader that can be reached, also after some patience and a look at the brokers."""
    deadline = time.monotonic() + patience_seconds
    left = set(partitions)
    for topic in {p.topic for p in left}:
        if client.cluster.partitions_for_topic(topic) is None:
            await client.add_topic(topic)
    left = await _not_led(client, left)
    while left:
        await client.force_metadata_update()
        left = await _not_led(client, left)
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    return left


async def require_leaders(client: AIOKafkaClient, partitions: Iterable[TopicPartition]) -> None:
    """Raise NoLeaderError, or UnknownPartitionError, if some of the partitions are `leaderless`."""
    if unled := await leaderless(client, partitions):
        unknown = {p for p in unled if client.cluster.leader_for_partition(p) is None}
        raise UnknownPartitionError(unknown) if unknown else NoLeaderError(unled)


def too_few_in_sync(client: AIOKafkaClient, least: Mapping[TopicPartition, int]) -> set[TopicPartition]:
    """The partitions with fewer copies in sync than `least`, by the known metadata. Sends no request."""
    known = {p: copies for p in least if (copies := copies_of(client, p))}
    # Kafka asks for no more copies than there are.
    return {p for p, (in_sync, copies) in known.items() if in_sync < min(least[p], copies)}


def has_leader(client: AIOKafkaClient, partition: TopicPartition) -> bool:
    """By the known metadata. Sends no request."""
    return client.cluster.leader_for_partition(partition) not in (None, -1)


def _names(partitions: Collection[TopicPartition]) -> str:
    names = [f"{p.topic}-{p.partition}" for p in sorted(partitions)[:_MOST_NAMED]]
    if left := len(partitions) - len(names):
        names.append(f"{left:,} more")
    return ", ".join(names)


def _with_copies(client: AIOKafkaClient, partitions: Iterable[TopicPartition]) -> list[str]:
    return [f"{p.topic}-{p.partition}{_copies(client, p)}" for p in sorted(partitions)[:_MOST_NAMED]]


def _is_behind(client: AIOKafkaClient, partition: TopicPartition) -> bool:
    known = copies_of(client, partition)
    return known is not None and known[0] < known[1]


def _copies(client: AIOKafkaClient, partition: TopicPartition) -> str:
    known = copies_of(client, partition)
    return "" if known is None else f" ({known[0]} of {known[1]} copies in sync)"


async def _not_led(client: AIOKafkaClient, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
    leaders = {p: client.cluster.leader_for_partition(p) for p in partitions}
    # The brokers notice a death only when that broker's session ends: until then they name it as the leader.
    reached = {node: await _is_reached(client, node) for node in {*leaders.values()} - {None, -1}}
    return {p for p, node in leaders.items() if not reached.get(node)}


async def _is_reached(client: AIOKafkaClient, node_id: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return bool(await client.ready(node_id))
    except TimeoutError:
        return False
