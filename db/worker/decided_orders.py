"""Decided orders by what their events say: reason, product, user. The ledger's columns do not have these."""

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, cast, or_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import LedgerRow
from db.models import OrderOutcome
from db.worker.ledger import ROWS, OutcomeFilter, conditions


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Some decided orders: those for which all that is given holds.

    `product_id`: of a confirmed order it is among the items, of a rejected one among the reasons; the items
    of a rejected order are not in the ledger. `reason` is that of a rejection.
    """

    outcomes: OutcomeFilter = field(default_factory=OutcomeFilter)
    reason: str | None = None
    product_id: int | None = None
    user_id: int | None = None


async def list_decided_orders(
    session: AsyncSession, wanted: OrderFilter, *, after: UUID | None = None, limit: int
) -> list[LedgerRow]:
    """A page of the rows, ordered by order id; `after` is the id of the last row of the page before.

    As `ledger.list_outcomes`: a page reads on in the primary key until it is full.
    """
    query = ROWS.where(*conditions(wanted.outcomes), *_of_event(wanted))
    if after is not None:
        query = query.where(OrderOutcome.order_id > after)
    rows = await session.execute(query.order_by(OrderOutcome.order_id).limit(limit))
    return [LedgerRow(*row) for row in rows]


def _of_event(wanted: OrderFilter) -> list[ColumnElement[bool]]:
    event = cast(OrderOutcome.event, JSONB)
    found = []
    if wanted.reason is not None:
        found.append(event.contains({"reasons": [{"code": wanted.reason}]}))
    if wanted.product_id is not None:
        named = [{"product_id": wanted.product_id}]
        found.append(or_(event.contains({"items": named}), event.contains({"reasons": named})))
    if wanted.user_id is not None:
        found.append(cast(event["user_id"].astext, BigInteger) == wanted.user_id)
    return found
