"""Tells in one line what is wrong with PostgreSQL, before a command starts to work.

No message ever holds a password: neither the URL nor a driver's error about the URL is printed.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.database_url import InvalidUrlError, read_url, tls_files
from db.engine import SharedSessionError, create_engine
from worker.errors import CommandError
from worker.failures import DATABASE_ERRORS, driver_error, reason_of
from worker.settings import Settings
from worker.tls import reason_of_tls, unreadable

LIMIT_SECONDS: Final = 5.0

_DATABASE_VARIABLE: Final = "ORDER_WORKER_DATABASE_URL"
# Names, addresses and sockets' folders, each perhaps with a port.
_HOSTS: Final = re.compile(
    r"([\w.\-/%]+|\[[\da-fA-F:.%]+\])?(:\d+)?(,([\w.\-/%]+|\[[\da-fA-F:.%]+\])?(:\d+)?)*"
)


@asynccontextmanager
async def database_engine(settings: Settings, application_name: str) -> AsyncIterator[AsyncEngine]:
    """An engine for one command, disposed of at its end. Connects to nothing yet."""
    engine = create_engine(
        settings.database_url.get_secret_value(),
        schema=settings.database_schema,
        application_name=application_name,
        pool_size=1,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


async def require_reachable_database(engine: AsyncEngine, settings: Settings) -> None:
    """PostgreSQL answers within 5 seconds and lets us in, or a CommandError says why not."""
    try:
        # Two at once: behind a pooler that shares its sessions, the second one gets that of the first.
        async with asyncio.timeout(LIMIT_SECONDS), engine.connect() as connection, engine.connect():
            await connection.execute(text("SELECT 1"))
    except (OSError, TimeoutError, ValueError, OverflowError, *DATABASE_ERRORS) as error:
        raise _database_error(settings, driver_error(error)) from None


async def require_database(engine: AsyncEngine, settings: Settings) -> None:
    """As `require_reachable_database`, and the tables are those of this version."""
    await require_reachable_database(engine, settings)
    revision, head = await require_known_revision(engine, settings), migrate.head_revision()
    if revision == head:
        return
    schema = settings.database_schema
    found = "has no tables yet" if revision is None else f"is at revision {revision}, not {head}"
    raise CommandError(f'schema "{schema}" {found}', "run `order-worker db upgrade`", code="tables_missing")


def url_remark(settings: Settings) -> str | None:
    """What of the database's URL is passed over, if anything is."""
    names = read_url(settings.database_url.get_secret_value()).without_effect
    return f"{_DATABASE_VARIABLE}: no effect here of {', '.join(names)}" if names else None


async def seconds_ahead_of_database(engine: AsyncEngine) -> float:
    """How far this machine's clock is ahead of PostgreSQL's, as well as a round trip tells."""
    async with engine.connect() as connection:
        asked = time.time()
        theirs = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
    return (asked + time.time()) / 2 - float(theirs)


async def require_known_revision(engine: AsyncEngine, settings: Settings) -> str | None:
    """The revision of the tables (None: there are none), or a CommandError if we do not know it."""
    revision = await migrate.current_revision(engine)
    scripts = ScriptDirectory.from_config(migrate.config()).walk_revisions()
    if revision is None or revision in {script.revision for script in scripts}:
        return revision
    raise CommandError(
        f'schema "{settings.database_schema}" is at revision {revision}, which this version does not know:'
        " run the version that made it, or a newer one"
    )


def database_address(url: str) -> str:
    """Host, port and database name of the URL for a message; never a user, a password or a parameter."""
    hidden = f"the address in {_DATABASE_VARIABLE}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return hidden
    host = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    # An unescaped "@", "/", "?" or "#" in a password ends the host's part too early or too late: then a piece
    # of the password would be taken for the host, or for its port.
    is_sure = url.count("@") == parts.netloc.count("@") <= 1 and "#" not in url and _HOSTS.fullmatch(host)
    return f"{host or 'the local socket'}{parts.path}" if is_sure else hidden


def _database_error(settings: Settings, error: BaseException) -> CommandError:
    files = tls_files(settings.database_url.get_secret_value())
    if why := unreadable(files):
        return CommandError(f"cannot read the TLS files of {_DATABASE_VARIABLE}: {why}")
    if isinstance(error, ssl.SSLError):
        address = database_address(settings.database_url.get_secret_value())
        named = ", ".join(f"{name}={path}" for name, path in files)
        return CommandError(
            f"no TLS with PostgreSQL at {address} ({reason_of_tls(error)}): look at its certificate and at"
            f" {named or 'sslmode'} in {_DATABASE_VARIABLE}"
        )
    if isinstance(error, InvalidUrlError):
        return CommandError(f"{_DATABASE_VARIABLE}: {error}", code="settings")
    if isinstance(error, (ValueError, OverflowError, asyncpg.ClientConfigurationError)):
        # The driver quotes what it could not read, which may be a piece of the password.
        return CommandError(
            f"{_DATABASE_VARIABLE} cannot be read",
            "write postgresql://user:password@host:port/name"
            " and percent-encode special characters in the password",
            code="settings",
        )
    address = database_address(settings.database_url.get_secret_value())
    if isinstance(error, SharedSessionError):
        return CommandError(f"PostgreSQL at {address}: {error}")
    if isinstance(error, asyncpg.PostgresError):
        return CommandError(
            f"PostgreSQL at {address} does not let us in ({reason_of(error)})",
            f"check {_DATABASE_VARIABLE}",
            code="database_refuses",
        )
    return CommandError(
        f"cannot reach PostgreSQL at {address} ({reason_of(error)})",
        f"start it or set {_DATABASE_VARIABLE}",
        code="database_unreachable",
    )


def session_limits(settings: Settings) -> dict[str, str]:
    """PostgreSQL ends what would make the others wait: a worker that is stopped holds its locks no longer."""
    return {
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.session_timeout_ms),
    }
