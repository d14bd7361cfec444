"""Orders and their items: read, create, complete, cancel and delete.

Every function works in the caller's transaction. A function that changes an order takes the stock lock first,
as workers do (`stock.acquire_stock_lock`), then locks the order, then its products by id: transactions that
follow this order cannot deadlock. The stock lock is held until the transaction ends, and workers wait: end it
soon.

One case has no lock order: a unique value that another transaction is writing at this moment, above all an
`order_id` that a worker is deciding. PostgreSQL ends such a deadlock after a second, and
`db.transactions.run_in_transaction` runs the transaction again. Use each id either through Kafka or through
`create_order`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from db import values
from db.constraints import translated
from db.decision import Confirmed, Line, Rejected, Request, decide_batch, price_of
from db.errors import (
    AlreadyExistsError,
    IllegalStatusChangeError,
    InvalidValueError,
    refused,
)
from db.models import Order, OrderItem, Product, User
from db.order_queries import WHOLE, conditions, find_whole, newest_first, page_with_users
from db.statuses import OrderStatus
from db.stock import acquire_stock_lock, levels_of, lock_products
from db.users import get_user_by_id
from db.worker.ledger import find_outcomes


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line to order. `unit_price` is the price the buyer saw, where that is to be checked."""

    product_id: int
    quantity: int
    unit_price: Decimal | None = None


# Where an order may go from each status. What is not here is illegal.
_NEXT: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.PENDING: frozenset({OrderStatus.COMPLETED, OrderStatus.CANCELLED}),
    OrderStatus.COMPLETED: frozenset(),
    OrderStatus.CANCELLED: frozenset(),
}


async def get_order(session: AsyncSession, order_id: UUID) -> Order:
    """The order with user, items and their products, in one statement; or NotFoundError."""
    return await find_whole(session, WHOLE, order_id)


async def list_orders(
    session: AsyncSession,
    skip: int = 0,
    limit: int = 100,
    *,
    status: OrderStatus | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    with_items: bool = False,
    after: tuple[datetime, UUID] | None = None,
) -> Sequence[Order]:
    """A page of orders with their users, newest first, in one statement; `with_items`: and their products.

    Of one `status`, and created from `since` on and before `until`, both aware, where these are given. A page
    reads on until it is full: of a status that few orders have, through all of that time.

    `after` is `(created_at, id)` of the last order of the page before. It costs the same on every page,
    where `skip` reads what it skips, and pays from some 10,000 orders on: of a million, the page after
    10,000 took 5.8 ms by `skip` and 3.5 by `after`, after 100,000 26 and 4, after 900,000 206 and 5
    (`python -m bench.listings`).
    """
    values.page(skip, limit, after)
    wanted = select(Order).where(*conditions(status, since, until))
    query = page_with_users(newest_first(wanted, after).offset(skip).limit(limit), with_items=with_items)
    return (await session.scalars(query)).unique().all()


async def list_orders_with_items(
    session: AsyncSession,
    user_id: int,
    *,
    limit: int | None = None,
    after: tuple[datetime, UUID] | None = None,
) -> Sequence[Order]:
    """A user's orders with items and their products, newest first: one statement whatever their number.

    All of them, or `limit` of those `after` the key `(created_at, id)`: 50 take 6 ms, a thousand 65, most of
    it to build the objects. Raises NotFoundError when there is no such user.
    """
    if limit is not None:
        values.page(0, limit, after)
    query = newest_first(WHOLE.where(Order.user_id == values.row_id("user", user_id)), after)
    orders = (await session.scalars(query.limit(limit))).unique().all()
    if not orders:
        await get_user_by_id(session, user_id)
    return orders


async def create_order(
    session: AsyncSession,
    user_id: int,
    lines: Sequence[OrderLine],
    *,
    order_id: UUID | None = None,
    placed_at: datetime | None = None,
) -> Order:
    """Order all of it at the prices in force, or raise and take nothing. By the rule the workers follow.

    Products are locked until the caller's transaction ends, so that nobody sells the same stock meanwhile.
    The order comes back whole, as from `get_order`. `placed_at` is aware; by default now, by the database.

    Pass an `order_id` of your own to make a retry safe: AlreadyExistsError then means that the first attempt
    succeeded. Ids of orders placed through Kafka are taken too, also those that were rejected.

    Raises InvalidValueError, and a RefusedError with everything that stands against the order: it is a
    NotEnoughStockError when stock is all that is missing.
    """
    request = _request(user_id, lines)
    if order_id is not None:
        values.uuid("order_id", order_id)
    if placed_at is not None:
        placed_at = values.stored_time("placed_at", placed_at)
    await acquire_stock_lock(session)
    # Not the transaction's own time: that is from before the lock, and the same for all its orders.
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    if order_id is not None:
        await _require_unused_id(session, order_id)
    user = await _lock_user(session, user_id)
    products = await lock_products(session, {line.product_id for line in lines})
    rows = [(i, str(product.price), product.stock_quantity) for i, product in products.items()]
    levels = levels_of(*zip(*rows, strict=True)) if rows else {}
    decided = decide_batch([request], {user.id} if user else set(), levels)
    (decision,) = decided.decisions
    if isinstance(decision, Rejected):
        raise refused(decision.refusals, user_id)
    order = _confirmed(request, lines, decision, order_id or uuid4(), placed_at or now, now)
    async with translated(session, id=order.id):
        session.add(order)
        await session.flush()
    # Not in the savepoint above: rolled back, it would leave the caller's products unreadable.
    for product_id, quantity in decided.taken.items():
        products[product_id].stock_quantity -= quantity
    await session.flush()
    # Not by assignment: that would enter the order into `user.orders`, also where it could not be written.
    set_committed_value(order, "user", user)
    for item in order.items:
        set_committed_value(item, "product", products[item.product_id])
    return order


def _confirmed(
    request: Request,
    lines: Sequence[OrderLine],
    decision: Confirmed,
    order_id: UUID,
    placed_at: datetime,
    now: datetime,
) -> Order:
    if decision.total_amount > values.MAX_TOTAL:
        raise InvalidValueError("total_amount", decision.total_amount, f"must not be over {values.MAX_TOTAL}")
    return Order(
        id=order_id,
        user_id=request.user_id,
        status=OrderStatus.PENDING,
        total_amount=decision.total_amount,
        placed_at=placed_at,
        created_at=now,
        items=[
            OrderItem(
                line_number=n, product_id=line.product_id, quantity=line.quantity, unit_price=Decimal(price)
            )
            for n, (line, price) in enumerate(zip(lines, decision.unit_prices, strict=True), 1)
        ],
    )


async def complete_order(session: AsyncSession, order_id: UUID) -> Order:
    """Mark a pending order as handed over. Raises NotFoundError or IllegalStatusChangeError."""
    await acquire_stock_lock(session)
    order = await _lock_order(session, order_id)
    _change_status(order, OrderStatus.COMPLETED)
    await session.flush()
    return order


async def cancel_order(session: AsyncSession, order_id: UUID) -> Order:
    """Give up a pending order and give its stock back, once: the second of two callers gets an error.

    Raises NotFoundError or IllegalStatusChangeError.
    """
    await acquire_stock_lock(session)
    order = await _lock_order(session, order_id)
    _change_status(order, OrderStatus.CANCELLED)
    for product, quantity in await _lock_sold_products(session, order):
        product.stock_quantity += quantity
    await session.flush()
    return order


async def delete_order(session: AsyncSession, order_id: UUID) -> None:
    """Remove an order and its items; a pending one gives its stock back first. Raises NotFoundError.

    A completed order has left the stock: `received_quantity` shrinks by its quantities, so that received −
    sold = stock stays true. The ledger keeps the id: the same order-placed event is not decided again.
    """
    await acquire_stock_lock(session)
    order = await _lock_order(session, order_id)
    if order.status is not OrderStatus.CANCELLED:
        for product, quantity in await _lock_sold_products(session, order):
            if order.status is OrderStatus.PENDING:
                product.stock_quantity += quantity
            else:
                product.received_quantity -= quantity
    await session.delete(order)
    await session.flush()


@dataclass(frozen=True, slots=True)
class _Request:
    """An order as the rule reads it."""

    user_id: int
    items: Sequence[Line]


def _request(user_id: int, lines: Sequence[OrderLine]) -> _Request:
    values.integer("user_id", user_id, 1, values.MAX_ID)
    if not isinstance(lines, Sequence):
        raise InvalidValueError("lines", lines, "must be a sequence of OrderLine")
    if not 1 <= len(lines) <= values.MAX_LINES:
        raise InvalidValueError("lines", len(lines), f"must be 1 to {values.MAX_LINES:,}")
    for number, line in enumerate(lines, 1):
        if not isinstance(line, OrderLine):
            raise InvalidValueError(f"line {number}", line, "must be an OrderLine")
        values.integer(f"line {number}: product_id", line.product_id, 1, values.MAX_ID)
        values.integer(f"line {number}: quantity", line.quantity, 1, values.MAX_QUANTITY)
        if line.unit_price is not None:
            values.price(f"line {number}: unit_price", line.unit_price)
    seen = [None if one.unit_price is None else price_of(one.unit_price) for one in lines]
    return _Request(user_id, [(one.product_id, one.quantity, p) for one, p in zip(lines, seen, strict=True)])


async def _require_unused_id(session: AsyncSession, order_id: UUID) -> None:
    """Checked first, because rejected and deleted orders are not in the table of orders."""
    if await session.scalar(select(Order.id).where(Order.id == order_id)):
        raise AlreadyExistsError("order", "id", order_id, "pk_orders")
    if await find_outcomes(session, [order_id]):
        raise AlreadyExistsError("order", "id", order_id, "pk_order_outcomes")


def _change_status(order: Order, wanted: OrderStatus) -> None:
    if wanted not in _NEXT[order.status]:
        raise IllegalStatusChangeError(order.id, order.status, wanted)
    order.status = wanted


async def _lock_user(session: AsyncSession, user_id: int) -> User | None:
    """The user, whom nobody deletes until the transaction ends; no obstacle to other orders."""
    query = select(User).where(User.id == user_id).with_for_update(read=True, key_share=True)
    return await session.scalar(query)


async def _lock_order(session: AsyncSession, order_id: UUID) -> Order:
    """As `get_order`, and nobody else changes its status until the transaction ends."""
    return await find_whole(session, WHOLE.with_for_update(of=Order), order_id)


async def _lock_sold_products(session: AsyncSession, order: Order) -> Iterable[tuple[Product, int]]:
    """Each line's product, locked, and quantity."""
    products = await lock_products(session, {item.product_id for item in order.items})
    return [(products[item.product_id], item.quantity) for item in order.items]
