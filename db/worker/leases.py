"""Who may publish for each partition: the lease, which is a part of the partition's row in `positions`.

The row names the transactional id of its owner's producer. Whoever takes the lease without its release
initialises that id first, which makes Kafka end what the owner had open and refuse what it still sends. Only
then it takes the row, where that still is as it was read (`take`). So nobody publishes for a partition whose
row says another epoch, and nothing that an owner before has begun is committed any more.
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

    `transactional_id`: whose transactions may be open there; None: nobody's, for the lease was released.
    """

    epoch: int
    transactional_id: str | None


NOBODY = Holder(0, None)
"""of a partition that has no row yet"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """Somebody's ownership of a partition: `number` counts the owners, `pending` is how far they came."""

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
    """Become the owner after `seen`, and learn how far that one came; None: it is not the owner any more.

    From the commit on, `record_pending` refuses whoever was the owner before.
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
    """Let the next owners take these partitions as they are; `epochs`: of each, that in which it was ours.

    Only where nothing of it is being published, and everything that was is committed.
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
    """Let whoever is the owner record no further batch, and learn how far it came.

    It stays named as the one that may have something open in Kafka.
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
    """Whether it is still this owner's epoch; if so, none starts before this transaction ends."""
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
