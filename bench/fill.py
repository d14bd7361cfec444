"""A shop of any size, made from a seed and written by COPY: the same rows in every run.

Orders come in portions, each made from its own seed, so that it does not matter who writes which portion.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import Executable, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.schema import DropSchema

from bench.errors import WrongResultError
from bench.screen import Screen, bar
from bench.shop import WRONG_TOTALS
from bench.workload import MAX_ITEMS, SEED, price_of
from db import migrate, reports
from db.engine import create_engine, raw_connection, session_factory
from db.models import Base, Category, Order, OrderItem, Product, User
from db.statuses import OrderStatus

CATEGORIES: Final = range(1, 101)
YEAR: Final = timedelta(days=365)
FIRST: Final = datetime(2025, 1, 1, tzinfo=UTC)
LAST: Final = FIRST + YEAR
BATCH: Final = 2_000  # so many orders share a created_at at most, as in the worker's largest batch
PORTION: Final = 10_000  # orders of one transaction
WRITERS: Final = 2  # as many connections: one is encoded for while the other's foreign keys are checked
CANCELLED: Final = 0.03
COMPLETED: Final = 0.60
# The n-th of N customers places (n/N)^SKEW − ((n−1)/N)^SKEW of all orders. 0.566 gives the first of 200,000
# one order in a thousand, and half of them up to four of a million.
SKEW: Final = 0.566
_STEP: Final = 123_457  # prime: scatters the big customers over all ids

_Row = tuple[Any, ...]
_COLUMNS: Final[dict[type[Base], Sequence[str]]] = {
    User: ("id", "email", "full_name"),
    Category: ("id", "name"),
    Product: ("id", "name", "price", "stock_quantity", "received_quantity", "category_id"),
    Order: ("id", "user_id", "status", "total_amount", "placed_at", "created_at"),
    OrderItem: ("order_id", "line_number", "product_id", "quantity", "unit_price"),
}
_RECEIVE: Final = """
UPDATE products SET received_quantity = received_quantity + sold.quantity
FROM unnest($1::bigint[], $2::bigint[]) AS sold (product_id, quantity) WHERE id = sold.product_id"""


@dataclass(frozen=True)
class Size:
    """How many rows of each."""

    orders: int
    users: int
    products: int

    @property
    def portions(self) -> range:
        return range(-(-self.orders // PORTION))

    @cached_property
    def prices(self) -> Sequence[Decimal]:
        """By product id, from 1; a price belongs to several products once there are 10,000."""
        return [price_of(i) for i in range(self.products + 1)]


@dataclass(slots=True)
class Written:
    """What was written, to be compared with what the tables hold."""

    orders: int = 0
    items: int = 0
    cancelled: int = 0
    sold: Counter[int] = field(default_factory=Counter)  # product id → quantity in orders not cancelled

    def add(self, portion: "Portion") -> None:
        self.orders += len(portion.orders)
        self.items += len(portion.items)
        self.cancelled += portion.cancelled
        self.sold.update(portion.sold)


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of `orders` and `order_items` for one transaction."""

    orders: list[_Row] = field(default_factory=list)
    items: list[_Row] = field(default_factory=list)
    sold: Counter[int] = field(default_factory=Counter)

    @property
    def cancelled(self) -> int:
        return sum(order[2] == OrderStatus.CANCELLED for order in self.orders)


def portion(size: Size, number: int) -> Portion:
    """The rows of one portion, the same whenever they are asked for."""
    rng = random.Random(f"{SEED} {number}")
    made = Portion()
    first = number * PORTION
    for batch in batches(rng, first, min(first + PORTION, size.orders)):
        created_at = FIRST + YEAR * (batch.start / size.orders)
        for _ in batch:
            _add_order(made, rng, size, created_at)
    return made


def batches(rng: random.Random, first: int, end: int) -> Iterator[range]:
    """Runs of 1 to BATCH orders from `first` up to `end`: each was decided at one time."""
    while first < end:
        batch = range(first, min(end, first + rng.randint(1, BATCH)))
        yield batch
        first = batch.stop


def customer(size: Size, chance: float) -> int:
    """The user who orders, from a number of 0 to 1: few of them very often."""
    rank = int(size.users * chance ** (1 / SKEW))
    return rank * _STEP % size.users + 1


@asynccontextmanager
async def filled_shop(database_url: str, size: Size, screen: Screen) -> AsyncIterator[AsyncEngine]:
    """An engine on a new schema that holds the shop, checked; it is dropped at the end, whatever the end."""
    schema = f"bench_listings_{uuid4().hex[:8]}"
    engine = create_engine(database_url, schema=schema, application_name="bench-listings")
    try:
        await migrate.upgrade(engine, schema)
        began = time.monotonic()
        with bar("writing orders", size.orders) as advance:
            written = await fill(engine, size, advance)
        seconds = time.monotonic() - began
        if faults := await find_faults(engine, size, written):
            raise WrongResultError("; ".join(faults))
        screen.say(
            f"{written.orders:,} orders with {written.items:,} items written in {seconds:,.0f} s"
            f" ({written.orders / seconds:,.0f} orders/s), result right"
        )
        yield engine
    finally:
        await _execute_alone(engine, DropSchema(schema, cascade=True, if_exists=True))
        await engine.dispose()


async def fill(engine: AsyncEngine, size: Size, advance: Callable[[int], None]) -> Written:
    """Write the shop into the empty tables and leave them as vacuum would; `advance` gets orders written."""
    sessions = session_factory(engine)
    await _write_catalogue(sessions, size)
    written = Written()
    numbers = iter(size.portions)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(_write_portions(sessions, size, numbers, written, advance))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await _receive(sessions, written)
    # Never without names: a database that was given has tables of others.
    await _execute_alone(engine, text(f"VACUUM (ANALYZE) {', '.join(t.__tablename__ for t in _COLUMNS)}"))
    # Not every role may. Without a checkpoint the server writes to the disk while listings are timed.
    with suppress(DBAPIError):
        await _execute_alone(engine, text("CHECKPOINT"))
    return written


async def find_faults(engine: AsyncEngine, size: Size, written: Written) -> list[str]:
    """What the tables hold and should not; nothing, as a rule."""
    expected = {
        "users": size.users,
        "categories": len(CATEGORIES),
        "products": size.products,
        "orders": size.orders,
        "order_items": written.items,
        "orders WHERE status = 'cancelled'": written.cancelled,
    }
    faults = []
    async with session_factory(engine)() as session:
        for rows, count in expected.items():
            found = await session.scalar(text(f"SELECT count(*) FROM {rows}"))
            if found != count:
                faults.append(f"{found:,} {rows} instead of {count:,}")
        if wrong := await session.scalar(text(WRONG_TOTALS)):
            faults.append(f"{wrong:,} wrong totals")
        if discrepancies := await reports.stock_discrepancies(session):
            faults.append(f"stock that does not add up: {len(discrepancies):,} products")
    return faults


def _add_order(made: Portion, rng: random.Random, size: Size, created_at: datetime) -> None:
    chance = rng.random
    order_id = UUID(int=rng.getrandbits(128), version=4)
    status = _status(chance())
    total = Decimal(0)
    chosen = rng.sample(range(1, size.products + 1), 1 + int(MAX_ITEMS * chance()))
    for line_number, product_id in enumerate(chosen, 1):
        quantity, price = 1 + int(5 * chance()), size.prices[product_id]
        total += quantity * price
        made.items.append((order_id, line_number, product_id, quantity, price))
        if status is not OrderStatus.CANCELLED:
            made.sold[product_id] += quantity
    placed_at = created_at - timedelta(seconds=5 * chance())
    made.orders.append((order_id, customer(size, chance()), status, total, placed_at, created_at))


def _status(chance: float) -> OrderStatus:
    if chance < CANCELLED:
        return OrderStatus.CANCELLED
    return OrderStatus.COMPLETED if chance < CANCELLED + COMPLETED else OrderStatus.PENDING


async def _write_catalogue(sessions: async_sessionmaker[AsyncSession], size: Size) -> None:
    ids = range(1, size.products + 1)
    rows: dict[type[Base], list[_Row]] = {
        User: [(i, f"user{i}@example.com", f"User {i}") for i in range(1, size.users + 1)],
        Category: [(i, f"Category {i}") for i in CATEGORIES],
        Product: [
            (i, f"Product {i}", size.prices[i], i * 37 % 500, i * 37 % 500, CATEGORIES[i % len(CATEGORIES)])
            for i in ids
        ],
    }
    async with sessions.begin() as session:
        await _copy(session, rows)
        # Not the empty tables: foreign-key checks planned on "0 rows" stay sequential scans once cached.
        await session.execute(text("ANALYZE users, categories, products"))


async def _write_portions(
    sessions: async_sessionmaker[AsyncSession],
    size: Size,
    numbers: Iterator[int],
    written: Written,
    advance: Callable[[int], None],
) -> None:
    for number in numbers:
        made = portion(size, number)
        async with sessions.begin() as session:
            await _copy(session, {Order: made.orders, OrderItem: made.items})
        written.add(made)
        advance(len(made.orders))


async def _copy(session: AsyncSession, rows: dict[type[Base], list[_Row]]) -> None:
    await session.execute(text("SELECT 1"))  # begins the transaction that COPY is to be part of
    async with raw_connection(session) as connection:
        for model, records in rows.items():
            columns = _COLUMNS[model]
            await connection.copy_records_to_table(model.__tablename__, columns=columns, records=records)


async def _receive(sessions: async_sessionmaker[AsyncSession], written: Written) -> None:
    """What was sold has been received as well, which is known only now."""
    async with sessions.begin() as session:
        await session.execute(text("SELECT 1"))
        async with raw_connection(session) as connection:
            await connection.execute(_RECEIVE, list(written.sold), list(written.sold.values()))


async def _execute_alone(engine: AsyncEngine, statement: Executable) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(statement)
