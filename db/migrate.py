"""Brings a database to the tables this version needs, and tells whether it has them."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from db import unversioned
from db.upgrade_refused import UpgradeRefusedError as UpgradeRefusedError

_SCRIPTS: Final = Path(__file__).parent / "migrations"


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: `db/migrations/env.py` takes the connection from it."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def head_revision() -> str:
    """The revision this version of the code needs."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None
    return head


async def current_revision(engine: AsyncEngine) -> str | None:
    """The revision the database is at; None: never upgraded."""
    async with engine.connect() as connection:
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def upgrade(engine: AsyncEngine, schema: str, revision: str = "head") -> None:
    """Create the schema if need be and bring it to `revision`, in one transaction.

    Two callers at once take turns; the second finds nothing to do. Tables of this very version that
    `Base.metadata.create_all` made count as upgraded. Raises UpgradeRefusedError, and changes nothing, where
    the database has to be put right first.
    """
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('order-worker.upgrade'))"))
        await connection.execute(CreateSchema(schema, if_not_exists=True))
        if await connection.run_sync(unversioned.are_of_this_version):
            await connection.run_sync(lambda sync: command.stamp(config(sync), "head"))
        await connection.run_sync(lambda sync: command.upgrade(config(sync), revision))


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Go back to `revision` ("base": no tables at all), in one transaction."""
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(config(sync), revision))
