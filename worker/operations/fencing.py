"""Takes leases of partitions as a worker would, so that open transactions of others cannot commit."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.producing.lease import Leases, Taken
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Fenced:
    """Partitions that nobody else can publish for; `commits` are their committed offsets since then."""

    leases: Leases
    held: Mapping[TopicPartition, Taken]
    commits: Mapping[TopicPartition, OffsetAndMetadata | None]


@asynccontextmanager
async def fenced(
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    group_id: str,
    partitions: Sequence[TopicPartition],
) -> AsyncIterator[Fenced]:
    """The lease of each partition for the group: previous owners are fenced, committed offsets are final.

    A worker that is frozen (SIGSTOP) or cut off may hold outcomes and an offset in an open transaction. If it
    committed them after we have read the offset, they would be published twice.
    """
    leases = Leases(
        ConsumerGroup(group_id, settings.order_placed_topic, sessions),
        client_options=settings.kafka_client_options(),
        topics=settings.topics.outputs,
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )
    held: dict[TopicPartition, Taken] = {}
    try:
        for partition, taken in (await leases.take(partitions) if partitions else {}).items():
            if isinstance(taken, Exception):
                raise taken
            held[partition] = taken
        # Only now: before, a pending transaction could still move an offset.
        commits = await leases.committed_offsets(partitions) if partitions else {}
        yield Fenced(leases, held, commits)
    finally:
        await leases.release(one.lease for one in held.values())
        await leases.producers.close()
