"""Sessions of PostgreSQL that are used again, for callers with many short queries."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")

# The errors of a statement in a session that was ended since its last use.
_ENDED = (asyncpg.ConnectionDoesNotExistError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError)


class Sessions:
    """Each runs one statement at a time. They live in a thread of their own.

    A session has no settings, locks or transactions that continue: nobody knows who gets it next.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._idle: list[asyncpg.Connection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        return self._run(self._fetch(statement, arguments))

    def end(self) -> None:
        """End idle sessions; the next statement opens another one."""
        self._run(self._end())

    def close(self) -> None:
        """End them all."""
        self.end()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _fetch(self, statement: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        while self._idle:
            used = self._idle.pop()
            if not used.is_closed():
                try:
                    return await self._fetch_in(used, statement, arguments)
                except _ENDED:
                    break
        # The tables may change: no statement is prepared for longer than it takes.
        return await self._fetch_in(
            await asyncpg.connect(self._url, statement_cache_size=0), statement, arguments
        )

    async def _fetch_in(
        self, session: asyncpg.Connection, statement: str, arguments: tuple[Any, ...]
    ) -> list[asyncpg.Record]:
        try:
            rows: list[asyncpg.Record] = await session.fetch(statement, *arguments)
        except BaseException:
            session.terminate()
            raise
        self._idle.append(session)
        return rows

    async def _end(self) -> None:
        while self._idle:
            self._idle.pop().terminate()  # does not wait: the server may be frozen
