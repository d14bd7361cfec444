"""What was sold since a moment, for the operator's page and `explain`: of products, and how many orders."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import BigInteger, any_, column, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Order, OrderItem
from db.statuses import OrderStatus


async def list_sold_since(
    session: AsyncSession, product_ids: Collection[int], since: datetime, limit_seconds: float
) -> dict[int, int]:
    """The quantity of each product in orders created after `since` and not cancelled; none: missing.

    Of a product in many orders it may take long: past the limit PostgreSQL cancels it (DBAPIError, 57014),
    and the transaction has to be rolled back.
    """
    limit = str(int(limit_seconds * 1_000))
    await session.execute(select(func.set_config("statement_timeout", limit, True)))
    rows = await session.execute(
        select(OrderItem.product_id, func.sum(OrderItem.quantity))
        .join(Order, Order.id == OrderItem.order_id)
        .where(
            OrderItem.product_id == any_(literal(sorted(product_ids), ARRAY(BigInteger))),
            Order.created_at > since,
            Order.status != OrderStatus.CANCELLED,
        )
        .group_by(OrderItem.product_id)
    )
    return {product_id: int(quantity) for product_id, quantity in rows}


async def list_orders_by_second(
    session: AsyncSession, since: datetime, at_most: int
) -> list[tuple[datetime, int]]:
    """How many orders were stored in each second from `since` on, the newest first.

    Of more than `at_most` orders the newest count, so that it costs the same however many there are; then
    the last second is not whole.
    """
    newest = (
        select(Order.created_at)
        .where(Order.created_at >= since)
        .order_by(Order.created_at.desc())
        .limit(at_most)
        .subquery()
    )
    second = func.date_trunc("second", newest.c.created_at).label("second")
    rows = await session.execute(
        select(second, func.count()).group_by(second).order_by(column("second").desc())
    )
    return [(time, count) for time, count in rows]
