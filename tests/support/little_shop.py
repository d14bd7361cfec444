"""A shop with a little of everything, for tests of the catalogue.

Ann has two orders, Bob none. Lamp and Torch are in the category Lamps and were ordered (the Lamp by both
orders, in one of them twice), the Chair never was; the category Empty is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from bench.statements import Statements
from db import catalog
from db.engine import session_factory
from db.errors import ShopError
from db.models import Category, Product, User

Call = Callable[[AsyncSession], Awaitable[Any]]
CallWith = Callable[[AsyncSession, Any], Awaitable[Any]]
Listing = Callable[..., Awaitable[Sequence[Any]]]
Counting = Callable[[], AbstractContextManager[Statements]]
Error = TypeVar("Error", bound=ShopError)

ANN, BOB = 1, 2
LAMPS, CHAIRS, EMPTY = 1, 2, 3
LAMP, TORCH, CHAIR = 1, 2, 3
NOBODY = 999_999

FIRST_ORDER, SECOND_ORDER = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"


async def fill_the_stock(engine: AsyncEngine) -> None:
    """Fill the empty tables; what is received and not in stock was sold."""
    async with engine.begin() as connection:
        for statement in (
            "INSERT INTO users (email, full_name) VALUES"
            " ('ann@example.org', 'Ann'), ('bob@example.org', 'Bob')",
            "INSERT INTO categories (name) VALUES ('Lamps'), ('Chairs'), ('Empty')",
            "INSERT INTO products (name, price, stock_quantity, received_quantity, category_id) VALUES"
            " ('Lamp', 2.50, 10, 14, 1), ('Torch', 4.00, 3, 4, 1), ('Chair', 19.99, 5, 5, 2)",
            "INSERT INTO orders (id, user_id, total_amount, placed_at) VALUES"
            f" ('{FIRST_ORDER}', 1, 7.50, now()), ('{SECOND_ORDER}', 1, 6.50, now())",
            "INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price) VALUES"
            f" ('{FIRST_ORDER}', 1, 1, 2, 2.50), ('{FIRST_ORDER}', 2, 1, 1, 2.50),"
            f" ('{SECOND_ORDER}', 1, 1, 1, 2.50), ('{SECOND_ORDER}', 2, 2, 1, 4.00)",
        ):
            await connection.execute(text(statement))


async def new_user(session: AsyncSession, email: Any = "new@example.org", full_name: Any = "New") -> User:
    return await catalog.create_user(session, email, full_name)


async def new_category(session: AsyncSession, name: Any = "New", **given: Any) -> Category:
    return await catalog.create_category(session, name, **given)


async def new_product(
    session: AsyncSession,
    category_id: Any = LAMPS,
    name: Any = "New",
    price: Any = Decimal("1.00"),
    **given: Any,
) -> Product:
    return await catalog.create_product(session, category_id, name, price, **given)


async def new_product_of_lamps(
    session: AsyncSession, name: Any = "New", price: Any = Decimal("1.00"), **given: Any
) -> Product:
    lamps = await session.get_one(Category, LAMPS)
    return await catalog.create_product_in_category(session, lamps, name, price, **given)


async def fill(session: AsyncSession, rows: int, category_id: int = EMPTY) -> None:
    """Users and products, of which many share a name, a price or a stock; names of either case."""
    await session.execute(
        text(
            "INSERT INTO users (email, full_name)"
            " SELECT 'user' || i || '@example.org', 'User' FROM generate_series(1, :rows) i"
        ),
        {"rows": rows},
    )
    await session.execute(
        text(
            "INSERT INTO products (name, price, stock_quantity, received_quantity, category_id)"
            " SELECT (ARRAY['apple', 'Apple', 'Äpfel', 'Zebra', 'a-b', ''])[i % 6 + 1],"
            " i % 3 + 0.5, i % 5, i % 5, :category_id FROM generate_series(1, :rows) i"
        ),
        {"rows": rows, "category_id": category_id},
    )
    await session.execute(
        text("INSERT INTO categories (name) SELECT 'Category ' || i FROM generate_series(1, :rows) i"),
        {"rows": rows},
    )
    await session.commit()


async def content(session: AsyncSession) -> dict[str, Sequence[Any]]:
    """Every row of the catalogue as PostgreSQL has it, past the objects of the session."""
    return {
        table: (await session.execute(text(f"SELECT * FROM {table} ORDER BY id"))).all()
        for table in ("users", "categories", "products")
    }


async def stock(session: AsyncSession) -> dict[int, tuple[int, int]]:
    """Stock and received quantity of every product."""
    return {
        row.id: (row.stock_quantity, row.received_quantity) for row in (await content(session))["products"]
    }


async def refusal(session: AsyncSession, engine: AsyncEngine, call: Call, error: type[Error]) -> Error:
    """The error of the call, which changed nothing and leaves the transaction usable until its commit."""
    await new_user(session, f"earlier-{uuid4()}")
    before = await content(session)
    with pytest.raises(error) as caught:
        await call(session)
    assert type(caught.value) is error
    assert await content(session) == before
    await new_user(session, f"later-{uuid4()}")
    await session.commit()
    async with session_factory(engine)() as other:
        committed = await content(other)
    *users, later = committed["users"]
    assert later.email.startswith("later-")
    assert {**committed, "users": users} == before
    return caught.value


def with_value(call: CallWith, value: Any) -> Call:
    return lambda session: call(session, value)


async def somebody_waits_for(waited_for: AsyncSession, engine: AsyncEngine) -> None:
    pid = await waited_for.scalar(text("SELECT pg_backend_pid()"))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE :pid = ANY (pg_blocking_pids(pid))")
    async with asyncio.timeout(20), engine.connect() as watcher:
        while not await watcher.scalar(waiting, {"pid": pid}):
            # pg_stat_activity stands still within a transaction.
            await watcher.rollback()
            await asyncio.sleep(0.02)


# What takes a price.
PRICES: dict[str, CallWith] = {
    "create_product": lambda s, v: new_product(s, price=v),
    "create_product_in_category": lambda s, v: new_product_of_lamps(s, price=v),
    "update_product": lambda s, v: catalog.update_product(s, LAMP, price=v),
    "update_product_price": lambda s, v: catalog.update_product_price(s, LAMP, v),
}
