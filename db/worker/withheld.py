"""Outcomes that are decided and not published, because their topic refuses them, each by itself.

The order is decided, its event is in the ledger, and its partition has continued. A row says what is still to
be published, and from which offset of the topic to search for it after an attempt with an unknown result.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import OrderOutcome, Position, WithheldOutcome


@dataclass(frozen=True, slots=True)
class Withheld:
    """One outcome that is withheld. `topic` refuses it, at `size_bytes` as a record batch of its own.

    `tried_from_offset`: if it was published, it lies there or behind in `tried_partition`; None: never tried.
    """

    order_id: UUID
    topic: str
    source_topic: str
    source_partition: int
    source_offset: int
    headers: str
    size_bytes: int
    reason: str
    what_to_do: str
    withheld_at: datetime
    tried_partition: int | None
    tried_from_offset: int | None
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Refused:
    """An outcome to be withheld."""

    order_id: UUID
    topic: str
    headers: str
    size_bytes: int
    reason: str
    what_to_do: str


_COLUMNS: Final = tuple(getattr(WithheldOutcome, name) for name in Withheld.__dataclass_fields__)


async def add_withheld(session: AsyncSession, refused: Sequence[Refused]) -> None:
    """Withhold these outcomes, which the ledger has. One that is withheld already stays as it is.

    One that was withheld and published before (an operator had it published again) starts over.
    """
    of_ledger = {
        row.order_id: row
        for row in await session.execute(
            select(
                OrderOutcome.order_id,
                OrderOutcome.source_topic,
                OrderOutcome.source_partition,
                OrderOutcome.source_offset,
            ).where(OrderOutcome.order_id.in_([one.order_id for one in refused]))
        )
    }
    for one in refused:
        row = of_ledger[one.order_id]
        values = {
            "order_id": one.order_id,
            "topic": one.topic,
            "source_topic": row.source_topic,
            "source_partition": row.source_partition,
            "source_offset": row.source_offset,
            "headers": one.headers,
            "size_bytes": one.size_bytes,
            "reason": one.reason,
            "what_to_do": one.what_to_do,
        }
        statement = upsert(WithheldOutcome).values(values)
        reset = {
            "headers": one.headers,
            "withheld_at": func.now(),
            "tried_partition": None,
            "tried_from_offset": None,
            "published_at": None,
        }
        await session.execute(
            statement.on_conflict_do_update(
                index_elements=[WithheldOutcome.order_id],
                set_=reset,
                where=WithheldOutcome.published_at.is_not(None),
            )
        )


async def list_withheld(session: AsyncSession, topic: str, partition: int | None = None) -> list[Withheld]:
    """All rows of an input topic, or of one of its partitions, also of what is published; by their source."""
    statement = select(*_COLUMNS).where(WithheldOutcome.source_topic == topic)
    if partition is not None:
        statement = statement.where(WithheldOutcome.source_partition == partition)
    rows = await session.execute(
        statement.order_by(WithheldOutcome.source_partition, WithheldOutcome.source_offset)
    )
    return [Withheld(**row._asdict()) for row in rows]


async def count_withheld(session: AsyncSession, topic: str) -> Mapping[int, int]:
    """By input partition, how many outcomes are withheld and not yet published."""
    rows = await session.execute(
        select(WithheldOutcome.source_partition, func.count())
        .where(WithheldOutcome.source_topic == topic, WithheldOutcome.published_at.is_(None))
        .group_by(WithheldOutcome.source_partition)
    )
    return {row[0]: row[1] for row in rows}


async def find_unpublished(session: AsyncSession, order_ids: Collection[UUID]) -> list[Withheld]:
    """Those of these orders that are withheld still, by their source."""
    rows = await session.execute(
        select(*_COLUMNS)
        .where(WithheldOutcome.order_id.in_(order_ids), WithheldOutcome.published_at.is_(None))
        .order_by(WithheldOutcome.source_partition, WithheldOutcome.source_offset)
    )
    return [Withheld(**row._asdict()) for row in rows]


async def begin_try(
    session: AsyncSession, order_ids: Collection[UUID], partition: int, from_offset: int
) -> None:
    """Remember where they will lie, before they are published."""
    await session.execute(
        update(WithheldOutcome)
        .where(WithheldOutcome.order_id.in_(order_ids))
        .values(tried_partition=partition, tried_from_offset=from_offset)
    )


async def mark_published(session: AsyncSession, order_ids: Collection[UUID]) -> None:
    """They were read in their topic."""
    await session.execute(
        update(WithheldOutcome)
        .where(WithheldOutcome.order_id.in_(order_ids), WithheldOutcome.published_at.is_(None))
        .values(published_at=func.now())
    )


async def remove_published(session: AsyncSession, group_id: str, topic: str) -> None:
    """Remove published ones from before the last two batches of their partition: those are never read again.

    Kafka may lose the offsets of those two (`db.worker.positions`), and then their records come again.
    """
    await session.execute(
        delete(WithheldOutcome).where(
            WithheldOutcome.published_at.is_not(None),
            WithheldOutcome.source_topic == topic,
            Position.group_id == group_id,
            Position.topic == WithheldOutcome.source_topic,
            Position.partition == WithheldOutcome.source_partition,
            WithheldOutcome.source_offset < Position.acknowledged_from,
        )
    )
