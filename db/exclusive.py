"""A lock by name that one session at a time has: for commands that would spoil each other's work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_LOOK_SECONDS: Final = 0.2  # whether the other one has ended


@asynccontextmanager
async def exclusive_connection(
    engine: AsyncEngine, lock: str, on_wait: Callable[[float], None]
) -> AsyncIterator[AsyncConnection]:
    """A connection, outside of a transaction, that alone in its database has the lock of this name.

    PostgreSQL frees the lock when the connection ends, however that happens. While another one has it,
    `on_wait` is called with the seconds waited, at first 0, and may raise.
    """
    async with engine.connect() as connection:
        waited_seconds = 0.0
        # Not by waiting in PostgreSQL: an index that is built concurrently waits for each statement that
        # began before it, and so for one that waits for this lock.
        while not await connection.scalar(select(func.pg_try_advisory_lock(func.hashtext(lock)))):
            await connection.commit()
            on_wait(waited_seconds)
            await asyncio.sleep(_LOOK_SECONDS)
            waited_seconds += _LOOK_SECONDS
        await connection.commit()
        try:
            yield connection
        finally:
            # The lock is the session's.
            await connection.invalidate()
