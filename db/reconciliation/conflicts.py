"""Findings of records that are another order than the decided one, by what SQL can compare."""

from collections.abc import Collection, Mapping
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def list_conflicts(session: AsyncSession, partition: int, after: int, limit: int) -> Mapping[int, UUID]:
    """The next records of the partition that seem to be another order than the decided one, by offset."""
    rows = await session.execute(
        text(
            "SELECT record_offset, order_id FROM reconciled_findings WHERE code = 'conflict_and_lost'"
            " AND partition = :partition AND record_offset > :after ORDER BY record_offset LIMIT :limit"
        ),
        {"partition": partition, "after": after, "limit": limit},
    )
    return dict(rows.all())


async def drop_conflicts(session: AsyncSession, partition: int, offsets: Collection[int]) -> None:
    """Forget those findings: they are the decided orders after all."""
    await session.execute(
        text(
            "DELETE FROM reconciled_findings WHERE code = 'conflict_and_lost'"
            " AND partition = :partition AND record_offset = ANY (:offsets)"
        ),
        {"partition": partition, "offsets": list(offsets)},
    )
