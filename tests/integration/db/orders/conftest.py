"""Every test of orders runs on a shop with stock, and its books must balance afterwards."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import create_engine, session_factory
from db.reports import stock_discrepancies
from tests.support.order_stories import assert_the_books_balance
from tests.support.shop import Shop


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    """Ten pieces each of products 1 and 2 at 2.50 and of product 3 at 0.99; users 1 to 10."""
    shop.stock_up({1: 10, 2: 10})
    shop.stock_up({3: 10}, price="0.99")
    return shop


@pytest.fixture
async def engine(engine: AsyncEngine, stocked: Shop) -> AsyncIterator[AsyncEngine]:
    """The one of every test, on a shop with stock; whatever happens there, the books balance in the end."""
    yield engine
    async with session_factory(engine)() as session:
        assert await stock_discrepancies(session) == []
    assert_the_books_balance(stocked)


@pytest.fixture
async def nowhere() -> AsyncIterator[AsyncSession]:
    """A session without a database: a query on it raises no error of the shop."""
    async with session_factory(create_engine("postgresql://nobody@127.0.0.1:1/nothing"))() as session:
        yield session
