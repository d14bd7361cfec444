"""The ledger of outcomes: what was decided, from which record, and the event exactly as published."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from struct import Struct
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Text, Uuid, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.copy import copy_rows, field, time_field
from db.models import OrderOutcome, Replay


class LedgerRow(NamedTuple):
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

_START: Final = Struct(">hi16s").pack  # the number of fields, the order's id
_PLACE: Final = Struct(">iiiqi").pack  # partition and offset, the length of the event


async def find_outcomes(session: AsyncSession, order_ids: Collection[UUID]) -> dict[UUID, LedgerRow]:
    """The ledger rows of those orders that are decided already."""
    rows = await session.execute(_FIND, {"ids": list(order_ids)})
    return {row[0]: LedgerRow(*row) for row in rows}


async def add_outcomes(session: AsyncSession, rows: Iterable[LedgerRow]) -> None:
    """Write the rows, or raise UniqueViolationError when somebody else decided one of them meanwhile.

    Ordered by id, so that two workers that decide the same orders wait for each other in one
    direction only. COPY takes no ON CONFLICT and needs none: either way the batch must run again.
    """
    ordered = sorted(rows, key=lambda row: row.order_id.int)
    if ordered:
        await copy_rows(session, OrderOutcome.__tablename__, LedgerRow._fields, _pieces(ordered))


def _pieces(rows: Iterable[LedgerRow]) -> Iterator[bytes]:
    # Few different ones of each, and looked up in less than they are made.
    text_field = cache(lambda text: field(text.encode()))
    time = cache(time_field)
    for row in rows:
        event = row.event.encode()
        yield _START(len(row), 16, row.order_id.bytes)
        yield text_field(row.outcome)
        yield field(row.fingerprint)
        yield text_field(row.source_topic)
        yield _PLACE(4, row.source_partition, 8, row.source_offset, len(event))
        yield event
        yield time(row.decided_at)


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
