"""A transaction that is run again where PostgreSQL ended it for the sake of another one."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import values
from db.constraints import sqlstate
from db.errors import LockedError

Result = TypeVar("Result")

_AGAIN: Final = frozenset({"40001", "40P01"})  # serialization failure, deadlock: all was rolled back
_LONGEST_PAUSE_SECONDS: Final = 1.0
MAX_TRIES: Final = 100


async def run_in_transaction(
    sessions: async_sessionmaker[AsyncSession],
    work: Callable[[AsyncSession], Awaitable[Result]],
    *,
    tries: int = 5,
) -> Result:
    """Commit what `work` does with the session it is given, once, and return its result; or nothing of it.

    After a deadlock, a serialization failure or a LockedError it calls `work` again, after a pause, in a new
    session: `tries` times in all (1 to 100), then the error comes out. Any other error comes out at once,
    also one of the connection while it commits: nobody knows then whether it did, and neither where the task
    is cancelled meanwhile. As it may be called several times, `work` sends nothing to others, and uses no
    object of an earlier session.
    """
    values.integer("tries", tries, 1, MAX_TRIES)
    for attempt in range(1, tries):
        try:
            return await _run_once(sessions, work)
        except (DBAPIError, LockedError) as error:
            if not may_succeed_again(error):
                raise
        await asyncio.sleep(_pause_seconds(attempt))
    return await _run_once(sessions, work)


def may_succeed_again(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: nothing of it was written."""
    return isinstance(error, LockedError) or (isinstance(error, DBAPIError) and sqlstate(error) in _AGAIN)


async def _run_once(
    sessions: async_sessionmaker[AsyncSession], work: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    async with sessions.begin() as session:
        return await work(session)


def _pause_seconds(attempt: int) -> float:
    """Doubling from 0.02 s on, and half of it left to chance, so that two do not meet again."""
    return min(_LONGEST_PAUSE_SECONDS, 0.01 * 2.0**attempt) * random.uniform(0.5, 1.0)
