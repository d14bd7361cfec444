"""Stock is taken in turn: after a wait for the stock lock, an order meets the stock that is left."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import create_engine, session_factory
from db.stock import Taking, acquire_stock_lock, take_stock
from tests.support.order_stories import until_somebody_waits
from tests.support.shop import Shop

pytestmark = pytest.mark.guarantee_1

PRICE = "2.50"


@pytest.fixture
async def sessions(database_url: str, shop: Shop) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """On a shop with ten pieces of product 1."""
    await asyncio.to_thread(shop.stock_up, {1: 10})
    engine = create_engine(database_url)
    yield session_factory(engine)
    await engine.dispose()


@pytest.mark.parametrize(("asked", "taken", "left"), [(4, True, 2), (7, False, 6)])
async def test_who_waits_in_turn_meets_what_was_sold_meanwhile(
    sessions: async_sessionmaker[AsyncSession], shop: Shop, asked: int, taken: bool, left: int
):
    async def take_in_turn() -> bool:
        async with sessions.begin() as session:
            return await take_stock(session, {1: Taking(asked, PRICE)}, in_turn=True)

    async with sessions() as before:
        await acquire_stock_lock(before)
        waiting = asyncio.create_task(take_in_turn())
        await until_somebody_waits(shop)
        # Not taken yet by who waits, or this one would wait in turn for ever.
        assert await take_stock(before, {1: Taking(4, PRICE)})
        await before.commit()
    assert await waiting is taken
    assert await asyncio.to_thread(shop.stock) == {1: left}


async def test_in_turn_nothing_is_taken_of_an_unknown_product_or_at_another_price(
    sessions: async_sessionmaker[AsyncSession],
):
    async with sessions() as session:
        assert not await take_stock(session, {4_711: Taking(1, PRICE)}, in_turn=True)
        assert not await take_stock(session, {1: Taking(1, "2.51")}, in_turn=True)
