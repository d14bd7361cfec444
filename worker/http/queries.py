"""What may be asked over HTTP is read here: never at the cost of the orders that are being decided.

Through connections of its own, few and read only; bounded in time and in how many may wait. So whoever asks
too much, or asks while PostgreSQL is slow, gets no answer, and a batch never waits for a connection.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.engine import session_factory
from worker.failures import is_outage, reason_of

MAX_CONNECTIONS: Final = 2
ANSWER_SECONDS: Final = 2.0  # with the wait for a connection
MAX_ASKING: Final = 100  # at a time; the others are told to come back


class NoAnswerError(Exception):
    """PostgreSQL, or we, cannot answer now; the message says why."""


@dataclass(slots=True)
class Inquiries:
    """Sessions to read with. `engine` is used for nothing else, and has `MAX_CONNECTIONS`."""

    engine: AsyncEngine
    _asking: int = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One session for one answer. Raises NoAnswerError instead of whatever keeps us from it."""
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
