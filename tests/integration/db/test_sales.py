"""What was sold since a moment, on real PostgreSQL."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import session_factory
from db.worker import sales
from tests.support.shop import Shop
from worker.operations.explain.collect import _taken_later

SINCE = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
async def sold(shop: Shop, engine: AsyncEngine) -> AsyncEngine:
    """Of product 1: 5 before that moment, 2 at it, 3 and a cancelled 7 after it; of product 2 nothing."""
    shop.stock_up({1: 100, 2: 100})
    for seconds, quantity, status in (
        (-1, 5, "pending"),
        (0, 2, "pending"),
        (1, 3, "completed"),
        (2, 7, "cancelled"),
    ):
        shop.sql(
            "WITH placed AS (INSERT INTO orders (id, user_id, status, total_amount, placed_at, created_at)"
            " VALUES (gen_random_uuid(), 1, $1, 1, $2, $2) RETURNING id)"
            " INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price)"
            " SELECT id, 1, 1, $3, 2.5 FROM placed",
            status,
            SINCE + timedelta(seconds=seconds),
            quantity,
        )
    return engine


async def test_orders_after_the_moment_count_and_cancelled_ones_do_not(sold: AsyncEngine):
    async with AsyncSession(sold) as session:
        assert await sales.list_sold_since(session, [1, 2], SINCE, 3.0) == {1: 3}


async def test_what_takes_too_long_is_given_up_and_not_counted(sold: AsyncEngine, shop: Shop):
    async with AsyncSession(sold) as holder, AsyncSession(sold) as session:
        await holder.execute(text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError, match="statement timeout"):
            await sales.list_sold_since(session, [1], SINCE, 0.1)
        await session.rollback()
        assert await session.scalar(text("SHOW statement_timeout")) == "0", (
            "the limit ends with the transaction"
        )
        assert await _taken_later(session_factory(sold), [1], SINCE, 0.1) is None
