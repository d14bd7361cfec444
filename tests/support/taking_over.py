"""Leases as a worker takes them."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from aiokafka import TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import session_factory
from worker.core.steps import Reached, nothing_happens
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.producing.lease import Lease, Leases, Taken


def leases_of(
    engine: AsyncEngine,
    kafka: str,
    topic: str,
    outputs: Sequence[str],
    *,
    group_id: str | None = None,
    reached: Reached = nothing_happens,
) -> Leases:
    """Those of a worker process, by default of a group of its own."""
    return Leases(
        ConsumerGroup(group_id or f"group-{uuid4()}", topic, session_factory(engine)),
        client_options={"bootstrap_servers": kafka},
        topics=outputs,
        transaction_timeout_ms=20_000,
        reached=reached,
    )


async def take(leases: Leases, partition: TopicPartition) -> Taken:
    """The partition's lease, or the error because of which there is none."""
    taken = (await leases.take([partition]))[partition]
    if isinstance(taken, Exception):
        raise taken
    return taken


async def committed_offset(leases: Leases, partition: TopicPartition) -> tuple[Lease, int | None]:
    """The partition's lease, and its committed offset since then."""
    lease = (await take(leases, partition)).lease
    # Only now: before, the old owner's pending transaction could still move the offset.
    committed = (await leases.committed_offsets([partition]))[partition]
    return lease, None if committed is None else committed.offset


async def take_lease(leases: Leases, partition: TopicPartition) -> Lease:
    """As the worker does: a group coordinator that is not there yet is asked again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return (await committed_offset(leases, partition))[0]
            except GroupCoordinatorNotAvailableError:
                await asyncio.sleep(0)
