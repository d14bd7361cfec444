"""Items written without a look at each one's order and product: when, and that nothing dangles."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from db.bulk import orders
from db.bulk.rows import encode_items, encode_order
from db.engine import session_factory
from db.stock import Taking, take_stock
from db.worker.ledger import database_time
from tests.support.order_stories import until_somebody_waits
from tests.support.shop import Shop

Sessions = async_sessionmaker[AsyncSession]
NOBODYS_PRODUCT = 4_711
NOW = datetime(2026, 11, 26, tzinfo=UTC)
PRICE, CENTS = "2.50", 250


@pytest.fixture
async def sessions(engine: AsyncEngine, shop: Shop) -> Sessions:
    """On a shop with product 1, of which there is plenty."""
    await asyncio.to_thread(shop.stock_up, {1: 10_000})
    return session_factory(engine)


class Encoded(NamedTuple):
    orders: Sequence[bytes]
    items: Sequence[bytes]


def many(product_id: int, count: int = orders._MANY_ORDERS) -> Encoded:
    """Orders of one piece each, as many as it takes."""
    ids = [uuid4().bytes for _ in range(count)]
    return Encoded(
        [encode_order(order_id, 1, CENTS, NOW, NOW) for order_id in ids],
        [encode_items(order_id, [(product_id, 1, None)], [PRICE]) for order_id in ids],
    )


async def are_checked(session: AsyncSession, new: Encoded, *, references_hold: bool = True) -> bool:
    """Whether PostgreSQL looks for the product of each item; nothing of it stays."""
    await database_time(session)
    try:
        await orders.add_orders(session, *new, references_hold=references_hold)
    except asyncpg.ForeignKeyViolationError:
        return True
    finally:
        await session.rollback()
    return False


async def test_the_items_of_many_orders_are_not_looked_up_one_by_one(sessions: Sessions):
    async with sessions() as session:
        assert not await are_checked(session, many(NOBODYS_PRODUCT))


async def test_those_of_a_caller_that_takes_no_stock_are_and_so_are_those_of_few_orders(sessions: Sessions):
    async with sessions() as session:
        assert await are_checked(session, many(NOBODYS_PRODUCT), references_hold=False)
        assert await are_checked(session, many(NOBODYS_PRODUCT, orders._MANY_ORDERS - 1))


@pytest.mark.parametrize(
    ("of_the_shop", "checked"),
    [
        ("ALTER TABLE orders ADD taken_by bigint DEFAULT 1 REFERENCES users", True),
        ("ALTER TABLE order_items ADD FOREIGN KEY (product_id) REFERENCES products", False),
        ("ALTER TABLE orders ADD shipped_by bigint REFERENCES categories", True),
        ("CREATE TRIGGER own BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION own()", True),
        ("CREATE TRIGGER own AFTER INSERT OR DELETE ON order_items EXECUTE FUNCTION own()", True),
        ("CREATE CONSTRAINT TRIGGER own AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION own()", True),
        ("ALTER TABLE order_items ADD gift_for bigint DEFAULT 1 REFERENCES users", True),
        ("ALTER TABLE order_items ADD UNIQUE (order_id, line_number) DEFERRABLE", True),
        ("CREATE TRIGGER own AFTER UPDATE ON order_items FOR EACH ROW EXECUTE FUNCTION own()", False),
        ("CREATE TABLE returns (o uuid, l int, FOREIGN KEY (o, l) REFERENCES order_items)", False),
        ("CREATE TABLE invoices (o uuid REFERENCES orders)", False),
        ("CREATE TRIGGER own BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION own()", False),
    ],
)
async def test_what_a_shop_adds_to_its_tables_is_never_skipped(
    sessions: Sessions, shop: Shop, of_the_shop: str, checked: bool
):
    own = "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    await asyncio.to_thread(shop.sql, own)
    await asyncio.to_thread(shop.sql, of_the_shop)
    async with sessions() as session:
        assert await are_checked(session, many(NOBODYS_PRODUCT)) == checked


async def test_a_trigger_of_a_single_partition_is_never_skipped(sessions: Sessions, shop: Shop):
    """As of the one that new rows come into."""
    for statement in (
        "DROP TABLE order_items",
        "CREATE TABLE order_items (order_id uuid REFERENCES orders, line_number int, product_id bigint"
        " REFERENCES products, quantity int, unit_price numeric(10, 2)) PARTITION BY HASH (order_id)",
        "CREATE TABLE items_0 PARTITION OF order_items FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ):
        await asyncio.to_thread(shop.sql, statement)
    async with sessions() as session:
        assert not await are_checked(session, many(NOBODYS_PRODUCT))
    own = "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
    await asyncio.to_thread(shop.sql, own)
    await asyncio.to_thread(
        shop.sql, "CREATE TRIGGER own BEFORE INSERT ON items_0 FOR EACH ROW EXECUTE FUNCTION own()"
    )
    async with sessions() as session:
        assert await are_checked(session, many(NOBODYS_PRODUCT))


async def test_a_role_that_may_not_leave_checks_out_has_them_made(sessions: Sessions, shop: Shop):
    role = f"clerk_{uuid4().hex[:8]}"
    for statement in (
        f"CREATE ROLE {role}",
        f"GRANT SELECT, INSERT ON orders, order_items, products, users TO {role}",
    ):
        await asyncio.to_thread(shop.sql, statement)
    try:
        for expected in (True, False):
            async with sessions() as session:
                await session.execute(text(f"SET LOCAL ROLE {role}"))
                assert await are_checked(session, many(NOBODYS_PRODUCT)) == expected
            await asyncio.to_thread(shop.sql, f"GRANT SET ON PARAMETER session_replication_role TO {role}")
    finally:
        for statement in (
            f"REVOKE SET ON PARAMETER session_replication_role FROM {role}",
            f"DROP OWNED BY {role}",
            f"DROP ROLE {role}",
        ):
            await asyncio.to_thread(shop.sql, statement)


async def test_from_the_next_statement_on_postgresql_looks_again(sessions: Sessions):
    async with sessions() as session:
        await database_time(session)
        await orders.add_orders(session, *many(1), references_hold=True)
        with pytest.raises(DBAPIError, match="fk_order_items_product_id"):
            await session.execute(
                text(
                    "INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price)"
                    f" SELECT id, 2, {NOBODYS_PRODUCT}, 1, 1 FROM orders LIMIT 1"
                )
            )


async def test_a_deleted_product_shows_when_its_stock_is_taken(sessions: Sessions, shop: Shop):
    async with sessions() as session:
        await database_time(session)
        await orders.add_orders(session, *many(1), references_hold=True)
        await asyncio.to_thread(shop.sql, "DELETE FROM products")
        assert not await take_stock(session, {1: Taking(orders._MANY_ORDERS, PRICE)})


async def test_a_product_of_orders_under_way_cannot_be_deleted_any_more(sessions: Sessions, shop: Shop):
    async with sessions() as session:
        await database_time(session)
        await orders.add_orders(session, *many(1), references_hold=True)
        assert await take_stock(session, {1: Taking(orders._MANY_ORDERS, PRICE)})
        delete = asyncio.create_task(asyncio.to_thread(shop.sql, "DELETE FROM products"))
        try:
            await until_somebody_waits(shop)
            await session.commit()
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="fk_order_items_product_id"):
                await delete
        finally:
            with suppress(Exception):
                await delete
    assert await asyncio.to_thread(shop.value, "SELECT count(*) FROM order_items") == orders._MANY_ORDERS
