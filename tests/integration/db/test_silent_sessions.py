"""Which sessions count as frozen in a statement, on PostgreSQL."""

import asyncio

import asyncpg
import pytest

from db.engine import create_engine, session_factory
from db.worker.silent_sessions import end_silent_sessions

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

SECONDS = 3.0
AGE = "SELECT extract(epoch FROM clock_timestamp() - xact_start) FROM pg_stat_activity WHERE pid = $1"


async def test_a_long_transaction_that_has_just_begun_a_statement_is_not_frozen(database_url: str):
    busy = await asyncpg.connect(database_url, server_settings={"application_name": "order-worker"})
    watch, engine = await asyncpg.connect(database_url), create_engine(database_url)
    try:
        pid = await busy.fetchval("SELECT pg_backend_pid()")
        await busy.execute("BEGIN")
        await _until_older(watch, pid, SECONDS)
        await busy.prepare("SELECT 1")  # without a Sync: PostgreSQL waits in the middle of the statement
        async with session_factory(engine)() as session:
            assert await end_silent_sessions(session, SECONDS) == []
            await session.rollback()
            await _until_older(watch, pid, 2 * SECONDS + 1)
            assert await end_silent_sessions(session, SECONDS) == [pid]
    finally:
        busy.terminate()
        await watch.close()
        await engine.dispose()


async def _until_older(watch: "asyncpg.Connection[asyncpg.Record]", pid: int, seconds: float) -> None:
    async with asyncio.timeout(30):
        while await watch.fetchval(AGE, pid) < seconds:
            await watch.execute("SELECT pg_sleep(0.1)")
