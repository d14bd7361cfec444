"""What was sold of products since a moment."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import any_, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import BigInteger

from db.models import Order, OrderItem, OrderStatus


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
