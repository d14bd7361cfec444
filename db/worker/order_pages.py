"""Stored orders page by page, for the operator's page: what a row of its list shows, and no objects."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Order
from db.order_queries import conditions
from db.statuses import OrderStatus


class OrderEntry(NamedTuple):
    """One stored order. `created_at` is aware UTC."""

    order_id: UUID
    user_id: int
    status: OrderStatus
    total_amount: Decimal
    created_at: datetime


async def list_order_entries(
    session: AsyncSession,
    *,
    user_id: int | None = None,
    status: OrderStatus | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[OrderEntry]:
    """The newest first, behind `after`, the key `(created_at, id)` of the last one before."""
    columns = (Order.id, Order.user_id, Order.status, Order.total_amount, Order.created_at)
    query = select(*columns).where(*conditions(status, since, until))
    if user_id is not None:
        query = query.where(Order.user_id == user_id)
    if after is not None:
        query = query.where(tuple_(Order.created_at, Order.id) < after)
    rows = await session.execute(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit))
    return [OrderEntry(*row) for row in rows]
