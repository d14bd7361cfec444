"""What was decided is stored alike, whether it goes by COPY or, where it is little, by one statement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.few import insert_rows
from db.bulk.orders import add_orders
from db.bulk.rows import encode_items, encode_order, encode_outcome
from db.decision import cents_of
from db.engine import create_engine, session_factory
from db.worker.decided import FEW_ORDERS, add_decided
from db.worker.ledger import add_outcomes, database_time
from tests.support.shop import Shop

pytestmark = pytest.mark.guarantee_1

NOBODY = 4_711
NOW = datetime(2026, 11, 30, 12, 0, 0, 5, tzinfo=UTC)
# Around each place where a digit of base 10,000 begins or ends, and at both bounds of the columns.
TOTALS = ["0.00", "0.01", "0.99", "9999.99", "10000.00", "100000000.01", "999999999999.99"]
PRICES = ["0.00", "0.10", "99.99", "100.00", "10000.01", "12345678.90", "99999999.99"]
TIMES = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 11, 24, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
]
EVENTS = ['{"a": 1.0,  "a":2}', '"tab\\tand \\u00e9 é € 𝄞 \\\\N"', '{"note": "' + "€" * 5_000 + '"}']


class Rows(NamedTuple):
    outcomes: Sequence[bytes]
    orders: Sequence[bytes]
    items: Sequence[bytes]


def order_id(number: int) -> bytes:
    return UUID(int=number).bytes


def rows_of(count: int, *, user_id: int = 1, product_id: int = 1) -> Rows:
    """Orders with odd values, every third of which is rejected: in the ledger alone."""
    confirmed = [n for n in range(count) if n % 3 != 2]
    return Rows(
        [
            encode_outcome(
                order_id(n),
                "confirmed" if n in confirmed else "rejected",
                bytes([n % 256]) * 32,
                (f"placed für {n % 2}", n % 5, 2**40 + n),
                EVENTS[n % len(EVENTS)].encode(),
                TIMES[n % len(TIMES)],
                None if n in confirmed else bytes([n % 256]) * 16,
                '[["correlation_id","für"]]' if n % 2 else None,
            )
            for n in range(count)
        ],
        [
            encode_order(order_id(n), user_id, cents_of(TOTALS[n % len(TOTALS)]), TIMES[n % len(TIMES)], NOW)
            for n in confirmed
        ],
        [
            encode_items(
                order_id(n), [(product_id, 1 + i, None) for i in range(1 + n % 3)], PRICES[n % 5 :][:3]
            )
            for n in confirmed
        ],
    )


@pytest.fixture
async def session(database_url: str, shop: Shop) -> AsyncIterator[AsyncSession]:
    """On a shop with product 1 and user 1; its transaction has begun."""
    await asyncio.to_thread(shop.stock_up, {1: 10_000})
    engine = create_engine(database_url)
    async with session_factory(engine)() as session:
        await database_time(session)
        yield session
    await engine.dispose()


async def stored(session: AsyncSession) -> list[list[str]]:
    """Each row of the three tables, as PostgreSQL writes it; nothing of it stays."""
    tables = ("order_outcomes", "orders", "order_items")
    found = [
        list(await session.scalars(text(f"SELECT each::text FROM {table} AS each ORDER BY each::text")))
        for table in tables
    ]
    await session.rollback()
    await database_time(session)
    return found


async def test_few_rows_are_stored_as_copy_stores_them(session: AsyncSession):
    rows = rows_of(100)
    await add_outcomes(session, rows.outcomes)
    await add_orders(session, rows.orders, rows.items)
    by_copy = await stored(session)
    await insert_rows(session, *rows)
    assert await stored(session) == by_copy
    assert [len(each) for each in by_copy] == [
        100,
        len(rows.orders),
        sum(1 + n % 3 for n in range(100) if n % 3 != 2),
    ]


@pytest.mark.parametrize("count", [FEW_ORDERS - 1, FEW_ORDERS])
async def test_few_and_many_are_written_whole(session: AsyncSession, count: int):
    rows = rows_of(count)
    await add_decided(session, *rows)
    assert [len(each) for each in await stored(session)][:2] == [count, len(rows.orders)]


async def test_rejections_alone_write_the_ledger_alone(session: AsyncSession):
    await add_decided(session, rows_of(3).outcomes[2:], [], [])
    assert [len(each) for each in await stored(session)] == [1, 0, 0]


@pytest.mark.parametrize("count", [3, FEW_ORDERS])
async def test_an_order_decided_by_another_one_is_a_duplicate_key(session: AsyncSession, count: int):
    await add_decided(session, *rows_of(1))
    with pytest.raises(asyncpg.UniqueViolationError, match="pk_order"):
        await add_decided(session, *rows_of(count))


@pytest.mark.parametrize(
    ("rows", "key"),
    [
        (rows_of(3, user_id=NOBODY), "fk_orders_user_id"),
        (rows_of(3, product_id=NOBODY), "fk_order_items_product_id"),
    ],
)
async def test_few_orders_name_users_and_products_that_are_there(session: AsyncSession, rows: Rows, key: str):
    with pytest.raises(asyncpg.ForeignKeyViolationError, match=key):
        await add_decided(session, *rows)


@pytest.mark.parametrize("count", [3, FEW_ORDERS])
async def test_a_role_that_may_insert_and_nothing_else_is_enough(
    session: AsyncSession, shop: Shop, count: int
):
    role = f"clerk_{uuid4().hex[:8]}"
    await asyncio.to_thread(shop.sql, f"CREATE ROLE {role}")
    try:
        tables = "order_outcomes, orders, order_items"
        await asyncio.to_thread(shop.sql, f"GRANT INSERT ON {tables} TO {role}")
        await session.execute(text(f"SET LOCAL ROLE {role}"))
        await add_decided(session, *rows_of(count))
        await session.execute(text("RESET ROLE"))
        assert len((await stored(session))[0]) == count
    finally:
        await session.rollback()
        await asyncio.to_thread(shop.sql, f"DROP OWNED BY {role}")
        await asyncio.to_thread(shop.sql, f"DROP ROLE {role}")


async def test_a_total_too_large_for_its_column_is_refused_and_not_cut(session: AsyncSession):
    rows = rows_of(1)._replace(orders=[encode_order(order_id(0), 1, 10**14, NOW, NOW)])
    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await add_decided(session, *rows)
