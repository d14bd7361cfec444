"""A right that a worker will need, on a bad day only too, is named before it starts, with its GRANT."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.roles import as_role, role_of_workers
from tests.support.shop import Shop
from worker.database import database_engine, require_database
from worker.errors import CommandError
from worker.failures import WaitsForOperatorError
from worker.rights import RIGHTS, require_rights
from worker.settings import Settings
from worker.table_checks import TableChecks

NEEDED = [(table, right) for table, rights in RIGHTS.items() for right in rights]


@pytest.fixture
def role(shop: Shop) -> Iterator[str]:
    """The name of a role that may do what a worker does, and nothing else."""
    with role_of_workers(shop) as name:
        yield name


def settings_of(shop: Shop, role: str) -> Settings:
    return Settings(database_url=SecretStr(as_role(shop.database_url, role)))


async def remark(settings: Settings) -> str | None:
    async with database_engine(settings, "test") as engine:
        await require_database(engine, settings)
        return await require_rights(engine, settings)


async def refusal(settings: Settings) -> str:
    with pytest.raises(CommandError) as refused:
        await remark(settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_a_role_with_the_rights_that_are_listed_starts_without_a_remark(shop: Shop, role: str):
    assert await remark(settings_of(shop, role)) is None


async def test_each_right_that_is_missing_is_named_and_granted_by_what_is_said(shop: Shop, role: str):
    settings = settings_of(shop, role)
    for table, right in NEEDED:
        shop.sql(f"REVOKE {right} ON {table} FROM {role}")
        said = await refusal(settings)
        assert f"role {role} lacks {right} on {table}: " in said
        shop.sql(said.partition(": ")[2])
        assert await remark(settings) is None


async def test_all_that_is_missing_is_one_line(shop: Shop, role: str):
    for table, right in NEEDED:
        shop.sql(f"REVOKE {right} ON {table} FROM {role}")
    said = await refusal(settings_of(shop, role))
    for statement in said.partition(": ")[2].split("; "):
        shop.sql(statement)
    assert await remark(settings_of(shop, role)) is None


async def test_a_grant_of_the_columns_counts(shop: Shop, role: str):
    shop.sql(f"REVOKE UPDATE ON products FROM {role}")
    shop.sql(f"GRANT UPDATE (stock_quantity) ON products TO {role}")
    assert await remark(settings_of(shop, role)) is None


async def test_what_only_the_page_lacks_is_a_remark(shop: Shop, role: str):
    shop.sql(f"REVOKE SELECT ON order_items FROM {role}")
    said = await remark(settings_of(shop, role))
    assert said is not None
    assert f"GRANT SELECT ON order_items TO {role}" in said


async def test_row_level_security_is_named_with_its_tables(shop: Shop, role: str):
    shop.sql("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    said = await refusal(settings_of(shop, role))
    assert "row-level security is on for orders" in said
    shop.sql(said.partition(": ")[2])
    assert await remark(settings_of(shop, role)) is None


@pytest.mark.parametrize("table", ["order_outcomes", "positions"])
async def test_a_table_that_a_crash_would_empty_is_named(shop: Shop, role: str, table: str):
    shop.sql(f"ALTER TABLE {table} SET UNLOGGED")
    said = await refusal(settings_of(shop, role))
    assert "a crash of PostgreSQL would empty" in said
    shop.sql(said.partition(": ")[2])
    assert await remark(settings_of(shop, role)) is None


# Each was seen: other bytes published again, redeliveries as dead letters, amounts rounded, COPYs that fail.
ALTERED = {
    "order_outcomes.event": "jsonb",
    "order_outcomes.fingerprint": "text USING encode(fingerprint, 'hex')",
    "order_outcomes.decided_at": "timestamp(0) with time zone",
    "orders.total_amount": "numeric(14,0)",
    "orders.placed_at": "timestamp without time zone",
    "order_items.quantity": "bigint",
    "order_items.unit_price": "double precision",
}


async def test_columns_that_do_not_keep_what_is_written_are_named_in_one_line(shop: Shop, role: str):
    for place, kind in ALTERED.items():
        table, column = place.split(".")
        shop.sql(f"ALTER TABLE {table} ALTER {column} TYPE {kind}")
    said = await refusal(settings_of(shop, role))
    assert all(f"{place} is {kind.partition(' USING')[0]}" in said for place, kind in ALTERED.items())
    for statement in said.rpartition("): ")[2].split("; "):
        using = " USING decode(fingerprint, 'hex')" if "fingerprint" in statement else ""
        shop.sql(statement + using)
    assert await remark(settings_of(shop, role)) is None


async def test_columns_that_were_widened_and_columns_of_the_shop_are_accepted(shop: Shop, role: str):
    shop.sql("CREATE DOMAIN amount AS numeric(20,4)")
    shop.sql("ALTER TABLE orders ALTER total_amount TYPE amount, ALTER status TYPE text, ADD channel text")
    shop.sql("ALTER TABLE order_items ALTER unit_price TYPE numeric")
    shop.sql("ALTER TABLE products ALTER stock_quantity TYPE numeric, ALTER price TYPE numeric(12,4)")
    assert await remark(settings_of(shop, role)) is None


async def test_indexes_of_another_collation_are_a_remark(shop: Shop, role: str):
    """As after an upgrade of the system's C library."""
    shop.sql("UPDATE pg_database SET datcollversion = '2.0' WHERE datname = current_database()")
    said = await remark(settings_of(shop, role))
    assert said is not None
    assert "REINDEX DATABASE" in said
    assert said.endswith("REFRESH COLLATION VERSION")
    shop.sql("UPDATE pg_database SET datcollversion = NULL WHERE datname = current_database()")
    assert await remark(settings_of(shop, role)) is None


async def test_orders_that_may_have_the_same_id_are_a_remark(shop: Shop, role: str):
    """As where a shop partitions them by time: an order of the shop's was made again from Kafka."""
    shop.sql("ALTER TABLE orders DROP CONSTRAINT pk_orders CASCADE, ADD PRIMARY KEY (id, created_at)")
    said = await remark(settings_of(shop, role))
    assert said is not None
    assert "orders has no unique index on id alone" in said
    shop.sql("ALTER TABLE orders ADD UNIQUE (id)")
    assert await remark(settings_of(shop, role)) is None


TRIGGERS = {
    "rounds": ("orders", "INSERT", "NEW.total_amount := round(NEW.total_amount);"),
    "replaces": ("order_outcomes", "INSERT", "SELECT * INTO NEW FROM order_outcomes;"),
    "keeps_ten": ("products", "UPDATE", "new.stock_quantity = greatest(new.stock_quantity, 10);"),
}
HARMLESS = {
    "refuses": ("orders", "INSERT", "IF NEW.total_amount >= 5 THEN RAISE 'no'; END IF;"),
    "notes_the_channel": ("orders", "INSERT", "NEW.channel := 'web';"),
    "renames": ("products", "UPDATE", "NEW.name := upper(NEW.name);"),
    "at_delivery": ("orders", "UPDATE", "NEW.total_amount := 0;"),
}


async def test_triggers_and_rules_that_may_change_what_is_written_are_a_remark(shop: Shop, role: str):
    shop.sql("ALTER TABLE orders ADD channel text")
    for name, (table, on, body) in {**TRIGGERS, **HARMLESS}.items():
        function = f"BEGIN {body} RETURN NEW; END"
        shop.sql(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $${function}$$")
        shop.sql(f"CREATE TRIGGER {name} BEFORE {on} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
    shop.sql(f"ALTER ROLE {role} SET standard_conforming_strings = off")
    shop.sql("CREATE RULE also AS ON UPDATE TO products DO ALSO NOTIFY products")
    said = await remark(settings_of(shop, role))
    assert said is not None
    assert "(order_outcomes.replaces, orders.rounds, products.also, products.keeps_ten)" in said
    shop.sql("DROP RULE also ON products")
    for name, (table, _, _) in TRIGGERS.items():
        shop.sql(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
    assert await remark(settings_of(shop, role)) is None


async def test_rules_that_keep_orders_from_being_written_are_named(shop: Shop, role: str):
    """Few orders waited for ever, with an error of PostgreSQL's that names no table. COPY heeds no rule."""
    shop.sql("CREATE RULE also AS ON INSERT TO order_items DO ALSO NOTIFY items")
    shop.sql('CREATE RULE "Own" AS ON INSERT TO orders DO INSTEAD NOTHING')
    said = await refusal(settings_of(shop, role))
    assert said.startswith("rules keep orders from being written: ")
    for statement in said.partition(": ")[2].partition(" (")[0].split("; "):
        shop.sql(statement)
    assert await remark(settings_of(shop, role)) is None


async def test_a_table_that_is_gone_is_named(shop: Shop, role: str):
    """At the start it was a traceback."""
    shop.sql("ALTER TABLE orders RENAME TO away")
    assert 'schema "public" lacks orders' in await refusal(settings_of(shop, role))
    shop.sql("CREATE VIEW orders AS SELECT * FROM away")
    shop.sql(f"GRANT SELECT, INSERT ON orders TO {role}")
    assert "a view takes no COPY: make tables of orders" in await refusal(settings_of(shop, role))


async def test_a_schema_that_may_not_be_used_any_more_is_named(shop: Shop, role: str):
    """Its tables are not found then."""
    async with database_engine(settings_of(shop, role), "test") as engine:
        checks = TableChecks(engine, 20.0)
        shop.sql("REVOKE USAGE ON SCHEMA public FROM public")
        with pytest.raises(WaitsForOperatorError, match='GRANT USAGE ON SCHEMA "public"'):
            await checks.require_unaltered(at_once=True)


async def test_what_is_wrong_with_a_partition_is_named(shop: Shop, role: str):
    """As of the one that new rows come into."""
    shop.sql("DROP TABLE order_items")
    shop.sql(
        "CREATE TABLE order_items (order_id uuid, line_number int, product_id bigint, quantity int,"
        " unit_price numeric(10, 2)) PARTITION BY HASH (order_id)"
    )
    shop.sql(
        "CREATE UNLOGGED TABLE items_0 PARTITION OF order_items FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    )
    shop.sql(f"GRANT SELECT, INSERT ON order_items TO {role}")
    assert "ALTER TABLE items_0 SET LOGGED" in await refusal(settings_of(shop, role))
    shop.sql("ALTER TABLE items_0 SET LOGGED")
    halves = "BEGIN NEW.quantity := NEW.quantity / 2; RETURN NEW; END"
    shop.sql(f"CREATE FUNCTION halves() RETURNS trigger LANGUAGE plpgsql AS '{halves}'")
    shop.sql("CREATE TRIGGER halves BEFORE INSERT ON items_0 FOR EACH ROW EXECUTE FUNCTION halves()")
    assert "(order_items.halves)" in str(await remark(settings_of(shop, role)))


@pytest.mark.guarantee_1
async def test_what_is_altered_while_a_worker_runs_is_seen_soon(
    shop: Shop, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
):
    checks = TableChecks(engine, 20.0)
    shop.sql("ALTER TABLE orders ALTER total_amount TYPE numeric(14,0)")
    await checks.require_unaltered(at_once=False)  # checked before the start
    monkeypatch.setattr("worker.table_checks.INTERVAL_SECONDS", 0.0)
    soon = TableChecks(engine, 20.0)
    for one, at_once in ((soon, False), (soon, False), (checks, True)):
        with pytest.raises(WaitsForOperatorError, match=r"ALTER total_amount TYPE numeric\(14,2\)"):
            await one.require_unaltered(at_once=at_once)
    shop.sql("ALTER TABLE orders ALTER total_amount TYPE numeric(14,2)")
    await soon.require_unaltered(at_once=False)


async def test_a_trigger_that_is_added_while_a_worker_runs_is_a_warning_once(
    shop: Shop, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
):
    checks = TableChecks(engine, 20.0)
    body = "BEGIN NEW.total_amount := round(NEW.total_amount); RETURN NEW; END"
    shop.sql(f"CREATE FUNCTION rounds() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    shop.sql("CREATE TRIGGER rounds BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION rounds()")
    for _ in range(2):
        await checks.require_unaltered(at_once=True)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "worker.table_checks"]
    assert "may change what workers write (orders.rounds)" in warning


WITHOUT_A_KEY = {
    "dropped": "ALTER TABLE order_outcomes DROP CONSTRAINT pk_order_outcomes",
    "with-the-time": "ALTER TABLE order_outcomes DROP CONSTRAINT pk_order_outcomes,"
    " ADD PRIMARY KEY (order_id, decided_at)",
}


@pytest.mark.guarantee_1
@pytest.mark.parametrize("altered", WITHOUT_A_KEY)
async def test_a_ledger_that_would_take_an_order_twice_is_named(shop: Shop, role: str, altered: str):
    """As one that is partitioned by time: two workers then decided the same 100 orders, both."""
    shop.sql(WITHOUT_A_KEY[altered])
    said = await refusal(settings_of(shop, role))
    assert "an order could be decided twice" in said
    shop.sql(said.rpartition(": ")[2])
    assert await remark(settings_of(shop, role)) is None


async def test_row_level_security_that_is_turned_on_later_hides_nothing(shop: Shop, role: str):
    """A hidden user would be an unknown one, and its order rejected."""
    async with database_engine(settings_of(shop, role), "test") as engine, engine.connect() as connection:
        shop.sql("ALTER TABLE users ENABLE ROW LEVEL SECURITY")
        with pytest.raises(DBAPIError, match="affected by row-level security"):
            await connection.execute(text("SELECT id FROM users"))


async def test_a_server_that_takes_no_writes_is_named(shop: Shop, role: str):
    shop.sql(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    said = await refusal(settings_of(shop, role))
    assert "PostgreSQL is read-only, because default_transaction_read_only is on" in said


async def test_the_revision_that_may_not_be_read_is_named_with_its_grant(shop: Shop, role: str):
    shop.sql(f"REVOKE SELECT ON alembic_version FROM {role}")
    said = await refusal(settings_of(shop, role))
    assert "permission denied for table alembic_version: GRANT SELECT ON alembic_version" in said


async def test_a_schema_that_may_not_be_used_is_named(shop: Shop, role: str):
    shop.sql("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    assert 'may not use schema "public"' in await refusal(settings_of(shop, role))
