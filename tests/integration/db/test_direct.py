"""Statements that run without SQLAlchemy's session, on PostgreSQL: they are part of its transaction."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import bindparam, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.direct import DirectStatement
from db.engine import session_factory
from db.models import Product
from tests.support.shop import Shop

RESTOCK = DirectStatement(
    update(Product)
    .where(Product.id == bindparam("which"), Product.stock_quantity < 1_000)
    .values(stock_quantity=bindparam("quantity"))
    .returning(Product.id, Product.stock_quantity)
)
Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def sessions(engine: AsyncEngine, shop: Shop) -> Sessions:
    """On a shop with ten pieces of product 1."""
    await asyncio.to_thread(shop.stock_up, {1: 10})
    return session_factory(engine)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_direct_statement_is_part_of_the_session_s_transaction(
    sessions: Sessions, shop: Shop, is_first: bool
):
    async with sessions() as session:
        if not is_first:
            await session.execute(text("SELECT 1"))
        assert await RESTOCK.fetch(session, {"which": 1, "quantity": 4}) == [(1, 4)]
        assert await RESTOCK.count(session, {"which": 1, "quantity": 5}) == 1
        assert await RESTOCK.count(session, {"which": 4_711, "quantity": 5}) == 0
        await session.rollback()
    assert await asyncio.to_thread(shop.stock) == {1: 10}
    async with sessions.begin() as session:
        await RESTOCK.count(session, {"which": 1, "quantity": 6})
    assert await asyncio.to_thread(shop.stock) == {1: 6}


async def test_a_direct_statement_raises_what_postgresql_says(sessions: Sessions):
    async with sessions() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(asyncpg.CheckViolationError):
            await RESTOCK.count(session, {"which": 1, "quantity": -1})
