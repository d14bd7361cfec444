"""Engines and sessions. Building one connects to nothing."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

CONNECT_TIMEOUT_SECONDS: Final = 5.0


def create_engine(
    database_url: str,
    *,
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
    """An engine whose every connection works in `schema`, found through the search path.

    `database_url` is what libpq takes (`postgresql://user@host/name?sslmode=require`); it reaches
    asyncpg as it is. `command_timeout_seconds` ends a command on the client's side, for a
    connection whose other end is gone. `server_settings` are PostgreSQL's own names.

    At most `pool_size` + `max_overflow` connections. One that is known to be closed is replaced before it is
    used. `pool_pre_ping` also asks each one for a sign of life, so that a server that is restarted this
    moment costs no error, but three round trips each time; `pool_recycle` replaces those older than so many
    seconds (-1: never), for a proxy that drops old ones; `echo` logs every statement.
    """
    dsn = asyncpg_dsn(database_url)
    settings = {"application_name": application_name, "search_path": _quoted(schema), "jit": "off"}
    settings.update(server_settings or {})

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=command_timeout_seconds,
            server_settings=settings,
        )

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
    return engine


def _require_open(connection: Any, record: object, proxy: object) -> None:
    if connection.driver_connection.is_closed():
        raise DisconnectionError  # the pool connects anew


def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Sessions whose objects stay readable after the commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


def get_session(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], AsyncIterator[AsyncSession]]:
    """A dependency that gives each call a session: commits on success, rolls back on an error, always closes.

    For FastStream `Depends(get_session(sessions))`: the commit is done before the record is acknowledged.
    For FastAPI `Depends(get_session(sessions), scope="function")`: without that scope FastAPI commits after
    the client has its answer, and a commit that fails would have been told as done.
    """

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened
            # An error in the caller is thrown in at the yield and never comes here: closing rolls back.
            await opened.commit()

    return session


def asyncpg_dsn(database_url: str) -> str:
    """`postgresql+asyncpg://…`, as SQLAlchemy users write it, becomes what asyncpg takes."""
    scheme, separator, rest = database_url.partition("://")
    return f"{scheme.split('+')[0]}{separator}{rest}"


async def raw_connection(session: AsyncSession) -> "asyncpg.Connection[asyncpg.Record]":
    """The session's own asyncpg connection, inside the session's transaction, for COPY.

    Run a statement through the session first: SQLAlchemy sends BEGIN with the first one, and a
    COPY before it would commit by itself.
    """
    connection = await session.connection()
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    if not raw.is_in_transaction():
        raise RuntimeError("no statement has run in this session yet, so a COPY would commit by itself")
    return raw  # type: ignore[no-any-return]


def _quoted(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '"'
