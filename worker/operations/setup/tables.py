"""`db upgrade` and `db downgrade`: the tables, from revision to revision."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.migrate import Applied, LockedOutError, LockWaits, UpgradeRefusedError
from worker import database
from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What an upgrade did. `before`: the revision that the tables were at, None if there were none."""

    schema: str
    before: str | None
    after: str
    applied: Sequence[Applied]


async def upgrade_tables(settings: Settings, waits: LockWaits, report: Callable[[str], None]) -> Upgraded:
    """Create the tables, or bring them to this version, beside sessions that use them.

    `report` is called with a sentence before each step. Raises CommandError; then the same call continues
    where this one was.
    """
    schema = settings.database_schema
    async with _engine(settings, "order-worker db upgrade") as engine:
        before = await database.require_known_revision(engine, settings)
        try:
            applied = await migrate.upgrade(engine, schema, waits=waits, report=report)
        except LockedOutError as error:
            raise _locked_out(error, "upgrade") from None
        except UpgradeRefusedError as error:
            raise CommandError(f'schema "{schema}": {error}') from None
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"the upgrade failed: {reason_of(error)}") from error
    return Upgraded(schema, before, migrate.head_revision(), applied)


def upgrade_report(upgraded: Upgraded) -> list[str]:
    """Lines for a person: from where to where, each revision, and how long others may have waited."""
    if not upgraded.applied:
        return [f'schema "{upgraded.schema}" is at revision {upgraded.after} already']
    before = upgraded.before or "nothing"
    lines = [f'schema "{upgraded.schema}" upgraded from {before} to revision {upgraded.after}']
    if upgraded.before is None:  # nobody used the tables
        return lines
    width = max(len(one.title) for one in upgraded.applied)
    lines += [f"{'':4}  {'':<{width}}  {'took s':>8}  {'locked s':>8}  {'tries':>5}"]
    lines += [
        f"{one.revision:4}  {one.title:<{width}}  {one.seconds:>8.2f}  {one.locked_seconds:>8.2f}"
        f"  {one.tries:>5}"
        for one in upgraded.applied
    ]
    locked_seconds = sum(one.locked_seconds for one in upgraded.applied)
    return [*lines, f"workers waited {locked_seconds:.2f} s at most for the locks of all revisions together"]


async def downgrade_tables(
    settings: Settings, revision: str, waits: LockWaits, *, execute: bool
) -> list[str]:
    """Bring the tables back to `revision`; without `execute`, the statements that would do it.

    Raises UsageError for what is no earlier revision, CommandError.
    """
    known = [script.revision for script in migrate.known_revisions()]
    if revision not in known:
        raise UsageError(f"there is no revision {revision}: it is one of {', '.join(known)}")
    schema = settings.database_schema
    async with _engine(settings, "order-worker db downgrade") as engine:
        current = await database.require_known_revision(engine, settings)
        if current is None or current <= revision:
            at = f"at revision {current}" if current else "without tables"
            raise UsageError(f'schema "{schema}" is {at}: there is nothing to go back to {revision} from')
        if not execute:
            return migrate.downgrade_sql(current, revision).strip().splitlines()
        try:
            await migrate.downgrade(engine, revision, waits=waits)
        except LockedOutError as error:
            raise _locked_out(error, "downgrade") from None
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"the downgrade failed: {reason_of(error)}") from error
    return [f'schema "{schema}" went back from {current} to revision {revision}']


def _locked_out(error: LockedOutError, command: str) -> CommandError:
    next_step = f"run `order-worker db {command}` again in a quieter hour, or end that session"
    return CommandError(f"{error}; {next_step}")


@asynccontextmanager
async def _engine(settings: Settings, application_name: str) -> AsyncIterator[AsyncEngine]:
    async with database.database_engine(settings, application_name) as engine:
        await database.require_reachable_database(engine, settings)
        yield engine
