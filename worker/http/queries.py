"""Read-only PostgreSQL sessions for HTTP requests, so that these cannot slow down the batches.

The pool is its own and small, and both the time of a query and the number of waiting requests are bounded.
Too many requests, or a slow PostgreSQL, lead to "no answer"; a batch never waits for a connection.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import session_factory
from worker.error_texts import reason_of
from worker.failures import is_outage

MAX_CONNECTIONS: Final = 2
ANSWER_SECONDS: Final = 2.0  # with the wait for a connection
MAX_ASKING: Final = 100  # at a time; further ones get "try again"


class NoAnswerError(Exception):
    """The request cannot be answered now; the message says why."""


@dataclass(slots=True)
class Inquiries:
    """Sessions to read with. `engine` is used for nothing else, and has `MAX_CONNECTIONS`."""

    engine: AsyncEngine
    _asking: int = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One session for one answer. Raises NoAnswerError for every failure."""
        if self._asking >= MAX_ASKING:
            raise NoAnswerError("too many are asking")
        self._asking += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS), session_factory(self.engine)() as session:
                yield session
        except Exception as error:
            if not is_outage(error):
                raise
            raise NoAnswerError(f"the database gives no answer: {reason_of(error)}") from error
        finally:
            self._asking -= 1
