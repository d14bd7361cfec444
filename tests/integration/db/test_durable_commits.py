"""What is acknowledged is durable: a commit that a crash or a failover could lose is none."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import create_engine, session_factory
from db.users import create_user
from tests.support.deadline import eventually
from tests.support.shop import Shop
from worker.failures import DATABASE_ERRORS, Remedy, remedy
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.postgres import LocalPostgres

pytestmark = pytest.mark.guarantee_1


@pytest.mark.parametrize(
    ("set_to", "used"), [("off", "on"), ("remote_apply", "remote_apply"), ("local", "local")]
)
async def test_no_session_commits_asynchronously(shop: Shop, set_to: str, used: str):
    name = await asyncio.to_thread(shop.value, "SELECT quote_ident(current_database())")
    await asyncio.to_thread(shop.sql, f"ALTER DATABASE {name} SET synchronous_commit = {set_to}")
    engine = create_engine(shop.database_url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW synchronous_commit")) == used
    await engine.dispose()


async def swallow_an_error(session: AsyncSession) -> None:
    with suppress(DBAPIError):
        await session.execute(text("SELECT 1 / 0"))


async def commit_after_an_error(engine: AsyncEngine) -> None:
    async with session_factory(engine).begin() as session:
        await create_user(session, "lost@example.org", "Lost")
        await swallow_an_error(session)


async def test_a_transaction_of_which_a_statement_failed_does_not_pass_for_committed(shop: Shop):
    """As where a shop catches the time limit of one operation, and goes on."""
    engine = create_engine(shop.database_url)
    with pytest.raises(DATABASE_ERRORS, match="nothing was committed: a statement") as failed:
        await commit_after_an_error(engine)
    assert remedy(failed.value) is Remedy.WAIT
    # The session goes on, and what fails in a savepoint costs nothing else.
    async with session_factory(engine).begin() as session:
        await create_user(session, "kept@example.org", "Kept")
        async with session.begin_nested() as savepoint:
            await swallow_an_error(session)
            await savepoint.rollback()
    emails = await asyncio.to_thread(shop.value, "SELECT string_agg(email, ' ') FROM users")
    assert emails == "kept@example.org"
    await engine.dispose()


@pytest.fixture
def without_standby() -> Iterator[Shop]:
    """A server of its own whose synchronous standby is away, and that by default warns no session."""
    with data_folder() as folder:
        server = LocalPostgres(
            folder, settings={"synchronous_standby_names": "gone", "client_min_messages": "error"}
        )
        server.start()
        try:
            yield Shop(server.url)
        finally:
            server.stop()


async def cancel_the_wait(server: Shop) -> None:
    waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await asyncio.to_thread(eventually, lambda: server.sql(waiting))


async def create_table(engine: AsyncEngine, name: str, isolation: str = "READ COMMITTED") -> None:
    async with session_factory(engine).begin() as session:
        await session.connection(execution_options={"isolation_level": isolation})
        await session.execute(text(f"CREATE TABLE {name} ()"))


async def test_a_commit_whose_wait_for_a_standby_is_cancelled_fails_and_is_waited_for(without_standby: Shop):
    engine = create_engine(without_standby.database_url)
    async with asyncio.timeout(30):
        # By itself: as each batch is recorded before it is published, and each lease taken.
        for name, isolation in (("by_commit", "READ COMMITTED"), ("by_itself", "AUTOCOMMIT")):
            committing = asyncio.create_task(create_table(engine, name, isolation))
            await cancel_the_wait(without_standby)
            with pytest.raises(DATABASE_ERRORS, match="a failover would lose this commit") as failed:
                await committing
            assert remedy(failed.value) is Remedy.WAIT
        # The session goes on, and what was said once is not said of the next commit.
        async with session_factory(engine).begin() as session:
            await session.execute(text("SET LOCAL synchronous_commit = local"))
            await session.execute(text("CREATE TABLE second ()"))
    await engine.dispose()
