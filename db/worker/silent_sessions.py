"""Sessions of workers that froze in the middle of a statement, whose locks nothing else would end.

PostgreSQL ends a session that is idle in its transaction. It is not idle in the middle of a statement: while
it waits for the rows of a COPY, or for the message that runs a prepared statement (asyncpg prepares one
without a Sync). There no timeout applies, only `pg_terminate_backend` (`ProcessClientReadInterrupt` in its
`postgres.c`, 15 to 18). So a worker that is frozen there holds the rows of its batch, or the stock lock, as
long as it is frozen.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# `active` and waiting for its client. A COPY counts only into these tables: a program of the shop may have
# our name and role, and fill other tables for long. Any other statement waits there for a moment only, so it
# has to wait there for the whole time: a shop's long transaction is between two messages now and then.
_END: Final = text(r"""
    WITH silent AS MATERIALIZED (  -- before any is ended: a condition may be asked in any order
        SELECT pid FROM pg_stat_activity
        WHERE state = 'active' AND wait_event_type = 'Client' AND wait_event = 'ClientRead'
          AND datname = current_database() AND usename = session_user
          AND (query ~ '^COPY "?(order_outcomes|orders|order_items)\y'
               OR query !~* '^\s*COPY\y'
                  AND state_change < clock_timestamp() - make_interval(secs => :seconds))
          AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()
          AND xact_start < clock_timestamp() - make_interval(secs => :seconds))
    SELECT pid FROM silent WHERE pg_terminate_backend(pid)
    """)


async def end_silent_sessions(session: AsyncSession, seconds: float) -> list[int]:
    """End such sessions of our own role and application, in transactions older than `seconds`; their pids.

    A worker gives up a batch's transaction after a time of its own: with at least that many seconds, none is
    ended that would still commit.
    """
    return list(await session.scalars(_END, {"seconds": seconds}))
