"""Which spans of the input no worker decides, by whom and why.

Two kinds. "skipped": nobody can unpack what lies there, and an operator skips it. "deleted": retention
deleted it before it was decided. An order that lay there is lost to the workers, so the rows stay for good.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Skip

SkipKind = Literal["skipped", "deleted"]


@dataclass(frozen=True, slots=True)
class SkippedSpan:
    """Offsets of one partition, `from_offset` up to, not including, `to_offset`, that no worker decides.

    `requested_by` is a person, or for "deleted" the group whose worker found it.
    """

    partition: int
    from_offset: int
    to_offset: int
    requested_by: str
    note: str
    requested_at: datetime
    kind: SkipKind = "skipped"


_COLUMNS: Final = (
    Skip.partition,
    Skip.from_offset,
    Skip.to_offset,
    Skip.requested_by,
    Skip.note,
    Skip.requested_at,
    Skip.kind,
)


def is_recorded(spans: Iterable[SkippedSpan], partition: int, first: int, end: int) -> bool:
    """Whether one of the spans says that these offsets, `end` not included, were deleted."""
    return any(
        span.kind == "deleted"
        and span.partition == partition
        and span.from_offset <= first
        and end <= span.to_offset
        for span in spans
    )


async def list_skips(session: AsyncSession, topic: str, partition: int | None = None) -> list[SkippedSpan]:
    """The spans of both kinds, by partition and first offset: of the whole topic, or of one partition."""
    statement = select(*_COLUMNS).where(Skip.topic == topic)
    if partition is not None:
        statement = statement.where(Skip.partition == partition)
    rows = await session.execute(statement.order_by(Skip.partition, Skip.from_offset, Skip.kind))
    return [SkippedSpan(**row._asdict()) for row in rows]


async def add_skip(
    session: AsyncSession,
    topic: str,
    partition: int,
    from_offset: int,
    to_offset: int,
    *,
    requested_by: str,
    note: str,
    kind: SkipKind = "skipped",
) -> bool:
    """Record a span, once: whether that changed anything.

    A row of the same kind that begins at the same offset stays as it is. Only a "deleted"
    span that has grown since it was found is recorded up to its new end.
    """
    statement = insert(Skip).values(
        topic=topic,
        partition=partition,
        kind=kind,
        from_offset=from_offset,
        to_offset=to_offset,
        requested_by=requested_by,
        note=note,
    )
    new = statement.excluded
    changed = await session.execute(
        statement.on_conflict_do_update(
            index_elements=[Skip.topic, Skip.partition, Skip.from_offset, Skip.kind],
            set_={"to_offset": new.to_offset, "note": new.note, "requested_at": func.now()},
            where=(Skip.kind == "deleted") & (Skip.to_offset < new.to_offset),
        ).returning(Skip.id)
    )
    return changed.first() is not None
