"""A session has what was asked for, whatever lies between us and PostgreSQL, or it is not used."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.bulk.copy import copy_rows
from db.engine import create_engine, session_factory
from tests.support.pooler import HOW_TO_INSTALL, find_pooler, pooled
from tests.support.roles import as_role
from tests.support.shop import Shop
from worker.database import database_engine, require_reachable_database, session_limits
from worker.errors import CommandError
from worker.sandbox.servers.ports import free_port
from worker.settings import Settings

LIMITS = {
    "statement_timeout": "12345",
    "lock_timeout": "2345",
    "idle_in_transaction_session_timeout": "34567",
}
ASKED_FOR = {
    **{name: f"{value}ms" for name, value in LIMITS.items()},
    "search_path": '"the ""other"" shop"',
    "application_name": "order-worker",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "client_min_messages": "warning",
}
# Of the role or the database, for other programs: each would end our sessions, or keep a warning from us.
MADE_FOR_OTHERS = {
    "client_min_messages": "error",
    "transaction_timeout": "1s",
    "idle_session_timeout": "1s",
    "statement_timeout": "1s",
    "idle_in_transaction_session_timeout": "1s",
    "exit_on_error": "on",
}

Pooled = Callable[[str], str]


@pytest.fixture
async def pooled_by(shop: Shop) -> AsyncIterator[Pooled]:
    """The test's database by way of a pooler in the mode that is given."""
    program = find_pooler()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(HOW_TO_INSTALL, pytrace=False)
        pytest.skip(HOW_TO_INSTALL)
    async with AsyncExitStack() as stack:
        yield lambda mode: stack.enter_context(pooled(program, shop.database_url, mode))


def engine_on(url: str) -> AsyncEngine:
    return create_engine(url, schema='the "other" shop', server_settings=LIMITS, pool_pre_ping=False)


async def alter(shop: Shop, what: str) -> None:
    """For sessions that begin later. From another database: in this one they may be read-only by now."""
    server, _, name = shop.database_url.rpartition("/")
    await asyncio.to_thread(Shop(f"{server}/postgres").sql, f"ALTER DATABASE {name} {what}")


async def settings_of(engine: AsyncEngine, names: Iterable[str] = tuple(ASKED_FOR)) -> dict[str, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT name, current_setting(name) FROM unnest(CAST(:names AS text[])) AS name"),
            {"names": list(names)},
        )
        return {row.name: row.current_setting for row in rows}


async def test_a_session_has_the_schema_the_limits_and_the_isolation_asked_for(shop: Shop):
    await alter(shop, "SET default_transaction_isolation = 'serializable'")
    engine = engine_on(shop.database_url)
    assert await settings_of(engine) == ASKED_FOR
    await engine.dispose()


async def test_what_is_set_for_other_programs_reaches_neither_workers_nor_commands(shop: Shop):
    for name, value in MADE_FOR_OTHERS.items():
        await alter(shop, f"SET {name} = '{value}'")
    settings = Settings(kafka_bootstrap_servers="k:1", database_url=shop.database_url)
    worker = create_engine(shop.database_url, server_settings=session_limits(settings))
    assert set((await settings_of(worker, MADE_FOR_OTHERS)).values()).isdisjoint(MADE_FOR_OTHERS.values())
    await worker.dispose()
    async with database_engine(settings, "test") as command:
        assert list((await settings_of(command, MADE_FOR_OTHERS)).values()) == ["warning", *["0"] * 4, "off"]


async def test_a_session_without_triggers_and_foreign_keys_is_refused_unless_asked_for(shop: Shop):
    """`delete_order` would leave the items behind, and nothing that the shop hangs on a row would happen."""
    await alter(shop, "SET session_replication_role = replica")
    settings = Settings(kafka_bootstrap_servers="k:1", database_url=shop.database_url)
    engine = create_engine(shop.database_url)
    with pytest.raises(CommandError, match="session_replication_role = replica is set") as refused:
        await require_reachable_database(engine, settings)
    assert "\n" not in str(refused.value)
    await engine.dispose()
    loading = create_engine(shop.database_url, server_settings={"session_replication_role": "replica"})
    await write(loading)
    await loading.dispose()


async def test_too_few_connections_and_a_closed_database_are_named_with_what_helps(shop: Shop):
    role = f"few_{uuid4().hex[:8]}"
    await asyncio.to_thread(shop.sql, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    settings = Settings(kafka_bootstrap_servers="k:1", database_url=as_role(shop.database_url, role))
    engine = create_engine(as_role(shop.database_url, role))
    with pytest.raises(CommandError, match=r"too many connections for role .*: let it have more connections"):
        await require_reachable_database(engine, settings)
    await engine.dispose()
    await alter(shop, "ALLOW_CONNECTIONS false")
    with pytest.raises(CommandError, match="ALTER DATABASE … ALLOW_CONNECTIONS true"):
        await require_reachable_database(engine, settings)
    await alter(shop, "ALLOW_CONNECTIONS true")
    await asyncio.to_thread(shop.sql, f"DROP ROLE {role}")


async def test_behind_a_pooler_of_sessions_too_and_one_after_the_other(pooled_by: Pooled):
    url = pooled_by("session")
    for _ in range(2):  # the second one gets the session of the first
        engine = engine_on(url)
        assert await settings_of(engine) == ASKED_FOR
        await engine.dispose()


async def test_sessions_that_a_pooler_shares_are_refused_in_one_line(pooled_by: Pooled):
    url = pooled_by("transaction")
    engine = engine_on(url)
    with pytest.raises(CommandError) as refused:
        await require_reachable_database(engine, Settings(kafka_bootstrap_servers="k:1", database_url=url))
    assert "shares its sessions among clients (transaction mode)" in str(refused.value)
    assert "\n" not in str(refused.value)
    await engine.dispose()


async def write(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO users (email, full_name) VALUES ('a@b.c', 'A')"))


async def copy(engine: AsyncEngine) -> None:
    async with session_factory(engine)() as session:
        await session.execute(text("SELECT 1"))
        await copy_rows(session, "users", ["email"], [])


@pytest.mark.parametrize("use", [write, copy])
async def test_a_session_that_became_read_only_is_thrown_away(
    shop: Shop, use: Callable[[AsyncEngine], Awaitable[None]]
):
    """As after a failover: the server behind it is a standby now, and the next one is not."""
    await alter(shop, "SET default_transaction_read_only = on")
    engine = create_engine(shop.database_url, pool_pre_ping=False)
    async with engine.connect():
        pass
    await alter(shop, "RESET default_transaction_read_only")
    with pytest.raises((DBAPIError, asyncpg.ReadOnlySQLTransactionError), match="read-only transaction"):
        await use(engine)
    await write(engine)
    await engine.dispose()


async def test_a_url_is_read_as_libpq_reads_it(shop: Shop):
    asked = (
        "?connect_timeout=10&channel_binding=prefer&keepalives=1&gssencmode=disable&sslcompression=0"
        "&fallback_application_name=x&load_balance_hosts=random&sslsni=1&application_name=mine"
        "&options=-c%20statement_timeout%3D77s%20-csearch_path=another"
    )
    engine = create_engine(shop.database_url + asked, schema="public", server_settings={"jit": "on"})
    found = await settings_of(engine)
    await engine.dispose()
    assert found["application_name"] == "mine"
    assert found["statement_timeout"] == "77s"
    # What the caller asks for counts: a URL never takes a worker into another schema.
    assert (found["search_path"], found["jit"]) == ('"public"', "on")


async def test_of_several_hosts_the_one_that_takes_writes_is_found(shop: Shop):
    user, _, server = shop.database_url.partition("@")
    hosts = f"{user}@127.0.0.1:{free_port()},{server}?target_session_attrs=read-write&connect_timeout=5"
    engine = create_engine(hosts)
    await write(engine)
    await engine.dispose()


async def test_a_url_that_asks_for_what_cannot_be_had_is_refused_in_one_line(shop: Shop):
    url = f"{shop.database_url}?channel_binding=require"
    engine = create_engine(url)
    with pytest.raises(CommandError, match="ORDER_WORKER_DATABASE_URL: channel_binding cannot be had"):
        await require_reachable_database(engine, Settings(kafka_bootstrap_servers="k:1", database_url=url))
    await engine.dispose()
