"""What a user can set of an engine, and what it does on real connections."""

import asyncio
import logging

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import create_engine
from tests.support.deadline import eventually
from tests.support.shop import Shop


async def backend_pid(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_a_connection_that_was_cut_is_replaced_before_anybody_meets_it(shop: Shop):
    engine = create_engine(shop.database_url)
    cut = await backend_pid(engine)
    shop.sql("SELECT pg_terminate_backend($1, 5000)", cut)
    assert await backend_pid(engine) != cut
    await engine.dispose()


async def test_without_the_ping_the_next_statement_meets_the_cut(shop: Shop):
    engine = create_engine(shop.database_url, pool_pre_ping=False)
    shop.sql("SELECT pg_terminate_backend($1, 5000)", await backend_pid(engine))
    with pytest.raises(DBAPIError):
        await backend_pid(engine)
    await engine.dispose()


async def test_one_that_is_known_to_be_closed_is_replaced_without_the_ping(shop: Shop):
    engine = create_engine(shop.database_url, pool_pre_ping=False)
    async with engine.connect() as connection:
        held = (await connection.get_raw_connection()).driver_connection
        assert held is not None
    pid = held.get_server_pid()
    await asyncio.to_thread(shop.sql, "SELECT pg_terminate_backend($1, 5000)", pid)
    await asyncio.to_thread(eventually, held.is_closed)
    assert await backend_pid(engine) != pid
    await engine.dispose()


@pytest.mark.parametrize(("pool_recycle", "kept"), [(-1, True), (0, False)])
async def test_a_connection_older_than_the_limit_is_replaced(shop: Shop, pool_recycle: int, kept: bool):
    engine = create_engine(shop.database_url, pool_recycle=pool_recycle)
    assert (await backend_pid(engine) == await backend_pid(engine)) is kept
    await engine.dispose()


async def test_there_are_never_more_connections_than_the_pool_and_its_overflow(shop: Shop):
    engine = create_engine(shop.database_url, pool_size=1, max_overflow=1)
    async with engine.connect():
        async with engine.connect() as second:
            pid = await second.scalar(text("SELECT pg_backend_pid()"))
            third = asyncio.create_task(backend_pid(engine))
            done, _ = await asyncio.wait({third}, timeout=0.3)  # ten times what a connection takes
            assert not done
        assert await third == pid
    await engine.dispose()


async def test_statements_are_logged_where_asked_for(shop: Shop, caplog: pytest.LogCaptureFixture):
    engine = create_engine(shop.database_url, echo=True)
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
        await backend_pid(engine)
    assert "SELECT pg_backend_pid()" in caplog.text
    await engine.dispose()
