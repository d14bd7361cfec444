"""Engines and sessions. Building one connects to nothing."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import asyncpg
from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from db.database_url import UnreadableUrlError, read_url
from db.durable_commits import NEVER_ASYNCHRONOUS, DurableConnection
from db.errors import NoTransactionError

CONNECT_TIMEOUT_SECONDS: Final = 5.0  # where the URL has no `connect_timeout`

_OWNER: Final = "order_worker.session"
_TAKE: Final = """
    WITH found AS MATERIALIZED (SELECT current_setting($1, true) AS owner)
    SELECT found.owner, set_config(name, value, false) AS value
    FROM found, unnest($2::text[], $3::text[]) AS wanted (name, value)
    """
_READ: Final = "SELECT current_setting(name, true) AS value FROM unnest($1::text[]) AS wanted (name)"
# The oldest PostgreSQL that knows a setting; an older one does without.
_SINCE: Final[Mapping[str, int]] = {"idle_session_timeout": 14, "transaction_timeout": 17}
# The shop's triggers and foreign keys are off in a session where this is `replica`.
_REPLICATION: Final = "session_replication_role"
# Read only: the server has become a standby. The session stays open, and each write in it fails.
_READ_ONLY_ERRORS: Final = frozenset({"25006"})


class TriggersOffError(asyncpg.InterfaceError):
    """The role or the database switches triggers and foreign keys off."""

    def __init__(self) -> None:
        super().__init__(
            "session_replication_role = replica is set for this role or database, so that foreign keys and"
            " triggers are off: ALTER ROLE … RESET session_replication_role, or ALTER DATABASE … RESET it"
        )


class SharedSessionError(asyncpg.InterfaceError):
    """A pooler shares the session with other clients, so its settings do not hold."""

    def __init__(self) -> None:
        super().__init__(
            "a pooler shares its sessions among clients (transaction mode), so that neither schema nor time"
            " limits hold; set it to session mode, or connect past it"
        )


def create_engine(
    database_url: str | Callable[[], str],
    *,
    password: Callable[[], str] | None = None,
    schema: str = "public",
    application_name: str = "order-worker",
    server_settings: Mapping[str, str] | None = None,
    command_timeout_seconds: float | None = None,
    pool_size: int = 5,
    max_overflow: int = 5,
    pool_pre_ping: bool = True,
    pool_recycle: int = -1,
    echo: bool = False,
) -> AsyncEngine:
    """An engine whose every connection works in `schema`, found through the search path, or is refused.

    Each connection sets what is asked for and reads it back, so that a pooler in session mode may be between:
    SharedSessionError where one is in transaction mode. TriggersOffError where triggers and foreign keys are
    off (`session_replication_role`) and `server_settings` does not ask for that. A connection to a server
    that has become read-only is thrown away. Transactions are READ COMMITTED, and what is committed is
    durable (`db.durable_commits`).

    `database_url` is what libpq takes (`postgresql://user@host/name?sslmode=require`), also several hosts.
    Where it asks for something that cannot be had, or cannot be read, connecting raises InvalidUrlError,
    which does not quote it. A function in its place, and `password`, which goes before the URL's own, are
    called for each new connection, so that a file may be read; what they raise is raised.
    `command_timeout_seconds` ends a command on the client's side, for a connection whose other end is gone.
    `server_settings` are PostgreSQL's own names; limits that an old server does not know are left out.

    At most `pool_size` + `max_overflow` connections. One that is known to be closed is replaced before it is
    used. `pool_pre_ping` also asks each one for a sign of life, so that a server that is restarted this
    moment costs no error, but three round trips each time; `pool_recycle` replaces those older than so many
    seconds (-1: never), for a proxy that drops old ones; `echo` logs every statement.
    """

    async def connect() -> DurableConnection:
        url = read_url(database_url() if callable(database_url) else database_url)
        settings = {
            "application_name": application_name,
            "jit": "off",
            **url.settings,
            "search_path": _quoted(schema),
            "default_transaction_isolation": "read committed",
            "client_min_messages": "warning",  # `db.durable_commits` needs them
            "standard_conforming_strings": "on",  # a backslash in a pattern of ours is one
            "exit_on_error": "off",  # else it is not said which order is refused, and why
            **(server_settings or {}),
        }
        timeout_seconds = url.connect_timeout_seconds or CONNECT_TIMEOUT_SECONDS
        connection = await _connect(
            url.dsn,
            password=password() if password else None,
            timeout=timeout_seconds,
            command_timeout=command_timeout_seconds,
            ssl=ssl.create_default_context() if url.trusts_the_system else None,
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                await _take_session(connection, settings)
        except BaseException:
            connection.terminate()
            raise
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=max_overflow,
        pool_pre_ping=pool_pre_ping,
        pool_recycle=pool_recycle,
        echo=echo,
    )
    event.listen(engine.sync_engine, "checkout", _require_open)
    event.listen(engine.sync_engine, "handle_error", _discard_read_only)
    event.listen(engine.sync_engine, "after_cursor_execute", _require_replicated)
    return engine


async def _connect(dsn: str, **options: Any) -> DurableConnection:
    try:
        return await asyncpg.connect(dsn, **options, connection_class=DurableConnection)
    except (ValueError, LookupError, asyncpg.ClientConfigurationError) as error:
        if isinstance(error, OSError):
            raise  # TLS: some of its errors are ValueErrors as well
        # The driver quotes what it cannot read, which may be a piece of the password. A host's name that is
        # empty is an IndexError.
        raise UnreadableUrlError from None


async def _take_session(connection: DurableConnection, settings: Mapping[str, str]) -> None:
    """Give the session these settings, or raise SharedSessionError where it is not ours alone.

    Not as parameters of the connection: poolers refuse those, or skip them in silence.
    """
    connection.listen_for_warnings()
    major = connection.get_server_version().major
    known = {name: value for name, value in settings.items() if _SINCE.get(name, 0) <= major}
    wanted = {**known, _OWNER: str(uuid4())}
    try:
        taken = await connection.fetch(_TAKE, _OWNER, list(wanted), list(wanted.values()))
        *read, replication = await connection.fetch(_READ, [*wanted, _REPLICATION])
        await connection.fetch(NEVER_ASYNCHRONOUS)
    except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError) as error:
        raise SharedSessionError from error
    # An owner: the server's session had another client, and was not reset. Other values: the session changed.
    if any(row["owner"] for row in taken) or [r["value"] for r in taken] != [r["value"] for r in read]:
        raise SharedSessionError
    if replication["value"] == "replica" and _REPLICATION not in settings:
        raise TriggersOffError


def _discard_read_only(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) in _READ_ONLY_ERRORS:
        context.is_disconnect = True


def _require_replicated(connection: Connection, *_: object) -> None:
    """Statements in AUTOCOMMIT commit without a COMMIT."""
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, DurableConnection)
    driver_connection.require_replicated()


def _require_open(connection: Any, record: object, proxy: object) -> None:
    if connection.driver_connection.is_closed():
        raise DisconnectionError  # the pool reconnects


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def get_session(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], AsyncIterator[AsyncSession]]:
    """A dependency that gives each call a session: commits on success, rolls back on an error, always closes.

    For FastStream `Depends(get_session(sessions))`: the commit is done before the record is acknowledged.
    For FastAPI `Depends(get_session(sessions), scope="function")`: without that scope FastAPI commits after
    the client has its answer, and a commit that fails would have been reported as done.
    """

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened
            # An error in the caller is thrown in at the yield and never comes here: closing rolls back.
            await opened.commit()

    return session


async def require_transaction(session: AsyncSession) -> None:
    """Raise NoTransactionError in AUTOCOMMIT: no lock would outlive its statement there."""
    driver: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
    if driver.autocommit:
        raise NoTransactionError


@asynccontextmanager
async def raw_connection(session: AsyncSession) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The session's own asyncpg connection, inside the session's transaction, for COPY.

    Run a statement through the session first: SQLAlchemy sends BEGIN with the first one, and a
    COPY before it would commit by itself.
    """
    connection = await session.connection()
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    if not raw.is_in_transaction():
        raise RuntimeError("no statement has run in this session yet, so a COPY would commit by itself")
    try:
        yield raw
    except asyncpg.PostgresError as error:
        if error.sqlstate in _READ_ONLY_ERRORS:
            await connection.invalidate(error)
        raise


def _quoted(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '"'
