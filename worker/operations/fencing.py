"""Takes leases of partitions as a worker would, so that nothing which others have under way counts."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from worker.kafka.producing.lease import Lease, Leases
from worker.settings import Settings

# Each asks the broker some five times, over connections of its own.
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Fenced:
    """Partitions that nobody else can publish for; `commits` are their committed offsets since then."""

    leases: Leases
    held: Mapping[TopicPartition, Lease]
    commits: Mapping[TopicPartition, OffsetAndMetadata | None]


@asynccontextmanager
async def fenced(
    settings: Settings, group_id: str, partitions: Sequence[TopicPartition]
) -> AsyncIterator[Fenced]:
    """A lease of each partition for the group: its owner before is fenced, its committed offset is final.

    A worker that was stopped (SIGSTOP), or cut off, may hold outcomes and an offset in an open transaction.
    Committed after we have read the offset, they would come again behind it, and be published twice.
    """
    leases = Leases(
        group_id=group_id,
        client_options=settings.kafka_client_options(),
        topics=settings.topics.outputs,
        transaction_timeout_ms=settings.transaction_timeout_ms,
    )
    slots = asyncio.Semaphore(_AT_ONCE)

    async def take(partition: TopicPartition) -> Lease:
        async with slots:
            return await leases.take(partition)

    taking = [asyncio.ensure_future(take(partition)) for partition in partitions]
    try:
        held = {one.partition: one for one in await asyncio.gather(*taking)}
        # Only now: before, a pending transaction could still move an offset.
        commits = await leases.committed_offsets(partitions) if partitions else {}
        yield Fenced(leases, held, commits)
    finally:
        if taking:
            await asyncio.wait(taking)
        for one in taking:
            if not one.cancelled() and one.exception() is None:
                leases.drop(one.result())
        await leases.closed()
