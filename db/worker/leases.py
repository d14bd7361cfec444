"""Who may publish for each partition: the lease, which is a part of the partition's row in `positions`.

The row names the transactional id of its owner's producer. A worker that takes a lease which was not released
first starts a producer with that id: Kafka then ends the owner's open transaction, and refuses what it still
sends. Only then does the worker write its own id, and only if the row has not changed since it was read
(`take`). So only the owner that the row names can publish, and no transaction of a previous owner commits.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Position
from db.worker.positions import PendingBatch, pending_columns, pending_of


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has the lease of a partition. `epoch` counts the owners.

    `transactional_id`: of the producer that may have a transaction open; None: the lease was released.
    """

    epoch: int
    transactional_id: str | None


NOBODY = Holder(0, None)
"""the holder of a partition that has no row yet"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One ownership of a partition: `number` counts the owners, `pending` is the last batch on record."""

    number: int
    pending: PendingBatch | None


async def find_holders(
    session: AsyncSession, group_id: str, topic: str, partitions: Collection[int]
) -> dict[int, Holder]:
    """Who has the lease of each of these partitions."""
    rows = await session.execute(
        select(Position.partition, Position.epoch, Position.transactional_id).where(
            Position.group_id == group_id, Position.topic == topic, Position.partition.in_(partitions)
        )
    )
    found = {partition: Holder(epoch, transactional_id) for partition, epoch, transactional_id in rows}
    return {partition: found.get(partition, NOBODY) for partition in partitions}


async def take(
    session: AsyncSession, group_id: str, topic: str, partition: int, seen: Holder, transactional_id: str
) -> Epoch | None:
    """Become the owner after `seen`, and return how far that owner came; None: `seen` is no longer the owner.

    From the commit on, `record_pending` refuses every previous owner.
    """
    place = {"group_id": group_id, "topic": topic, "partition": partition}
    new = {"epoch": seen.epoch + 1, "transactional_id": transactional_id}
    statement = insert(Position).values(**place, **new)
    taken = await session.execute(
        statement.on_conflict_do_update(
            index_elements=list(place),
            set_=new,
            where=(Position.epoch == seen.epoch)
            & Position.transactional_id.is_not_distinct_from(seen.transactional_id),
        ).returning(Position.epoch, *pending_columns())
    )
    row = taken.one_or_none()
    if row is None:
        return None
    number, *state = row
    return Epoch(number, pending_of(state))


async def release(session: AsyncSession, group_id: str, topic: str, epochs: Mapping[int, int]) -> None:
    """Release the leases of these partitions, so that their next owners need not fence this producer.

    `epochs`: by partition, the epoch in which we held it; a lease that somebody has taken since stays theirs.
    Only for partitions of which all that was begun is published and committed.
    """
    await session.execute(
        update(Position)
        .where(
            Position.group_id == group_id,
            Position.topic == topic,
            tuple_(Position.partition, Position.epoch).in_(list(epochs.items())),
        )
        .values(transactional_id=None)
        .execution_options(synchronize_session=False)
    )


async def start_epoch(session: AsyncSession, group_id: str, topic: str, partition: int) -> Epoch:
    """Start an epoch without an owner, and return how far the last owner came.

    That owner can record no further batch. The row still names its producer, which may have a transaction
    open in Kafka.
    """
    statement = insert(Position).values(group_id=group_id, topic=topic, partition=partition, epoch=1)
    taken = await session.execute(
        statement.on_conflict_do_update(
            index_elements=[Position.group_id, Position.topic, Position.partition],
            set_={"epoch": Position.epoch + 1},
        ).returning(Position.epoch, *pending_columns())
    )
    number, *state = taken.one()
    return Epoch(number, pending_of(state))


async def hold_epoch(session: AsyncSession, group_id: str, topic: str, partition: int, epoch: int) -> bool:
    """Whether this epoch still lasts; if so, no other one starts before this transaction ends."""
    held = await session.scalar(
        select(Position.epoch)
        .where(
            Position.group_id == group_id,
            Position.topic == topic,
            Position.partition == partition,
            Position.epoch == epoch,
        )
        .with_for_update(read=True)
    )
    return held is not None
