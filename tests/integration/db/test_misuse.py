"""What SQLAlchemy says of a session used wrongly is what the guide to the data layer explains."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import catalog, orders
from db.engine import create_engine, session_factory
from db.errors import NoTransactionError
from tests.support.little_shop import (
    ANN,
    BOB,
    CHAIR,
    FIRST_ORDER,
    LAMP,
    LAMPS,
    Call,
    content,
    new_category,
    new_product,
    new_user,
)
from tests.support.pages import read
from tests.support.shop import Shop

pytestmark = pytest.mark.usefixtures("little_shop")


async def what_is_not_loaded(engine: AsyncEngine) -> None:
    async with session_factory(engine)() as session:
        category = await catalog.get_category_by_id(session, LAMPS)
        category.products  # noqa: B018


async def an_object_after_a_rollback(engine: AsyncEngine) -> None:
    async with session_factory(engine)() as session:
        ann = await catalog.get_user_by_id(session, ANN)
        await session.rollback()
        ann.email  # noqa: B018


async def a_session_in_two_tasks(engine: AsyncEngine) -> None:
    async with session_factory(engine)() as session:
        done = await asyncio.gather(*(catalog.list_users(session) for _ in range(3)), return_exceptions=True)
        raise next(one for one in done if isinstance(one, Exception))


async def a_commit_of_ones_own(engine: AsyncEngine) -> None:
    async with session_factory(engine).begin() as session:
        await session.commit()
        await catalog.get_user_by_id(session, ANN)


WRITES: dict[str, Call] = {
    "create_user": new_user,
    "update_user": lambda s: catalog.update_user(s, ANN, full_name="Anna"),
    "delete_user": lambda s: catalog.delete_user(s, BOB),
    "create_category": new_category,
    "create_product": new_product,
    "update_product_price": lambda s: catalog.update_product_price(s, LAMP, Decimal(3)),
    "adjust_stock": lambda s: catalog.adjust_stock(s, LAMP, 1),
    "delete_product": lambda s: catalog.delete_product(s, CHAIR),
    "create_order": lambda s: orders.create_order(s, ANN, [orders.OrderLine(LAMP, 1)]),
    "complete_order": lambda s: orders.complete_order(s, UUID(FIRST_ORDER)),
    "cancel_order": lambda s: orders.cancel_order(s, UUID(FIRST_ORDER)),
    "delete_order": lambda s: orders.delete_order(s, UUID(FIRST_ORDER)),
}


async def an_error_that_is_swallowed(engine: AsyncEngine) -> None:
    async with session_factory(engine).begin() as session:
        with suppress(DBAPIError):
            await session.execute(text("SELECT 1 / 0"))


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (what_is_not_loaded, "'Category.products' is not available due to lazy='raise_on_sql'"),
        (an_object_after_a_rollback, "greenlet_spawn has not been called"),
        (a_session_in_two_tasks, "concurrent operations are not permitted"),
        (a_commit_of_ones_own, "Can't operate on closed transaction inside context manager"),
        (an_error_that_is_swallowed, "nothing was committed: a statement of this transaction has failed"),
    ],
)
async def test_a_message_that_the_guide_explains_is_the_one_that_comes(
    engine: AsyncEngine, misuse: Callable[[AsyncEngine], Awaitable[None]], message: str
):
    assert message in read("docs/data-layer.md")
    with pytest.raises(SQLAlchemyError) as raised:
        await misuse(engine)
    assert message in str(raised.value)


async def test_what_writes_is_refused_in_a_session_that_commits_each_statement(
    engine: AsyncEngine, subtests: pytest.Subtests
):
    """A cancellation could return the stock twice there: its locks end with their statements."""
    message = "the session is in AUTOCOMMIT"
    assert message in read("docs/data-layer.md")
    each = session_factory(engine.execution_options(isolation_level="AUTOCOMMIT"))
    for name, write in WRITES.items():
        with subtests.test(name):
            async with each() as session:
                before = await content(session)
                with pytest.raises(NoTransactionError, match=message):
                    await write(session)
                assert await content(session) == before
                assert len(await catalog.list_users(session)) == 2


async def test_missing_tables_are_explained_too(shop: Shop):
    engine = create_engine(shop.database_url, schema="elsewhere")
    with pytest.raises(SQLAlchemyError, match='relation "users" does not exist'):
        await an_object_after_a_rollback(engine)
    await engine.dispose()
    assert 'relation "users" does not exist' in read("docs/data-layer.md")
