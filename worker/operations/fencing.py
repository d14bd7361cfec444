"""Owns partitions as a worker would, so that nothing which others still have under way counts."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from worker.core.steps import nothing_happens
from worker.kafka.offset_mark import is_workers_mark
from worker.pipeline.publisher import OwnedPartition, Publisher
from worker.settings import Settings

# Each asks the broker some five times, over connections of its own.
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Fenced:
    """Partitions that nobody else can publish for; `commits` are their committed offsets since then."""

    publisher: Publisher
    owned: Mapping[TopicPartition, OwnedPartition]
    commits: Mapping[TopicPartition, OffsetAndMetadata | None]


@asynccontextmanager
async def fenced(
    settings: Settings, group_id: str, partitions: Sequence[TopicPartition]
) -> AsyncIterator[Fenced]:
    """Each partition is owned for the group, its owner before is fenced, and its committed offset is final.

    A worker that was stopped (SIGSTOP), or cut off, may hold outcomes and an offset in an open transaction.
    Committed after we have read the offset, they would come again behind it, and be published twice.
    """
    publisher = Publisher(
        group_id=group_id,
        client_options=settings.kafka_client_options(),
        topics=(settings.order_confirmed_topic, settings.order_rejected_topic, settings.dead_letter_topic),
        transaction_timeout_ms=settings.transaction_timeout_ms,
        reached=nothing_happens,
    )
    slots = asyncio.Semaphore(_AT_ONCE)

    async def fence(partition: TopicPartition) -> OwnedPartition:
        async with slots:
            return await publisher.fence(partition)

    taking = [asyncio.ensure_future(fence(partition)) for partition in partitions]
    try:
        owned = {one.partition: one for one in await asyncio.gather(*taking)}
        # Only now: before, a pending transaction could still move an offset.
        commits = await publisher.committed_offsets(partitions) if partitions else {}
        for partition, commit in commits.items():
            if commit is not None:
                owned[partition].next_offset = commit.offset
                owned[partition].moved = not is_workers_mark(commit.metadata)
        yield Fenced(publisher, owned, commits)
    finally:
        if taking:
            await asyncio.wait(taking)
        for one in taking:
            if not one.cancelled() and one.exception() is None:
                publisher.put_away(one.result().producer)
        await publisher.closed()
