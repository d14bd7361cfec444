"""The migrations make exactly the tables of the models, in any schema, up and down."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from alembic import command
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from db import migrate
from db.engine import create_engine, session_factory
from db.models import Base
from db.worker.leases import Holder, find_holders
from db.worker.positions import list_pending
from tests.support.order_stories import until_somebody_waits
from tests.support.order_worker import OrderWorker
from tests.support.shop import Shop, run_apart
from worker.kafka.published import publishers

TABLES = {*Base.metadata.tables, "alembic_version"}


@pytest.fixture
async def bare_engine(bare_database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without tables."""
    engine = create_engine(bare_database_url)
    yield engine
    await engine.dispose()


async def tables(engine: AsyncEngine, schema: str) -> set[str]:
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names(schema)))


@pytest.mark.parametrize("schema", ["public", 'a shop "with" odd name'])
async def test_upgrade_from_empty_gives_the_models_and_downgrade_leaves_nothing(
    bare_database_url: str, schema: str
):
    engine = create_engine(bare_database_url, schema=schema)
    try:
        await migrate.upgrade(engine, schema)
        assert await tables(engine, schema) == TABLES
        assert await migrate.current_revision(engine) == migrate.head_revision()
        async with engine.begin() as connection:
            await connection.run_sync(lambda sync: command.check(migrate.config(sync)))
        await migrate.downgrade(engine, "base")
        assert await tables(engine, schema) == {"alembic_version"}
    finally:
        await engine.dispose()


async def test_two_shops_live_in_two_schemas_of_one_database(bare_database_url: str):
    for schema in ("one", "two"):
        engine = create_engine(bare_database_url, schema=schema)
        await migrate.upgrade(engine, schema)
        assert await tables(engine, schema) == TABLES
        await engine.dispose()


async def test_a_shop_with_orders_goes_from_revision_to_revision_and_back(
    bare_database_url: str, bare_engine: AsyncEngine
):
    await migrate.upgrade(bare_engine, "public", "0001")
    shop = Shop(bare_database_url)
    shop.stock_up({1: 10})
    shop.sql(
        "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES (gen_random_uuid(), 1, 5, now())"
    )
    before = {t: dict(shop.sql(f"SELECT * FROM {t}")[0]) for t in ("users", "products", "orders")}
    await migrate.upgrade(bare_engine, "public")
    await migrate.downgrade(bare_engine, "0001")
    await migrate.upgrade(bare_engine, "public")
    after = {t: dict(shop.sql(f"SELECT * FROM {t} ORDER BY id")[0]) for t in before}
    assert {t: after[t] | before[t] for t in after} == after
    assert after["users"] == before["users"]


async def test_after_a_downgrade_a_pruned_event_is_empty(bare_database_url: str, bare_engine: AsyncEngine):
    await migrate.upgrade(bare_engine, "public")
    shop = Shop(bare_database_url)
    shop.sql(
        "INSERT INTO order_outcomes SELECT gen_random_uuid(), 'rejected', '', 'placed', 0, n, NULL, now()"
        " FROM generate_series(1, 2) AS n"
    )
    await migrate.downgrade(bare_engine, "0012")
    events = [row["event"] for row in shop.sql("SELECT event::text FROM order_outcomes")]
    assert events == ["null", "null"]
    await migrate.upgrade(bare_engine, "public")


async def test_a_partition_of_workers_before_the_leases_names_the_producer_that_they_had(
    bare_database_url: str,
):
    """It is fenced then by the first owner of this version."""
    engine = create_engine(bare_database_url)
    try:
        await migrate.upgrade(engine, "public", "0007")
        shop = Shop(bare_database_url)
        shop.sql(
            "INSERT INTO positions (group_id, topic, partition, turn, announced_to, begun_to)"
            " VALUES ('group', 'order-placed', 3, 7, 10, 20)"
        )
        await migrate.upgrade(engine, "public")
        async with session_factory(engine)() as session:
            holders = await find_holders(session, "group", "order-placed", [3])
            pending = await list_pending(session, "group", "order-placed")
        assert holders == {3: Holder(7, "group.order-placed.3")}
        assert publishers(pending[3]) == {"group.order-placed.3"}
    finally:
        await engine.dispose()


def test_every_constraint_and_index_is_named_by_the_convention(shop: Shop):
    """Errors are recognised by these names, and a later migration can only drop what it can name."""
    named = shop.sql(
        "SELECT c.relname AS table, n.conname AS name, n.contype::text AS kind FROM pg_constraint n"
        " JOIN pg_class c ON c.oid = n.conrelid JOIN pg_namespace s ON s.oid = c.relnamespace"
        # A NOT NULL is a constraint of its own from PostgreSQL 18 on, and named by PostgreSQL.
        " WHERE s.nspname = 'public' AND n.contype <> 'n' AND c.relname <> 'alembic_version'"
        " UNION ALL SELECT tablename, indexname, 'i' FROM pg_indexes WHERE schemaname = 'public'"
        " AND tablename <> 'alembic_version' AND indexname NOT IN (SELECT conname FROM pg_constraint)"
    )
    prefix = {"p": "pk", "f": "fk", "u": "uq", "c": "ck", "i": "ix"}
    assert {row["kind"] for row in named} == set(prefix)
    for row in named:
        assert re.fullmatch(rf"{prefix[row['kind']]}_{row['table']}(_[a-z_]+)?", row["name"]), row["name"]


async def test_upgrading_again_changes_nothing(bare_engine: AsyncEngine):
    await migrate.upgrade(bare_engine, "public")
    await migrate.upgrade(bare_engine, "public")
    assert await tables(bare_engine, "public") == TABLES


# The time of creation, and one user for an e-mail


async def test_what_was_there_before_was_created_when_the_tables_were_upgraded(
    bare_database_url: str, bare_engine: AsyncEngine
):
    await migrate.upgrade(bare_engine, "public", "0008")
    shop = Shop(bare_database_url)
    shop.stock_up({1: 10, 2: 10})
    files = "SELECT relname, relfilenode FROM pg_class WHERE relname IN ('products', 'categories')"
    before, began = shop.sql(files), shop.value("SELECT clock_timestamp()")
    await migrate.upgrade(bare_engine, "public", "0009")
    ended = shop.value("SELECT clock_timestamp()")
    assert shop.sql(files) == before, "no table was rewritten"
    for table in ("products", "categories"):
        (created,) = shop.sql(f"SELECT DISTINCT created_at FROM {table}")
        assert began < created["created_at"] < ended
    shop.sql("INSERT INTO products (id, name, price, category_id) VALUES (3, 'New', 1, 1)")
    assert shop.value("SELECT created_at FROM products WHERE id = 3") > ended


async def test_users_of_one_email_are_named_until_they_are_one(
    bare_database_url: str, bare_engine: AsyncEngine
):
    await migrate.upgrade(bare_engine, "public", "0008")
    shop = Shop(bare_database_url)
    shop.sql(
        "INSERT INTO users (id, email, full_name) VALUES (3, 'ann@x', ''), (5, 'Ann@X', ''),"
        " (9, 'ANN@x', ''), (4, 'bob@x', ''), (6, 'BOB@x', ''), (7, 'cy@x', '')"
    )
    with pytest.raises(migrate.UpgradeRefusedError) as caught:
        await migrate.upgrade(bare_engine, "public")
    message = str(caught.value)
    assert message.startswith(
        "users 3 and 5 and 1 more have one e-mail but for upper and lower case, and so do users of 1"
        " other e-mails: give all but one of them another e-mail and run it again; this"
    )
    assert "\n" not in message
    assert "@" not in message
    listed = shop.sql(message.rpartition("this lists them: ")[2])
    assert sorted(row["ids"] for row in listed) == [[3, 5, 9], [4, 6]]
    assert await migrate.current_revision(bare_engine) == "0009"
    assert shop.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'ix_users_email_lower'") == 0
    shop.sql("UPDATE users SET email = 'ann' || id WHERE id IN (5, 9)")
    shop.sql("DELETE FROM users WHERE id = 6")
    await migrate.upgrade(bare_engine, "public")
    assert await migrate.current_revision(bare_engine) == migrate.head_revision()


async def test_a_user_who_is_added_while_the_index_is_built_is_named_too(
    bare_database_url: str, bare_engine: AsyncEngine
):
    await migrate.upgrade(bare_engine, "public", "0009")
    shop = Shop(bare_database_url)
    shop.stock_up({1: 10})
    async with bare_engine.connect() as writer:
        await writer.execute(
            text("INSERT INTO users (id, email, full_name) VALUES (99, 'USER1@example.com', '')")
        )
        upgrading = asyncio.create_task(migrate.upgrade(bare_engine, "public"))
        await until_somebody_waits(shop)
        shop.sql("INSERT INTO users (id, email, full_name) VALUES (98, 'another', '')")  # nobody else waits
        await writer.commit()
        with pytest.raises(migrate.UpgradeRefusedError, match="have one e-mail"):
            await upgrading
    shop.sql("DELETE FROM users WHERE email = 'USER1@example.com'")
    await migrate.upgrade(bare_engine, "public")
    assert await migrate.current_revision(bare_engine) == migrate.head_revision()


def test_the_command_says_in_one_line_whose_emails_clash(
    bare_database_url: str, lone_order_worker: OrderWorker
):
    async def at_0008() -> None:
        engine = create_engine(bare_database_url)
        await migrate.upgrade(engine, "public", "0008")
        await engine.dispose()

    run_apart(at_0008())
    Shop(bare_database_url).sql(
        "INSERT INTO users (id, email, full_name) VALUES (1, 'a@x', ''), (2, 'A@x', '')"
    )
    refused = lone_order_worker("db", "upgrade", ORDER_WORKER_DATABASE_URL=bare_database_url)
    refused.assert_one_line(1, 'schema "public": users 1 and 2 have one e-mail')


# Tables that create_all made


@pytest.mark.parametrize("schema", ["public", "a shop"])
async def test_tables_that_create_all_made_are_taken_over_as_they_are(bare_database_url: str, schema: str):
    engine = create_engine(bare_database_url, schema=schema)
    try:
        async with engine.begin() as connection:
            await connection.execute(CreateSchema(schema, if_not_exists=True))
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO users (email, full_name) VALUES ('a', '')"))
            await connection.execute(text("CREATE TABLE our_own (id int PRIMARY KEY)"))
            await connection.execute(text("CREATE INDEX our_own_index ON users (full_name)"))
        await migrate.upgrade(engine, schema)
        assert await migrate.current_revision(engine) == migrate.head_revision()
        assert await tables(engine, schema) == TABLES | {"our_own"}
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM users")) == 1
        await migrate.upgrade(engine, schema)
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TABLE skips", "add_table skips"),
        ("ALTER TABLE products DROP COLUMN created_at", "add_column products.created_at"),
        ("ALTER TABLE users ADD COLUMN age int NOT NULL", "remove_column users.age"),
        ("DROP INDEX ix_users_email_lower", "add_index ix_users_email_lower"),
        (
            "ALTER TABLE products DROP CONSTRAINT ck_products_stock_not_negative",
            "add_constraint ck_products_stock_not_negative",
        ),
        ("ALTER TABLE orders ALTER COLUMN user_id TYPE int", "modify_type orders.user_id"),
        ("ALTER TABLE orders DROP CONSTRAINT fk_orders_user_id", "add_fk fk_orders_user_id"),
    ],
)
def test_other_tables_that_no_upgrade_made_are_refused_in_one_line(
    bare_database_url: str, lone_order_worker: OrderWorker, change: str, named: str
):
    async def create_all() -> None:
        engine = create_engine(bare_database_url)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text(change))
        await engine.dispose()

    run_apart(create_all())
    refused = lone_order_worker("db", "upgrade", ORDER_WORKER_DATABASE_URL=bare_database_url)
    refused.assert_one_line(1, "there are tables that no upgrade made")
    assert named in refused.err
    assert Shop(bare_database_url).value("SELECT to_regclass('alembic_version')") is None
