"""What tests of orders share: first orders, concurrent transactions, and the check that stock adds up."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from bench.statements import Statements
from contracts.topics import Topics
from db.engine import session_factory
from db.errors import ShopError
from db.models import Order
from db.orders import OrderLine, cancel_order, complete_order, create_order
from db.statuses import OrderStatus
from tests.support.deadline import eventually
from tests.support.shop import Shop
from worker.core.steps import nothing_happens
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor

PENDING, COMPLETED, CANCELLED = OrderStatus
SEEN = datetime(2026, 11, 23, 10, tzinfo=UTC)
NAIVE = SEEN.replace(tzinfo=None)

Act = Callable[[AsyncSession], Awaitable[Any]]
Counting = Callable[[], AbstractContextManager[Statements]]
Listing = Callable[..., Awaitable[Sequence[Order]]]


def line(product_id: int = 1, quantity: int = 1, unit_price: str | None = None) -> OrderLine:
    return OrderLine(product_id, quantity, None if unit_price is None else Decimal(unit_price))


LINES = [line(1, 2), line(2, 1), line(1, 1)]  # three pieces of product 1 and one of product 2


async def an_order(session: AsyncSession, *lines: OrderLine, status: OrderStatus = PENDING) -> Order:
    """A committed order of user 1 that has come to this status."""
    order = await create_order(session, 1, lines or [line()])
    if status is not PENDING:
        await {COMPLETED: complete_order, CANCELLED: cancel_order}[status](session, order.id)
    await session.commit()
    return order


def a_history(shop: Shop, orders: int, *, users: int = 1, orders_a_moment: int = 7) -> None:
    """Old orders of users 1 to `users` in turn, with a line of product 1 and of 2; many of one moment."""
    shop.sql(
        "WITH made AS (INSERT INTO orders (id, user_id, total_amount, placed_at, created_at)"
        " SELECT gen_random_uuid(), 1 + i % $2, 5.00, now(), now() - i / $3 * interval '1 second'"
        " FROM generate_series(0, $1::int - 1) i RETURNING id)"
        " INSERT INTO order_items SELECT id, n, n, 1, 2.50 FROM made, generate_series(1, 2) n",
        orders,
        users,
        orders_a_moment,
    )
    shop.sql("UPDATE products SET received_quantity = received_quantity + $1 WHERE id IN (1, 2)", orders)


def in_the_ledger(shop: Shop, order_id: UUID, outcome: str) -> None:
    shop.sql(
        "INSERT INTO order_outcomes VALUES ($1, $2, '', 'order-placed', 0, 0, '{}', now())", order_id, outcome
    )


def whole(order: Order) -> dict[str, Any]:
    """Everything about an order, plain."""
    return {
        "order": (order.id, order.status, order.total_amount, order.placed_at, order.created_at),
        "user": (order.user_id, order.user.id, order.user.email, order.user.full_name),
        "items": [(i.order_id, i.line_number, i.quantity, i.unit_price) for i in order.items],
        "products": [(i.product_id, i.product.id, i.product.price, i.product.name) for i in order.items],
        "stock": [(i.product.stock_quantity, i.product.received_quantity) for i in order.items],
    }


def rows(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """What other connections see of everything an order could touch."""
    tables = ("users", "products", "orders", "order_items", "order_outcomes")
    return {
        table: [tuple(row) for row in shop.sql(f"SELECT * FROM {table} ORDER BY 1, 2")] for table in tables
    }


def books(shop: Shop) -> dict[int, tuple[int, int]]:
    """Stock and everything ever received, of each product."""
    products = shop.sql("SELECT id, stock_quantity, received_quantity FROM products ORDER BY id")
    return {product_id: (stock, received) for product_id, stock, received in products}


def assert_the_books_balance(shop: Shop) -> None:
    sold: Counter[int] = Counter()
    for product_id, quantity in shop.sql(
        "SELECT product_id, quantity FROM orders JOIN order_items ON order_id = id"
        " WHERE status <> 'cancelled'"
    ):
        sold[product_id] += quantity
    for product_id, (stock, received) in books(shop).items():
        assert (received - sold[product_id], stock >= 0) == (stock, True), f"product {product_id}"
    totals = shop.sql(
        "SELECT total_amount, sum(quantity * unit_price) FROM orders JOIN order_items ON order_id = id"
        " GROUP BY id"
    )
    assert all(total == of_items for total, of_items in totals)
    assert len(totals) == shop.value("SELECT count(*) FROM orders"), "an order without items"


async def in_a_transaction(engine: AsyncEngine, act: Act) -> Any:
    """What the act returned, or the error that it raised if a caller would handle it."""
    try:
        async with session_factory(engine).begin() as session:
            return await act(session)
    except ShopError as error:
        return error


async def at_once(engine: AsyncEngine, *acts: Act) -> list[Any]:
    """What each act returned or raised, each in a transaction that begins when all have connections."""
    start = asyncio.Barrier(len(acts))

    def on_the_mark(act: Act) -> Act:
        async def started(session: AsyncSession) -> Any:
            await session.connection()
            await start.wait()
            return await act(session)

        return started

    async with asyncio.timeout(60):
        return await asyncio.gather(*(in_a_transaction(engine, on_the_mark(act)) for act in acts))


async def in_this_order(engine: AsyncEngine, shop: Shop, first: Act, second: Act) -> tuple[Any, Any]:
    """What both returned or raised. The first commits only when the second waits for a lock of it."""
    async with session_factory(engine)() as session:
        of_first = await first(session)
        later = asyncio.create_task(in_a_transaction(engine, second))
        await until_somebody_waits(shop)
        await session.commit()
    return of_first, await later


async def until_somebody_waits(shop: Shop) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    database = shop.database_url.rpartition("/")[2]
    await asyncio.to_thread(eventually, lambda: shop.value(waiting, database), 10.0)


def kinds(results: Sequence[Any]) -> dict[type, int]:
    return dict(Counter(type(result) for result in results))


def by_key(order: Order) -> tuple[datetime, UUID]:
    return order.created_at, order.id


def a_worker(engine: AsyncEngine) -> BatchProcessor:
    """What decides a worker's batches, on the same tables."""
    topics = Topics("placed", "confirmed", "rejected", "dead")
    return BatchProcessor(session_factory(engine), topics, Metrics(), nothing_happens, 256 * 1024, 60.0)
