"""The migrations make exactly the tables of the models, in any schema, up and down."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.engine import create_engine
from db.models import Base
from worker.local.postgres import create_database, drop_database
from worker.local.services import Services

TABLES = {*Base.metadata.tables, "alembic_version"}


@pytest.fixture
async def empty_database(services: Services) -> AsyncIterator[str]:
    name = f"empty_{uuid4().hex[:12]}"
    yield create_database(services.database_url, name)
    drop_database(services.database_url, name)


async def tables(engine: AsyncEngine, schema: str) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema)))


@pytest.mark.parametrize("schema", ["public", 'a shop "with" odd name'])
async def test_upgrade_from_empty_gives_the_models_and_downgrade_leaves_nothing(
    empty_database: str, schema: str
):
    engine = create_engine(empty_database, schema=schema)
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


async def test_two_shops_live_in_two_schemas_of_one_database(empty_database: str):
    for schema in ("one", "two"):
        engine = create_engine(empty_database, schema=schema)
        await migrate.upgrade(engine, schema)
        assert await tables(engine, schema) == TABLES
        await engine.dispose()


async def test_upgrading_again_changes_nothing(empty_database: str):
    engine = create_engine(empty_database)
    await migrate.upgrade(engine, "public")
    await migrate.upgrade(engine, "public")
    assert await tables(engine, "public") == TABLES
    await engine.dispose()
