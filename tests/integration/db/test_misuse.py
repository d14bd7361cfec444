"""What SQLAlchemy says of a session used wrongly is what the guide to the data layer explains."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import catalog
from db.engine import create_engine, session_factory
from tests.support.little_shop import ANN, LAMPS
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


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (what_is_not_loaded, "'Category.products' is not available due to lazy='raise_on_sql'"),
        (an_object_after_a_rollback, "greenlet_spawn has not been called"),
        (a_session_in_two_tasks, "concurrent operations are not permitted"),
        (a_commit_of_ones_own, "Can't operate on closed transaction inside context manager"),
    ],
)
async def test_a_message_that_the_guide_explains_is_the_one_that_comes(
    engine: AsyncEngine, misuse: Callable[[AsyncEngine], Awaitable[None]], message: str
):
    assert message in read("docs/data-layer.md")
    with pytest.raises(SQLAlchemyError) as raised:
        await misuse(engine)
    assert message in str(raised.value)


async def test_missing_tables_are_explained_too(shop: Shop):
    engine = create_engine(shop.database_url, schema="elsewhere")
    with pytest.raises(SQLAlchemyError, match='relation "users" does not exist'):
        await an_object_after_a_rollback(engine)
    await engine.dispose()
    assert 'relation "users" does not exist' in read("docs/data-layer.md")
