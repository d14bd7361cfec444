"""A partition taken over as a worker does it, without what PostgreSQL knows of it."""

import asyncio
from contextlib import suppress

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError

from worker.kafka.producing.lease import Lease, Leases


async def committed_offset(leases: Leases, partition: TopicPartition) -> tuple[Lease, int | None]:
    """The partition's lease, and its committed offset since then."""
    lease = await leases.take(partition)
    try:
        # Only now: before, the old owner's pending transaction could still move the offset.
        committed = (await leases.committed_offsets([partition]))[partition]
    except BaseException:
        leases.drop(lease)
        raise
    return lease, None if committed is None else committed.offset


async def take_lease(leases: Leases, partition: TopicPartition) -> Lease:
    """As the worker does: a group coordinator that is not there yet is asked again."""
    async with asyncio.timeout(30):
        while True:
            with suppress(GroupCoordinatorNotAvailableError):
                return (await committed_offset(leases, partition))[0]
