"""Brings a database to the tables that this version needs, while other sessions use them.

Each revision is a transaction of its own, so that its locks end with it. A revision that waits for a lock
makes all later sessions wait too, so it gives up soon, and is tried again.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateSchema

from db import unversioned
from db.exclusive import exclusive_connection
from db.upgrade_refused import UpgradeRefusedError as UpgradeRefusedError

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_LOCK: Final = "order-worker.upgrade"

# Whose transaction has held a lock on one of our tables for the longest time. A prepared one has no session,
# and stays, also over a restart, until somebody ends it.
_HOLDER: Final = text("""
    WITH held AS (
        SELECT pid, virtualtransaction FROM pg_locks JOIN pg_class ON pg_class.oid = relation
        WHERE granted AND relnamespace = current_schema()::regnamespace)
    SELECT who, extract(epoch FROM clock_timestamp() - since)::float AS seconds FROM (
        SELECT format('session %s (%s)', pid, coalesce(nullif(application_name, ''), backend_type)),
               xact_start
        FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND xact_start IS NOT NULL AND pid IN (SELECT pid FROM held)
        UNION ALL
        SELECT format('prepared transaction %L (COMMIT or ROLLBACK PREPARED ends it)', gid), prepared
        -- By the lock on its own number: of its virtual one nothing is said but in pg_locks.
        FROM pg_prepared_xacts JOIN pg_locks ON granted AND transactionid = transaction
        WHERE virtualtransaction IN (SELECT virtualtransaction FROM held)
    ) AS holders (who, since)
    ORDER BY since LIMIT 1
    """)

Report = Callable[[str], None]


def _report_nothing(_sentence: str) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class LockWaits:
    """How long a revision waits for each lock, and how often it is tried."""

    lock_timeout_seconds: float = 2.0
    tries: int = 30


@dataclass(frozen=True, slots=True)
class Applied:
    """A revision that was applied, in `seconds` and `tries`.

    `locked_seconds`: how long others may have waited for its locks, over all tries. 0 where it takes none
    that keeps others from reading or writing.
    """

    revision: str
    title: str
    seconds: float
    tries: int
    locked_seconds: float


class LockedOutError(Exception):
    """A revision got no lock, however often it was tried. Revisions before it are applied."""

    def __init__(self, revision: str, waits: LockWaits, holder: str) -> None:
        super().__init__(
            f"revision {revision} got no lock in {waits.tries} tries of {waits.lock_timeout_seconds:g} s:"
            f" {holder}"
        )


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file: `db/migrations/env.py` takes the connection from it."""
    made = Config()
    made.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def head_revision() -> str:
    """The revision this version of the code needs."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None
    return head


def known_revisions() -> list[Script]:
    """All revisions of this version, the first one first."""
    return list(ScriptDirectory.from_config(config()).walk_revisions())[::-1]


async def current_revision(engine: AsyncEngine) -> str | None:
    """The revision the database is at; None: never upgraded."""
    async with engine.connect() as connection:
        return await connection.run_sync(_current)


async def upgrade(
    engine: AsyncEngine,
    schema: str,
    revision: str = "head",
    *,
    waits: LockWaits | None = None,
    report: Report = _report_nothing,
) -> list[Applied]:
    """Create the schema if need be and bring it to `revision`, each revision whole or not at all.

    But for one that builds indexes while others write: where it is interrupted, the next call finishes it.
    Two callers at once take turns; the second finds nothing to do. Tables of this very version that
    `Base.metadata.create_all` made count as upgraded. `report` is called with a sentence before each step
    that may take long. Raises LockedOutError; UpgradeRefusedError where the database has to be put right
    first; or what PostgreSQL raises.
    """
    async with _exclusive_connection(engine, report) as connection:
        if not await connection.scalar(select(func.current_schema())):
            await connection.execute(CreateSchema(schema, if_not_exists=True))
        if await connection.run_sync(unversioned.match_this_version):
            await connection.run_sync(lambda sync: command.stamp(config(sync), "head"))
        await connection.commit()
        steps = await connection.run_sync(lambda sync: list(_missing(_current(sync), revision)))
        return [await _apply(connection, step, waits or LockWaits(), report) for step in steps]


async def downgrade(engine: AsyncEngine, revision: str, *, waits: LockWaits | None = None) -> None:
    """Go back to `revision` ("base": no tables at all), as `upgrade` goes forward.

    Raises as `upgrade` does.
    """
    async with _exclusive_connection(engine) as connection:
        steps = await connection.run_sync(
            lambda sync: list(_missing(revision, _current(sync) or "base"))[::-1]
        )
        for step in steps:
            before = str(step.down_revision or "base")
            await _apply_revision(
                connection, step, partial(command.downgrade, revision=before), waits or LockWaits()
            )


def downgrade_sql(current: str, revision: str) -> str:
    """The statements with which `downgrade` goes from `current` to `revision`."""
    made = config()
    made.output_buffer = StringIO()
    command.downgrade(made, f"{current}:{revision}", sql=True)
    return made.output_buffer.getvalue()


def _exclusive_connection(
    engine: AsyncEngine, report: Report = _report_nothing
) -> AbstractAsyncContextManager[AsyncConnection]:
    """A connection with the exclusive right to change the tables, outside of a transaction."""

    def on_wait(waited_seconds: float) -> None:
        if not waited_seconds:
            report("another upgrade is running: waiting for it")

    return exclusive_connection(engine, _LOCK, on_wait)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _missing(current: str | None, revision: str) -> Iterator[Script]:
    scripts = ScriptDirectory.from_config(config())
    return reversed(list(scripts.iterate_revisions(revision, current or "base")))


async def _apply(connection: AsyncConnection, step: Script, waits: LockWaits, report: Report) -> Applied:
    waiting = " (while others continue; waits for transactions that are open)" if _is_concurrent(step) else ""
    report(f"{step.revision} {step.doc}{waiting}")
    started = time.monotonic()
    upgrade_to = partial(command.upgrade, revision=step.revision)
    tries, locked_seconds = await _apply_revision(connection, step, upgrade_to, waits, report)
    return Applied(step.revision, step.doc, time.monotonic() - started, tries, locked_seconds)


async def _apply_revision(
    connection: AsyncConnection,
    step: Script,
    move: Callable[[Config], None],
    waits: LockWaits,
    report: Report = _report_nothing,
) -> tuple[int, float]:
    """Go up or down one revision. Returns the tries, and for how many seconds others may have waited."""
    is_concurrent = _is_concurrent(step)
    # A lock that blocks neither reads nor writes may wait without a limit.
    timeout_ms = 0 if is_concurrent else round(waits.lock_timeout_seconds * 1000)
    await connection.execute(select(func.set_config("lock_timeout", f"{timeout_ms}ms", False)))
    await connection.commit()
    locked_seconds = 0.0
    for tried in range(1, waits.tries + 1):
        began = time.monotonic()
        try:
            await connection.run_sync(lambda sync: move(config(sync)))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        else:
            return tried, 0.0 if is_concurrent else locked_seconds + time.monotonic() - began
        locked_seconds += time.monotonic() - began
        await connection.rollback()
        holder = await _holder(connection)
        if tried < waits.tries:
            report(f"{step.revision} gives way: {holder}")
            # As long as others waited for us, or longer, so that they can finish.
            await asyncio.sleep(waits.lock_timeout_seconds * random.uniform(1, 2))
    raise LockedOutError(step.revision, waits, holder)


def _is_concurrent(step: Script) -> bool:
    return bool(getattr(step.module, "is_concurrent", False))


async def _holder(connection: AsyncConnection) -> str:
    row = (await connection.execute(_HOLDER)).first()
    await connection.rollback()
    if row is None:
        return "its lock was taken each time"
    return f"{row.who} holds one for {row.seconds:.0f} s"
