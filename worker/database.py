"""Checks PostgreSQL before a command starts to work. Every failure becomes an error of one line.

No message holds a password: neither the URL nor a driver's error about the URL is printed.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.database_url import InvalidUrlError, UnreadableUrlError, has_password, read_url, tls_files
from db.engine import SharedSessionError, TriggersOffError, create_engine
from worker.error_texts import driver_error, reason_of, sqlstate
from worker.errors import CommandError, RefusedCredentialsError
from worker.failures import DATABASE_ERRORS, is_refused_login
from worker.secret_files import CredentialError
from worker.settings import Settings
from worker.tls import expired, is_of_time, reason_of_tls, served_dates, unreadable

LIMIT_SECONDS: Final = 5.0
# If somebody turns row-level security on, queries then fail instead of leaving out rows: a hidden user would
# count as unknown, and a hidden order as missing.
NOTHING_HIDDEN: Final = {"row_security": "off"}
# Limits that the role or the database sets for a shop's programs would end ours in the middle of their work,
# at every try. Workers have limits of their own (`session_limits`); a command reads Kafka while its
# transaction waits.
_NO_LIMITS: Final = {"transaction_timeout": "0", "idle_session_timeout": "0"}
_NONE_FOR_COMMANDS: Final = _NO_LIMITS | {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}

_INSUFFICIENT_PRIVILEGE: Final = "42501"
# What helps where it is not the address or the login.
_NEXT_STEPS: Final = {
    "53300": "let it have more connections: max_connections, or CONNECTION LIMIT of the role or database",
    "55000": "ALTER DATABASE … ALLOW_CONNECTIONS true",
    "57P03": "wait until it has started",
}
_DATABASE_VARIABLE: Final = "ORDER_WORKER_DATABASE_URL"
_SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
# Names, addresses and sockets' folders, each perhaps with a port.
_HOSTS: Final = re.compile(
    r"([\w.\-/%]+|\[[\da-fA-F:.%]+\])?(:\d+)?(,([\w.\-/%]+|\[[\da-fA-F:.%]+\])?(:\d+)?)*"
)


@asynccontextmanager
async def database_engine(settings: Settings, application_name: str) -> AsyncIterator[AsyncEngine]:
    """An engine for one command, disposed of when the block ends. No connection is made yet."""
    engine = create_engine(
        **database_login(settings),
        schema=settings.database_schema,
        application_name=application_name,
        server_settings=NOTHING_HIDDEN | _NONE_FOR_COMMANDS,
        pool_size=1,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def reading_engine(
    settings: Settings, application_name: str, connections: int, answer_seconds: float
) -> AsyncEngine:
    """A read-only engine with at most so many connections; a statement is cancelled at the time limit."""
    return create_engine(
        **database_login(settings),
        schema=settings.database_schema,
        application_name=application_name,
        command_timeout_seconds=answer_seconds,
        server_settings=session_limits(settings) | {"default_transaction_read_only": "on"},
        pool_size=connections,
        max_overflow=0,
    )


def database_login(settings: Settings) -> dict[str, Any]:
    """The arguments of `create_engine`: each new connection reads the secret files again."""
    url, password = settings.secret("database_url"), settings.secret("database_password")
    return {"database_url": url, "password": password}


async def require_reachable_database(engine: AsyncEngine, settings: Settings) -> None:
    """Raise CommandError, with the reason, unless PostgreSQL accepts our login within 5 seconds."""
    try:
        # Two connections: a pooler that shares sessions gives the second one the session of the first.
        async with asyncio.timeout(LIMIT_SECONDS), engine.connect() as connection, engine.connect():
            await connection.execute(text("SELECT 1"))
    except (OSError, TimeoutError, ValueError, OverflowError, *DATABASE_ERRORS) as error:
        raise await database_trouble(settings, driver_error(error)) from None


async def ask_database(engine: AsyncEngine, settings: Settings) -> float:
    """Connect to PostgreSQL; returns how many seconds this machine's clock is ahead of its.

    Raises PostgreSQL's error; a CommandError if another secret or file would help.
    """
    try:
        return await seconds_ahead_of_database(engine)
    except Exception as error:
        cause = driver_error(error)
        if is_refused_login(cause) or isinstance(cause, ssl.SSLError | InvalidUrlError):
            raise await database_trouble(settings, cause) from None
        raise


async def require_database(engine: AsyncEngine, settings: Settings) -> None:
    """As `require_reachable_database`; also raises CommandError unless the tables are of this version."""
    await require_reachable_database(engine, settings)
    revision, head = await require_known_revision(engine, settings), migrate.head_revision()
    if revision == head:
        return
    schema = settings.database_schema
    if revision is None and not await _may_look_into(engine, schema):
        raise CommandError(
            f'the role may not use schema "{schema}": GRANT USAGE ON SCHEMA "{schema}" to it, and rights on'
            " its tables"
        )
    found = "has no tables yet" if revision is None else f"is at revision {revision}, not {head}"
    raise CommandError(f'schema "{schema}" {found}', "run `order-worker db upgrade`", code="tables_missing")


def url_remark(settings: Settings) -> str | None:
    """The parameters of the database URL that are ignored, if there are any."""
    names = read_url(settings.database_url.get_secret_value()).without_effect
    return f"{_DATABASE_VARIABLE}: no effect here of {', '.join(names)}" if names else None


async def seconds_ahead_of_database(engine: AsyncEngine) -> float:
    """How many seconds this machine's clock is ahead of PostgreSQL's, to within a round trip."""
    async with engine.connect() as connection:
        asked = time.time()
        theirs = (await connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))).scalar_one()
    return (asked + time.time()) / 2 - float(theirs)


async def require_known_revision(engine: AsyncEngine, settings: Settings) -> str | None:
    """The revision of the tables (None: there are none), or a CommandError if we do not know it."""
    try:
        revision = await migrate.current_revision(engine)
    except DBAPIError as error:
        if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise CommandError(
            f'in schema "{settings.database_schema}", {reason_of(error)}: GRANT SELECT ON alembic_version'
            " to the role"
        ) from None
    scripts = ScriptDirectory.from_config(migrate.config()).walk_revisions()
    if revision is None or revision in {script.revision for script in scripts}:
        return revision
    raise CommandError(
        f'schema "{settings.database_schema}" is at revision {revision}, which this version does not know:'
        " run the version that made it, or a newer one"
    )


async def _may_look_into(engine: AsyncEngine, schema: str) -> bool:
    """Whether the role may use the schema, or there is none."""
    usable = text("SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
    async with engine.connect() as connection:
        return await connection.scalar(usable, {"schema": schema}) is not False


def database_address(url: str) -> str:
    """Host, port and database name of the URL for a message; never a user, a password or a parameter."""
    hidden = f"the address in {_DATABASE_VARIABLE}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return hidden
    host = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", []))
    # An unescaped "@", "/", "?" or "#" in a password moves the end of the host: a piece of the password would
    # be shown as the host or its port.
    is_sure = url.count("@") == parts.netloc.count("@") <= 1 and "#" not in url and _HOSTS.fullmatch(host)
    return f"{host or 'the local socket'}{parts.path}" if is_sure else hidden


async def database_trouble(settings: Settings, error: BaseException) -> CommandError:
    """The error of a failed connection, with what to check. RefusedCredentialsError: a refused login."""
    if isinstance(error, CredentialError):
        return CommandError(str(error))
    variable = settings.set_by("database_url")
    files = tls_files(settings.database_url.get_secret_value())
    if why := unreadable(files):
        return CommandError(f"cannot read the TLS files of {variable}: {why}")
    if isinstance(error, UnreadableUrlError):
        return CommandError(f"{variable} {error}")
    if isinstance(error, InvalidUrlError):
        return CommandError(f"{variable}: {error}", code="settings")
    dates = await asyncio.to_thread(_dates, settings) if is_of_time(error) else ""
    return _server_trouble(settings, error, dates, expired(files, datetime.now(UTC)))


def _dates(settings: Settings) -> str:
    try:
        parts = urlsplit(read_url(settings.database_url.get_secret_value()).dsn)
        return served_dates(parts.hostname or "127.0.0.1", parts.port or 5432, _SSL_REQUEST)
    except ValueError:
        return ""  # several hosts


def _server_trouble(
    settings: Settings, error: BaseException, dates: str, old_file: str | None
) -> CommandError:
    variable = settings.set_by("database_url")
    address = database_address(settings.database_url.get_secret_value())
    if isinstance(error, ssl.SSLError):
        files = tls_files(settings.database_url.get_secret_value())
        named = old_file or ", ".join(f"{name}={path}" for name, path in files) or "sslmode"
        return CommandError(
            f"no TLS with PostgreSQL at {address} ({reason_of_tls(error)}{dates}): look at its certificate"
            f" and at {named} in {variable}"
        )
    if isinstance(error, SharedSessionError | TriggersOffError):
        return CommandError(f"PostgreSQL at {address}: {error}")
    # The driver looks for files by itself, for example in a home folder that is somebody else's.
    file = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    reason = f"{reason_of(error)}{file}" + (f"; {old_file}" if old_file else "")
    if is_refused_login(error):
        return RefusedCredentialsError(
            f"PostgreSQL at {address} does not let us in ({reason})",
            f"check {_password_set_by(settings)}",
            code="database_refuses",
        )
    if isinstance(error, asyncpg.PostgresError):
        return CommandError(
            f"PostgreSQL at {address} does not let us in ({reason})",
            _NEXT_STEPS.get(error.sqlstate or "", f"check {variable}"),
            code="database_refuses",
        )
    return CommandError(
        f"cannot reach PostgreSQL at {address} ({reason})",
        f"start it or set {variable}",
        code="database_unreachable",
    )


def _password_set_by(settings: Settings) -> str:
    if settings.database_password_file:
        return settings.set_by("database_password")
    url = settings.database_url.get_secret_value()
    passfile = os.environ.get("PGPASSFILE")
    if passfile and not has_password(url):
        return f"PGPASSFILE={passfile} and {settings.set_by('database_url')}"
    return settings.set_by("database_url")


def session_limits(settings: Settings) -> dict[str, str]:
    """Timeouts with which PostgreSQL ends transactions that block others, like those of a frozen worker."""
    return {
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.session_timeout_ms),
        **NOTHING_HIDDEN,
        **_NO_LIMITS,
    }
