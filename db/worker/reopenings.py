"""The reopenings: which rejected orders were placed again, under which id, and the new record's offset.

A row is written before its order is sent, and holds the end of the input partition as it was then. So
after a crash, a row without an offset shows where to look: the record lies after that end, or was never
sent.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Select, Uuid, any_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import OrderOutcome, OrderReopening
from db.worker.array_rows import array_rows


@dataclass(frozen=True, slots=True)
class Reopening:
    """What is stored of one. `input_offset`: where the new record lies; None: it need not be there."""

    order_id: UUID
    new_order_id: UUID
    requested_by: str
    requested_at: datetime
    drop_prices: bool
    input_partition: int
    input_offset: int | None


class ReopeningRun(NamedTuple):
    """One call of an operator."""

    run_id: UUID
    requested_by: str
    drop_prices: bool
    topic: str


class ReopeningClaim(NamedTuple):
    """An order that is to be placed again."""

    order_id: UUID
    new_order_id: UUID
    source_partition: int
    source_offset: int
    input_partition: int
    input_from: int


class ClaimedOrder(NamedTuple):
    """What is needed to send one. `fingerprint`: of the rejected order, by the ledger."""

    order_id: UUID
    new_order_id: UUID
    partition: int
    offset: int
    input_partition: int
    fingerprint: bytes


_COLUMNS: Final = (
    OrderReopening.order_id,
    OrderReopening.new_order_id,
    OrderReopening.requested_by,
    OrderReopening.requested_at,
    OrderReopening.drop_prices,
    OrderReopening.input_partition,
    OrderReopening.input_offset,
)
_IDS: Final = any_(bindparam("order_ids", type_=ARRAY(Uuid)))
_sent = array_rows("sent", {"id": Uuid, "offset": BigInteger})
_MARK_SENT: Final = (
    update(OrderReopening)
    .where(OrderReopening.new_order_id == _sent.c.id, OrderReopening.input_offset.is_(None))
    .values({"input_offset": _sent.c.offset})
    .execution_options(synchronize_session=False)
)


async def find_reopenings(session: AsyncSession, order_ids: Collection[UUID]) -> dict[UUID, Reopening]:
    """Those of these rejected orders that were reopened, or are being so, by their old id."""
    query = select(*_COLUMNS).where(OrderReopening.order_id == _IDS)
    return {one.order_id: one for one in await _reopenings(session, query, order_ids)}


async def find_links(session: AsyncSession, order_id: UUID) -> list[Reopening]:
    """The reopenings with that id as the old order, or as the new one."""
    query = select(*_COLUMNS).where(or_(OrderReopening.order_id == _IDS, OrderReopening.new_order_id == _IDS))
    return await _reopenings(session, query, [order_id])


async def add_reopenings(
    session: AsyncSession, run: ReopeningRun, claims: Sequence[ReopeningClaim]
) -> set[UUID]:
    """Claim the orders, and return the old ids of those that were not claimed before."""
    if not claims:
        return set()
    statement = insert(OrderReopening).on_conflict_do_nothing().returning(OrderReopening.order_id)
    rows = [{**run._asdict(), **claim._asdict()} for claim in claims]
    return set((await session.execute(statement, rows)).scalars())


async def list_claimed(session: AsyncSession, run_id: UUID, limit: int) -> list[ClaimedOrder]:
    """The next orders of the run to be sent, in the order of their records."""
    rows = await session.execute(
        select(
            OrderReopening.order_id,
            OrderReopening.new_order_id,
            OrderReopening.source_partition,
            OrderReopening.source_offset,
            OrderReopening.input_partition,
            OrderOutcome.fingerprint,
        )
        .join(OrderOutcome, OrderOutcome.order_id == OrderReopening.order_id)
        .where(OrderReopening.run_id == run_id, OrderReopening.input_offset.is_(None))
        .order_by(OrderReopening.source_partition, OrderReopening.source_offset)
        .limit(limit)
    )
    return [ClaimedOrder(*row) for row in rows]


async def mark_sent(session: AsyncSession, offsets: Mapping[UUID, int]) -> None:
    """Remember where claimed orders, by their new id, lie in the input topic."""
    await session.execute(_MARK_SENT, {"each_id": list(offsets), "each_offset": [*offsets.values()]})


async def release_reopenings(session: AsyncSession, run_id: UUID, but: Iterable[UUID] = ()) -> int:
    """Forget the claims of orders that were never sent, but for these new ids; how many."""
    released = await session.execute(
        delete(OrderReopening)
        .where(
            OrderReopening.run_id == run_id,
            OrderReopening.input_offset.is_(None),
            OrderReopening.new_order_id.not_in(list(but)),
        )
        .returning(OrderReopening.order_id)
        .execution_options(synchronize_session=False)
    )
    return len(released.all())


async def drop_reopenings(session: AsyncSession, order_ids: Collection[UUID]) -> None:
    """Forget these claims, by their old id: nothing of them was sent, and nothing will be."""
    await session.execute(delete(OrderReopening).where(OrderReopening.order_id.in_(list(order_ids))))


async def count_unsent(session: AsyncSession, topic: str) -> int:
    """The number of claims of earlier runs for which it is not known yet whether they were sent."""
    query = select(func.count()).where(OrderReopening.topic == topic, OrderReopening.input_offset.is_(None))
    return (await session.execute(query)).scalar_one()


async def list_claiming_runs(session: AsyncSession, topic: str) -> dict[UUID, int]:
    """The runs that have claimed orders and not sent all of them, and how many each has left."""
    rows = await session.execute(
        select(OrderReopening.run_id, func.count())
        .where(OrderReopening.topic == topic, OrderReopening.input_offset.is_(None))
        .group_by(OrderReopening.run_id)
    )
    return dict(rows.all())


async def list_claimed_from(session: AsyncSession, run_ids: Collection[UUID]) -> dict[int, int]:
    """By partition of the input topic, the offset from which their claimed orders are, if they were sent."""
    rows = await session.execute(
        select(OrderReopening.input_partition, func.min(OrderReopening.input_from))
        .where(OrderReopening.run_id.in_(run_ids), OrderReopening.input_offset.is_(None))
        .group_by(OrderReopening.input_partition)
    )
    return dict(rows.all())


async def _reopenings(
    session: AsyncSession, query: Select[*tuple[object, ...]], order_ids: Collection[UUID]
) -> list[Reopening]:
    rows = await session.execute(query, {"order_ids": list(order_ids)})
    return [Reopening(**row._asdict()) for row in rows]
