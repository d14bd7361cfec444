"""Where `examples/shop.py` takes place: an empty schema, on your PostgreSQL or on one of its own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.schema import DropSchema

from db import migrate
from db.engine import create_engine, session_factory


class CannotStartError(Exception):
    """No database to walk on. The message is one line, and says what to do next."""


@asynccontextmanager
async def empty_shop(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Empty tables in a schema that nobody else has, dropped at the end, whatever the end."""
    schema = f"shop_example_{uuid4().hex[:12]}"
    engine = create_engine(database_url, schema=schema, application_name="shop-example")
    try:
        await require_database(engine)
        try:
            await migrate.upgrade(engine, schema)
            print(f"A shop in schema {schema}, dropped at the end")
            yield session_factory(engine)
        finally:
            async with engine.begin() as connection:
                await connection.execute(DropSchema(schema, cascade=True, if_exists=True))
    finally:
        await engine.dispose()


async def require_database(engine: AsyncEngine) -> None:
    """The database lets us in and allows a schema, or CannotStartError says why not."""
    try:
        async with engine.connect() as connection:
            allowed = await connection.scalar(
                text("SELECT has_database_privilege(current_database(), 'CREATE')")
            )
    except Exception as error:
        raise CannotStartError(f"{why_not(error)}; without a URL one is started for you") from None
    if not allowed:
        raise CannotStartError(
            "this user may not create a schema: GRANT CREATE ON DATABASE to it, or give another URL"
        )


def why_not(error: Exception) -> str:
    """One line, without the URL: it may hold a password."""
    error = error.driver_exception or error if isinstance(error, DBAPIError) else error
    if isinstance(error, ValueError):
        # The driver's own words quote what it could not read, which may be a piece of the password.
        return "no database URL that can be read: write postgresql://user:password@host:port/name"
    reason = next(iter(str(error).splitlines()), "no answer in time")
    return f"no way into PostgreSQL ({reason}): start it, or give another URL"


@contextmanager
def postgres_of_its_own() -> Iterator[str]:
    """The URL of a PostgreSQL that is stopped at the end, and its data removed."""
    # Imported here: who gives a URL needs nothing but `db`.
    from worker.sandbox.servers.errors import LocalServiceError
    from worker.sandbox.servers.folders import data_folder
    from worker.sandbox.servers.postgres import LocalPostgres

    print("No database given: starting a PostgreSQL for this walk alone")
    with data_folder() as folder:
        server = LocalPostgres(folder, shared_buffers="32MB")
        try:
            server.start()
            yield server.url
        except LocalServiceError as error:
            raise CannotStartError(f"{error}; or give the URL of a database") from None
        finally:
            server.stop()
