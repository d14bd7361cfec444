"""How orders are found: whole, or page by page with the newest first."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, joinedload

from db import values
from db.errors import InvalidValueError, NotFoundError
from db.models import Order, OrderItem
from db.statuses import OrderStatus

_REFRESHED: Final = {"populate_existing": True}  # what the session loaded before may be out of date

# One statement, so that an order is never seen without items that were deleted between two.
WHOLE: Final = (
    select(Order)
    .options(
        joinedload(Order.user, innerjoin=True),
        joinedload(Order.items).joinedload(OrderItem.product, innerjoin=True),
    )
    .execution_options(**_REFRESHED)
)
"""orders with user, items and their products, as they are now"""


async def find_whole(session: AsyncSession, query: Select[Order], order_id: UUID) -> Order:
    """The order of `query`, which is `WHOLE` or made of it; or NotFoundError."""
    query = query.where(Order.id == values.uuid("order_id", order_id))
    order = (await session.scalars(query)).unique().one_or_none()
    if order is None:
        raise NotFoundError("order", "id", order_id)
    return order


def conditions(
    status: OrderStatus | None, since: datetime | None, until: datetime | None
) -> Iterable[ColumnElement[bool]]:
    """Orders of this status, created in this time. Raises InvalidValueError for what is neither."""
    if status is not None:
        yield Order.status == _known(status)
    since, until = values.span(since, until)
    if since is not None:
        yield Order.created_at >= since
    if until is not None:
        yield Order.created_at < until


def newest_first(query: Select[Order], after: tuple[datetime, UUID] | None) -> Select[Order]:
    """Orders behind `after`, the key `(created_at, id)` of one; InvalidValueError for what is no such key."""
    query = query.order_by(Order.created_at.desc(), Order.id.desc())
    if after is None:
        return query
    if not isinstance(after, tuple) or len(after) != 2:
        raise InvalidValueError("after", after, "must be (created_at, id) of the last order before")
    created_at, order_id = after
    key = (values.aware("after", created_at), values.uuid("after", order_id))
    return query.where(tuple_(Order.created_at, Order.id) < key)


def page_with_users(page: Select[Order], *, with_items: bool) -> Select[Order]:
    """The orders of a page with their users, and with items and products where asked for."""
    # The page first, then its users: joined below the limit, every order skipped would look up its own.
    order = aliased(Order, page.subquery())
    query = select(order).options(joinedload(order.user, innerjoin=True))
    if values.flag("with_items", with_items):
        items = joinedload(order.items).joinedload(OrderItem.product, innerjoin=True)
        query = query.options(items).execution_options(**_REFRESHED)
    return query.order_by(order.created_at.desc(), order.id.desc())


def _known(status: OrderStatus) -> OrderStatus:
    try:
        return OrderStatus(status)
    except ValueError:
        raise InvalidValueError("status", status, f"must be one of {', '.join(OrderStatus)}") from None
