"""The ledger of outcomes: what was decided, from which record, and the event exactly as published."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import eq, ge, le, lt
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.copy import copy_rows
from db.bulk.rows import LedgerRow, require_all
from db.models import Order, OrderOutcome, Replay
from db.statuses import Outcome, SilentReplay


@dataclass(frozen=True, slots=True)
class OutcomeFilter:
    """Some rows of the ledger: those for which all that is given holds. None, and no ids: not given."""

    order_ids: tuple[UUID, ...] = ()
    decided_from: datetime | None = None
    decided_before: datetime | None = None  # not at that time
    decided_by: datetime | None = None  # at that time, too
    source_topic: str | None = None
    source_partition: int | None = None
    first_offset: int | None = None
    last_offset: int | None = None  # it too
    outcome: Outcome | None = None


class OutcomeCount(NamedTuple):
    """How many rows have this outcome and come from this partition."""

    outcome: str
    source_topic: str
    source_partition: int
    rows: int


class DecidedOrder(NamedTuple):
    """An order and when it was decided."""

    order_id: UUID
    decided_at: datetime


# Typed by hand: of more than nine columns a type checker does not know how many there are.
ROWS: Final[Select[*tuple[Any, ...]]] = select(
    OrderOutcome.order_id,
    OrderOutcome.outcome,
    OrderOutcome.fingerprint,
    OrderOutcome.source_topic,
    OrderOutcome.source_partition,
    OrderOutcome.source_offset,
    cast(OrderOutcome.event, Text),
    OrderOutcome.decided_at,
    OrderOutcome.sorted_fingerprint,
    OrderOutcome.passed_on,
)
_IS_ASKED_FOR: Final = OrderOutcome.order_id == any_(bindparam("order_ids", type_=ARRAY(Uuid)))
_FIND: Final = ROWS.where(_IS_ASKED_FOR)
DECIDED: Final = select(func.count()).select_from(OrderOutcome).where(_IS_ASKED_FOR)
"""how many of the `order_ids` are decided already"""


async def find_outcomes(session: AsyncSession, order_ids: Collection[UUID | str]) -> dict[UUID, LedgerRow]:
    """The ledger rows of those orders that are decided already."""
    rows = await session.execute(_FIND, {"order_ids": list(order_ids)})
    return {row[0]: LedgerRow(*row) for row in rows}


async def add_outcomes(session: AsyncSession, rows: Iterable[bytes]) -> None:
    """Write encoded rows, or raise UniqueViolationError when somebody else decided one of them meanwhile,
    and RowsNotWrittenError where a trigger has left out some.

    Ordered by id, so that two workers that decide the same orders wait for each other in one
    direction only. COPY takes no ON CONFLICT and needs none: either way the batch must run again.
    """
    ordered = sorted(rows)  # as bytes: they begin alike, and then with the id
    if ordered:
        written = await copy_rows(session, OrderOutcome.__tablename__, LedgerRow._fields, ordered)
        require_all(OrderOutcome.__tablename__, len(ordered), written)


async def list_outcomes(
    session: AsyncSession, wanted: OutcomeFilter, *, after: UUID | None = None, limit: int
) -> list[LedgerRow]:
    """A page of the rows that have an event, by order id; `after` is that of the last row of the page before.

    The primary key is the ledger's only index, since each further one would cost every decision. So a page
    reads on in it until it is full, or all of the ledger where few rows are wanted. Of a million rows all
    pages took 9 s, those of one partition 6 s, and of 0.9 % of the time 6 s, the slowest page half a second.
    """
    query = ROWS.where(*_with_event(wanted)).order_by(OrderOutcome.order_id).limit(limit)
    if after is not None:
        query = query.where(OrderOutcome.order_id > after)
    return [LedgerRow(*row) for row in await session.execute(query)]


async def list_outcome_counts(session: AsyncSession, wanted: OutcomeFilter) -> list[OutcomeCount]:
    """How many rows of each outcome and partition have an event. Without ids it reads the whole ledger."""
    kinds = (OrderOutcome.outcome, OrderOutcome.source_topic, OrderOutcome.source_partition)
    query = select(*kinds, func.count()).where(*_with_event(wanted)).group_by(*kinds)
    rows = await session.execute(query.order_by(*kinds[1:], kinds[0]))
    return [OutcomeCount(*row) for row in rows]


async def find_first_and_last(
    session: AsyncSession, wanted: OutcomeFilter
) -> tuple[DecidedOrder, DecidedOrder] | None:
    """Of the rows that have an event the one decided first and the one decided last; None: there is none."""
    query = select(OrderOutcome.order_id, OrderOutcome.decided_at).where(*_with_event(wanted)).limit(1)
    time, order_id = OrderOutcome.decided_at, OrderOutcome.order_id
    first = (await session.execute(query.order_by(time, order_id))).one_or_none()
    last = (await session.execute(query.order_by(time.desc(), order_id.desc()))).one_or_none()
    return (DecidedOrder(*first), DecidedOrder(*last)) if first and last else None


async def count_pruned(session: AsyncSession, wanted: OutcomeFilter) -> int:
    """How many of the rows that are wanted have no event any more."""
    query = select(func.count()).select_from(OrderOutcome)
    return (
        await session.execute(query.where(*conditions(wanted), OrderOutcome.event.is_(None)))
    ).scalar_one()


def _with_event(wanted: OutcomeFilter) -> list[ColumnElement[bool]]:
    return [*conditions(wanted), OrderOutcome.event.is_not(None)]


def conditions(wanted: OutcomeFilter) -> list[ColumnElement[bool]]:
    """What holds for the rows that are wanted."""
    row = OrderOutcome
    ids = bindparam(None, list(wanted.order_ids), ARRAY(Uuid))
    given = [
        (row.decided_at, ge, wanted.decided_from),
        (row.decided_at, lt, wanted.decided_before),
        (row.decided_at, le, wanted.decided_by),
        (row.source_topic, eq, wanted.source_topic),
        (row.source_partition, eq, wanted.source_partition),
        (row.source_offset, ge, wanted.first_offset),
        (row.source_offset, le, wanted.last_offset),
        (row.outcome, eq, wanted.outcome),
    ]
    those = [compare(column, value) for column, compare, value in given if value is not None]
    return [*those, row.order_id == any_(ids)] if wanted.order_ids else those


# The ledger has no index by time, the orders have.
_LAST_CONFIRMED: Final = select(Order.id).order_by(Order.created_at.desc()).limit(1_000)
_AFTER_DECISIONS: Final = select(
    func.greatest(
        func.now(),
        bindparam("last_decided_at", type_=DateTime(timezone=True)) + timedelta(microseconds=1),
        select(func.max(OrderOutcome.decided_at) + timedelta(microseconds=1))
        .where(OrderOutcome.order_id.in_(_LAST_CONFIRMED))
        .scalar_subquery(),
    )
)


async def list_replays(
    session: AsyncSession, topic: str, partition: int, first_offset: int = 0
) -> list[SilentReplay]:
    """The silent replays ever asked for on this partition, but for those that end before `first_offset`."""
    rows = await session.execute(
        select(Replay.from_offset, Replay.to_offset, Replay.requested_at).where(
            Replay.topic == topic, Replay.partition == partition, Replay.to_offset > first_offset
        )
    )
    return [SilentReplay(*row) for row in rows]


async def add_replays(
    session: AsyncSession,
    topic: str,
    spans: Mapping[int, tuple[int, int]],
    last_decided_at: datetime | None = None,
) -> None:
    """Ask for a silent replay of these offsets by partition: from the first up to, not including, the second.

    From the commit on nothing that lies there and is decided by now is published again. So every record
    there must have been published: what the group has committed, once nobody can commit any more.

    PostgreSQL's clock may have been set back since the orders were decided. So the replay is dated after
    `last_decided_at`, the latest decision in these offsets that the caller knows, and after the orders that
    were confirmed last. Workers date what they decide there later no earlier than the replay.
    """
    rows = [
        {"topic": topic, "partition": partition, "from_offset": start, "to_offset": end}
        for partition, (start, end) in sorted(spans.items())
    ]
    if rows:
        requested_at = await session.scalar(_AFTER_DECISIONS, {"last_decided_at": last_decided_at})
        await session.execute(insert(Replay), [{**row, "requested_at": requested_at} for row in rows])


async def database_time(session: AsyncSession) -> datetime:
    """The time of this transaction by the database's clock, the one clock all workers share."""
    return (await session.execute(select(func.now()))).scalar_one()
