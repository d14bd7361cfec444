"""One session that stays on one connection, for a command that compares by temporary tables."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS
from worker.settings import Settings


@asynccontextmanager
async def one_session(
    settings: Settings, command: str, prepare: Callable[[AsyncSession], Awaitable[None]]
) -> AsyncIterator[AsyncSession]:
    """A session that keeps its temporary tables, which `prepare` creates, over its commits.

    Raises CommandError, with what to do, where PostgreSQL refuses anything while the block runs.
    """
    try:
        async with database_engine(settings, f"order-worker {command}") as engine:
            await require_database(engine, settings)
            async with engine.connect() as connection, AsyncSession(connection) as session:
                await prepare(session)
                await session.commit()
                yield session
    except DATABASE_ERRORS as error:
        why = reason_of(error)
        if why.startswith("permission denied to create temporary tables"):
            raise CommandError(
                f"{why}: what is compared is copied into such tables; GRANT TEMPORARY ON DATABASE to this"
                " role, or use another one"
            ) from error
        raise CommandError(f"PostgreSQL does not let us compare: {why}; run this again") from error
