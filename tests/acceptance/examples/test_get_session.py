"""`db.engine.get_session`, as a framework uses it."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog
from db.engine import get_session, session_factory
from db.errors import (
    AlreadyExistsError,
)
from tests.acceptance.examples.users import ADA, soon, users
from tests.support.shop import Shop


def dependency(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncSession]:
    """What a framework makes of get_session: an error of the block is thrown in where it yields."""
    return asynccontextmanager(get_session(session_factory(engine)))()


def in_use(engine: AsyncEngine) -> int:
    return int(cast("Any", engine.pool).checkedout())


async def test_get_session_commits_when_the_caller_succeeds(engine: AsyncEngine, shop: Shop):
    async with dependency(engine) as session:
        await catalog.create_user(session, **ADA)
        assert users(shop) == []
    assert users(shop) == ["ada@example.com"]
    assert in_use(engine) == 0


async def test_get_session_gives_each_call_a_session_of_its_own(engine: AsyncEngine):
    async with dependency(engine) as one, dependency(engine) as other:
        assert one is not other


async def test_get_session_rolls_back_when_the_caller_fails(engine: AsyncEngine, shop: Shop):
    async def fails() -> None:
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
            raise RuntimeError("a fault of the caller")

    with pytest.raises(RuntimeError, match="a fault of the caller"):
        await fails()
    assert users(shop) == []
    assert in_use(engine) == 0


@pytest.mark.parametrize("meanwhile", ["waiting for something else", "waiting for the database"])
async def test_get_session_rolls_back_when_the_caller_is_cancelled(
    engine: AsyncEngine, shop: Shop, meanwhile: str
):
    written = asyncio.Event()

    async def handle() -> None:
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
            written.set()
            if meanwhile == "waiting for the database":
                await session.execute(text("SELECT pg_sleep(60)"))
            await asyncio.Event().wait()

    handling = asyncio.create_task(handle())
    await written.wait()
    if meanwhile == "waiting for the database":
        await soon(lambda: shop.sql("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert in_use(engine) == 0
    assert users(shop) == []


async def test_get_session_rolls_back_when_nobody_continues_after_the_yield(engine: AsyncEngine, shop: Shop):
    generator: Any = get_session(session_factory(engine))()
    await catalog.create_user(await anext(generator), **ADA)
    await generator.aclose()
    assert users(shop) == []
    assert in_use(engine) == 0


async def test_get_session_surfaces_a_commit_that_fails(
    engine: AsyncEngine, shop: Shop, commits_fail: Callable[[int], None]
):
    commits_fail(1)
    with pytest.raises(DBAPIError, match="refused at the commit"):
        async with dependency(engine) as session:
            await catalog.create_user(session, **ADA)
    assert users(shop) == []
    assert in_use(engine) == 0


async def test_get_session_keeps_what_was_written_before_a_refusal_that_the_caller_handled(
    engine: AsyncEngine, shop: Shop
):
    async with dependency(engine) as session:
        await catalog.create_user(session, **ADA)
        with pytest.raises(AlreadyExistsError):
            await catalog.create_user(session, **ADA)
    assert users(shop) == ["ada@example.com"]


async def test_get_session_gives_objects_that_stay_readable(engine: AsyncEngine):
    async with dependency(engine) as session:
        ada = await catalog.create_user(session, **ADA)
    assert (ada.email, ada.id) == ("ada@example.com", 1)
