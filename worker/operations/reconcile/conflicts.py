"""Records that look like conflicts in SQL, but are the decided order with its lines in another order."""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import LedgerRow
from db.reconciliation import conflicts
from db.worker import ledger
from worker.core.decode import Decoded
from worker.core.same_order import is_same
from worker.kafka.consuming.reading import TopicReader, portions
from worker.operations.input_records import decode_kept

_PORTION: Final = 1_000


async def drop_reordered(
    consumer: TopicReader, session: AsyncSession, partitions: Iterable[TopicPartition], max_bytes: int
) -> int:
    """Drop the findings of orders that came again with their lines in another order; how many."""
    dropped = 0
    for partition in partitions:
        after = -1
        while found := await conflicts.list_conflicts(session, partition.partition, after, _PORTION):
            after = max(found)
            rows = await ledger.find_outcomes(session, set(found.values()))
            same: set[int] = set()
            async for _, records in portions(consumer, {partition: (min(found), after + 1)}):
                same |= {r.offset for r in records if _is_same(r, found, rows, max_bytes)}
            await conflicts.drop_conflicts(session, partition.partition, same)
            await session.commit()
            dropped += len(same)
    return dropped


def _is_same(
    record: ConsumerRecord, found: Mapping[int, UUID], rows: Mapping[UUID, LedgerRow], max_bytes: int
) -> bool:
    row = rows.get(found[record.offset]) if record.offset in found else None
    decoded = decode_kept(record, max_bytes) if row else None
    return (
        row is not None and isinstance(decoded, Decoded) and is_same(decoded.order, decoded.fingerprint, row)
    )
