"""A commit that is acknowledged is durable: on PostgreSQL's disk, and on its synchronous standbys if any.

Once a commit is acknowledged, its outcome is published. So no session commits asynchronously, whatever its
role or database has set. And if somebody cancels the wait for a standby that is away (`pg_cancel_backend`),
PostgreSQL warns and acknowledges all the same: a failover would lose what is published by then.

Of a transaction of which a statement has failed, PostgreSQL makes a COMMIT a ROLLBACK, without an error.
Here it is one.
"""

from typing import Any, Final

import asyncpg

# Not of other values: whether a standby has to write, flush or apply is its operator's choice.
NEVER_ASYNCHRONOUS: Final = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
    """
# By the function that warns, since the warning has no code of its own and may be in any language.
_WAITS_FOR_STANDBYS: Final = "SyncRepWaitForLSN"


class NotReplicatedError(asyncpg.InterfaceError):
    """It is committed on this server alone: nobody may build on it yet."""

    def __init__(self) -> None:
        super().__init__(
            "the wait for a synchronous standby was cancelled: a failover would lose this commit"
        )


class RolledBackError(asyncpg.InterfaceError):
    """It was to be committed, and nothing of it is: one of its statements had failed."""

    def __init__(self) -> None:
        super().__init__(
            "nothing was committed: a statement of this transaction has failed before, and that error was"
            " caught; let it end the transaction, or run what may fail in session.begin_nested()"
        )


class DurableConnection(asyncpg.Connection):
    """Raises RolledBackError from a COMMIT that PostgreSQL made a ROLLBACK, and NotReplicatedError from one
    that no synchronous standby has acknowledged.

    A statement that commits by itself does not end here: `require_replicated` is to be called after it.
    """

    _waited_in_vain = False

    def listen_for_warnings(self) -> None:
        """Call it once, after it has connected."""
        self.add_log_listener(_note)

    async def execute(
        self,
        query: str,
        *args: object,
        timeout: float | None = None,  # noqa: ASYNC109 (asyncpg's own)
    ) -> str:
        """As asyncpg's, by which each transaction of SQLAlchemy's ends."""
        status = await super().execute(query, *args, timeout=timeout)
        self.require_replicated()
        if status == "ROLLBACK" and query.startswith("COMMIT"):
            raise RolledBackError
        return status

    def require_replicated(self) -> None:
        """Raise NotReplicatedError if the last statement was committed on this server alone."""
        # The warning came before the status, and its listener was scheduled before our waking.
        if self._waited_in_vain:
            self._waited_in_vain = False
            raise NotReplicatedError


def _note(connection: Any, message: Any) -> None:
    if message.server_source_function == _WAITS_FOR_STANDBYS:
        connection._waited_in_vain = True
