"""The tables are changed beside sessions that use them: nobody waits for long, and nothing is left half."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine
from db.migrate import LockedOutError, LockWaits
from tests.support.shop import Shop

SOON_SECONDS = 20.0
IMPATIENT = LockWaits(lock_timeout_seconds=0.1, tries=3)
NEW_ORDER = (
    "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES (gen_random_uuid(), 1, 5, now())"
)


@pytest.fixture
async def engine(bare_database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database that has no tables yet."""
    engine = create_engine(bare_database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def reader(bare_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of somebody who keeps a transaction open."""
    connection = await asyncpg.connect(bare_database_url, server_settings={"application_name": "a report"})
    yield connection
    await connection.close()


async def revision(engine: AsyncEngine) -> str | None:
    return await migrate.current_revision(engine)


async def test_orders_are_read_and_written_while_their_indexes_wait_for_a_reader(
    engine: AsyncEngine, reader: asyncpg.Connection, bare_database_url: str
):
    await migrate.upgrade(engine, "public", "0001")
    shop = Shop(bare_database_url)
    shop.stock_up({1: 10})
    async with reader.transaction():
        await reader.fetch("SELECT FROM orders")
        upgrade = asyncio.create_task(migrate.upgrade(engine, "public", "0002"))
        other = await asyncpg.connect(bare_database_url)
        async with asyncio.timeout(SOON_SECONDS):
            while not await other.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query ~ '^\\s*(CREATE|DROP) INDEX CONCURRENTLY' AND wait_event_type = 'Lock'"
            ):
                await other.execute(NEW_ORDER)
        await other.execute("SET lock_timeout = '1s'")
        await other.execute(NEW_ORDER)
        assert await other.fetch("SELECT FROM orders LIMIT 1")
        await other.close()
        assert not upgrade.done()
    async with asyncio.timeout(SOON_SECONDS):
        (applied,) = await upgrade
    assert (applied.revision, applied.locked_seconds) == ("0002", 0.0)


async def test_a_revision_that_gets_no_lock_gives_up_and_names_the_session(
    engine: AsyncEngine, reader: asyncpg.Connection
):
    await migrate.upgrade(engine, "public", "0003")
    async with reader.transaction():
        await reader.fetch("SELECT FROM positions")
        with pytest.raises(LockedOutError, match=r"0004 got no lock in 3 tries of 0.1 s: .*\(a report\)"):
            await migrate.upgrade(engine, "public", waits=IMPATIENT)
        assert await revision(engine) == "0003"
    applied = await migrate.upgrade(engine, "public", waits=IMPATIENT)
    assert [one.tries for one in applied] == [1] * len(applied)
    assert await revision(engine) == migrate.head_revision()


async def test_a_prepared_transaction_that_holds_the_lock_is_named_with_what_ends_it(
    engine: AsyncEngine, reader: asyncpg.Connection
):
    """It has no session: the lock was said to be taken each time by somebody else."""
    if await reader.fetchval("SHOW max_prepared_transactions") == "0":
        pytest.skip("this server takes no prepared transactions")
    await migrate.upgrade(engine, "public", "0003")
    for statement in ("BEGIN", "SELECT FROM positions", "PREPARE TRANSACTION 'of days ago'"):
        await reader.execute(statement)
    try:
        with pytest.raises(LockedOutError, match=r"transaction 'of days ago' \(COMMIT or ROLLBACK PREPARED"):
            await migrate.upgrade(engine, "public", waits=LockWaits(lock_timeout_seconds=0.1, tries=1))
    finally:
        await reader.execute("ROLLBACK PREPARED 'of days ago'")


async def test_a_revision_is_tried_again_until_its_lock_is_free(
    engine: AsyncEngine, reader: asyncpg.Connection
):
    await migrate.upgrade(engine, "public", "0003")
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("SELECT FROM positions")
    gave_way = asyncio.Event()
    upgrade = asyncio.create_task(
        migrate.upgrade(
            engine,
            "public",
            "0004",
            waits=LockWaits(lock_timeout_seconds=0.1, tries=1_000),
            report=lambda sentence: gave_way.set() if "gives way: session" in sentence else None,
        )
    )
    async with asyncio.timeout(SOON_SECONDS):
        await gave_way.wait()
        await transaction.rollback()
        (applied,) = await upgrade
    assert applied.tries > 1
    assert applied.locked_seconds >= 0.1


async def test_going_back_waits_for_no_lock_longer_than_it_may(
    engine: AsyncEngine, reader: asyncpg.Connection
):
    await migrate.upgrade(engine, "public", "0004")
    async with reader.transaction():
        await reader.fetch("SELECT FROM positions")
        with pytest.raises(LockedOutError, match="0004"):
            await migrate.downgrade(engine, "0003", waits=IMPATIENT)
    await migrate.downgrade(engine, "0003", waits=IMPATIENT)
    assert await revision(engine) == "0003"


async def test_an_index_that_an_interrupted_build_has_left_is_built_again(
    engine: AsyncEngine, bare_database_url: str
):
    await migrate.upgrade(engine, "public", "0001")
    shop = Shop(bare_database_url)
    shop.sql("CREATE INDEX ix_orders_created_at ON orders (created_at)")
    shop.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_orders_created_at'::regclass")
    await migrate.upgrade(engine, "public", "0002")
    assert shop.value("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'orders'::regclass")


async def test_two_upgrades_at_once_take_turns_and_the_second_finds_nothing(
    engine: AsyncEngine, bare_database_url: str
):
    other = create_engine(bare_database_url)
    async with asyncio.timeout(60):
        applied = await asyncio.gather(migrate.upgrade(engine, "public"), migrate.upgrade(other, "public"))
    await other.dispose()
    assert sorted(map(len, applied)) == [0, len(migrate.known_revisions())]


async def test_a_role_that_owns_the_schema_needs_no_right_to_create_schemas(bare_database_url: str):
    shop = Shop(bare_database_url)
    role = f"owner_{bare_database_url.rpartition('_')[2]}"
    shop.sql(f"CREATE ROLE {role} LOGIN")
    shop.sql(f"CREATE SCHEMA shop AUTHORIZATION {role}")
    engine = create_engine(bare_database_url.replace("//postgres@", f"//{role}@"), schema="shop")
    try:
        await migrate.upgrade(engine, "shop")
        assert await revision(engine) == migrate.head_revision()
    finally:
        await engine.dispose()
        shop.sql(f"DROP OWNED BY {role}")
        shop.sql(f"DROP ROLE {role}")
