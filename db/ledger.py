"""The ledger of outcomes: what was decided, from which record, and the event exactly as published."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import raw_connection
from db.models import OrderOutcome, Replay


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One decided order. `event` is the outcome's JSON, byte for byte; `decided_at` is aware UTC."""

    order_id: UUID
    outcome: str
    fingerprint: bytes
    source_topic: str
    source_partition: int
    source_offset: int
    event: str
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class SilentReplay:
    """Offsets from `from_offset` up to, not including, `to_offset` that an operator replays silently."""

    from_offset: int
    to_offset: int
    requested_at: datetime


_FIND: Final = select(
    OrderOutcome.order_id,
    OrderOutcome.outcome,
    OrderOutcome.fingerprint,
    OrderOutcome.source_topic,
    OrderOutcome.source_partition,
    OrderOutcome.source_offset,
    cast(OrderOutcome.event, Text),
    OrderOutcome.decided_at,
).where(OrderOutcome.order_id == any_(bindparam("ids", type_=ARRAY(Uuid))))

_COLUMNS: Final = tuple(LedgerRow.__dataclass_fields__)


async def find_outcomes(session: AsyncSession, order_ids: Collection[UUID]) -> dict[UUID, LedgerRow]:
    """The ledger rows of those orders that are decided already."""
    rows = await session.execute(_FIND, {"ids": list(order_ids)})
    return {row[0]: LedgerRow(*row) for row in rows}


async def add_outcomes(session: AsyncSession, rows: Iterable[LedgerRow]) -> None:
    """Write the rows, or raise UniqueViolationError when somebody else decided one of them meanwhile.

    Ordered by id, so that two workers that decide the same orders wait for each other in one
    direction only. COPY takes no ON CONFLICT and needs none: either way the batch must run again.
    """
    ordered = sorted(rows, key=lambda row: row.order_id)
    if ordered:
        connection = await raw_connection(session)
        await connection.copy_records_to_table(
            OrderOutcome.__tablename__,
            columns=_COLUMNS,
            records=[
                (
                    r.order_id,
                    r.outcome,
                    r.fingerprint,
                    r.source_topic,
                    r.source_partition,
                    r.source_offset,
                    r.event,
                    r.decided_at,
                )
                for r in ordered
            ],
        )


async def list_replays(session: AsyncSession, topic: str, partition: int) -> list[SilentReplay]:
    """Every silent replay ever asked for on this partition."""
    rows = await session.execute(
        select(Replay.from_offset, Replay.to_offset, Replay.requested_at).where(
            Replay.topic == topic, Replay.partition == partition
        )
    )
    return [SilentReplay(*row) for row in rows]


async def database_time(session: AsyncSession) -> datetime:
    """The time of this transaction by the database's clock, the one clock all workers share."""
    return (await session.execute(select(func.now()))).scalar_one()
