"""Commands that claim the same rows run one after the other: side by side, each would end the other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.exclusive import exclusive_connection
from worker.operations.screen import say
from worker.settings import Settings

PATIENCE_SECONDS: Final = 60.0


class _StillChoosingError(Exception):
    """The other command has taken longer than the patience: it may be frozen."""


@asynccontextmanager
async def turn_of(
    settings: Settings, sessions: async_sessionmaker[AsyncSession], what: str
) -> AsyncIterator[None]:
    """While the block runs, other commands that choose `what` ("dead letters") in this schema wait.

    Nothing relies on it: after `PATIENCE_SECONDS` they run beside it, and still no row is claimed twice.
    """

    def on_wait(waited_seconds: float) -> None:
        if not waited_seconds:
            say(f"another command is choosing {what}: waiting for it")
        if waited_seconds >= PATIENCE_SECONDS:
            raise _StillChoosingError

    lock = f"order-worker.{settings.database_schema}.{what}"
    async with AsyncExitStack() as stack:
        with suppress(_StillChoosingError):
            await stack.enter_async_context(exclusive_connection(sessions.kw["bind"], lock, on_wait))
        yield
