"""The migrations make exactly the tables of the models, in any schema, up and down."""

import re

import pytest
from alembic import command
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine, session_factory
from db.models import Base
from db.worker.leases import Holder, find_holders
from db.worker.positions import list_pending
from tests.support.shop import Shop
from worker.kafka.published import publishers

TABLES = {*Base.metadata.tables, "alembic_version"}


async def tables(engine: AsyncEngine, schema: str) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema)))


@pytest.mark.parametrize("schema", ["public", 'a shop "with" odd name'])
async def test_upgrade_from_empty_gives_the_models_and_downgrade_leaves_nothing(
    bare_database_url: str, schema: str
):
    engine = create_engine(bare_database_url, schema=schema)
    try:
        await migrate.upgrade(engine, schema)
        assert await tables(engine, schema) == TABLES
        assert await migrate.current_revision(engine) == migrate.head_revision()
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: command.check(migrate.config(sync)))
        await migrate.downgrade(engine, "base")
        assert await tables(engine, schema) == {"alembic_version"}
    finally:
        await engine.dispose()


async def test_two_shops_live_in_two_schemas_of_one_database(bare_database_url: str):
    for schema in ("one", "two"):
        engine = create_engine(bare_database_url, schema=schema)
        await migrate.upgrade(engine, schema)
        assert await tables(engine, schema) == TABLES
        await engine.dispose()


async def test_a_shop_with_orders_goes_from_revision_to_revision_and_back(bare_database_url: str):
    engine = create_engine(bare_database_url)
    try:
        await migrate.upgrade(engine, "public", "0001")
        shop = Shop(bare_database_url)
        shop.stock_up({1: 10})
        shop.sql(
            "INSERT INTO orders (id, user_id, total_amount, placed_at)"
            " VALUES (gen_random_uuid(), 1, 5, now())"
        )
        before = shop.sql("SELECT * FROM orders, products, users WHERE users.id = 1")
        await migrate.upgrade(engine, "public")
        await migrate.downgrade(engine, "0001")
        await migrate.upgrade(engine, "public")
        assert shop.sql("SELECT * FROM orders, products, users WHERE users.id = 1") == before
    finally:
        await engine.dispose()


async def test_a_partition_of_workers_before_the_leases_names_the_producer_that_they_had(
    bare_database_url: str,
):
    """It is fenced then by the first owner of this version."""
    engine = create_engine(bare_database_url)
    try:
        await migrate.upgrade(engine, "public", "0007")
        shop = Shop(bare_database_url)
        shop.sql(
            "INSERT INTO positions (group_id, topic, partition, turn, announced_to, begun_to)"
            " VALUES ('group', 'order-placed', 3, 7, 10, 20)"
        )
        await migrate.upgrade(engine, "public")
        async with session_factory(engine)() as session:
            holders = await find_holders(session, "group", "order-placed", [3])
            pending = await list_pending(session, "group", "order-placed")
        assert holders == {3: Holder(7, "group.order-placed.3")}
        assert publishers(pending[3]) == {"group.order-placed.3"}
    finally:
        await engine.dispose()


def test_every_constraint_and_index_is_named_by_the_convention(shop: Shop):
    """Errors are told by these names, and a later migration can only drop what it can name."""
    named = shop.sql(
        "SELECT c.relname AS table, n.conname AS name, n.contype::text AS kind FROM pg_constraint n"
        " JOIN pg_class c ON c.oid = n.conrelid JOIN pg_namespace s ON s.oid = c.relnamespace"
        # A NOT NULL is a constraint of its own from PostgreSQL 18 on, and named by PostgreSQL.
        " WHERE s.nspname = 'public' AND n.contype <> 'n' AND c.relname <> 'alembic_version'"
        " UNION ALL SELECT tablename, indexname, 'i' FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename <> 'alembic_version' AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    )
    prefix = {"p": "pk", "f": "fk", "u": "uq", "c": "ck", "i": "ix"}
    assert {row["kind"] for row in named} == set(prefix)
    for row in named:
        assert re.fullmatch(rf"{prefix[row['kind']]}_{row['table']}(_[a-z_]+)?", row["name"]), row["name"]


async def test_upgrading_again_changes_nothing(bare_database_url: str):
    engine = create_engine(bare_database_url)
    await migrate.upgrade(engine, "public")
    await migrate.upgrade(engine, "public")
    assert await tables(engine, "public") == TABLES
    await engine.dispose()
