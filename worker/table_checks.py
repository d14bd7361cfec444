"""Checks, while a worker runs, that nobody has altered its tables so that they lose what it writes.

PostgreSQL says nothing of it: amounts are rounded, events get other bytes, an order may be decided twice, or
a crash empties a table.
"""

import asyncio
import logging
import time
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from worker.altered_tables import require_unaltered
from worker.errors import CommandError
from worker.failures import WaitsForOperatorError
from worker.observability.events import Event, about
from worker.rights import RIGHTS, WRITTEN, rewriters_remark

log = logging.getLogger(__name__)

# It takes some milliseconds.
INTERVAL_SECONDS: Final = 10.0


class TableChecks:
    """Repeats a part of what `require_rights` has checked before the start."""

    def __init__(self, engine: AsyncEngine, timeout_seconds: float) -> None:
        self._engine, self._timeout_seconds = engine, timeout_seconds
        self._due_at = time.monotonic() + INTERVAL_SECONDS
        self._remarked: str | None = None

    async def require_unaltered(self, *, at_once: bool) -> None:
        """Raise WaitsForOperatorError, with the statements that help, if the tables would not keep orders.

        At most every 10 s, unless `at_once`, and again at each call until the tables are repaired. Raises
        PostgreSQL's error, or TimeoutError, where it cannot be asked. Triggers and rules that may change rows
        are a warning of the log.
        """
        if not at_once and time.monotonic() < self._due_at:
            return
        self._due_at = 0.0
        try:
            async with asyncio.timeout(self._timeout_seconds), self._engine.connect() as connection:
                await require_unaltered(connection, list(RIGHTS), WRITTEN)
                remark = await rewriters_remark(connection)
        except CommandError as error:
            raise WaitsForOperatorError(str(error)) from None
        if remark and remark != self._remarked:
            log.warning("%s", remark, extra=about(Event.WORKER_REMARKS))
        self._remarked = remark
        self._due_at = time.monotonic() + INTERVAL_SECONDS
