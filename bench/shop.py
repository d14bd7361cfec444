"""The benchmark's databases: one template with the catalogue, a copy of it for each drain, and the checks."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from uuid import uuid4

import asyncpg

from bench.errors import BenchError
from bench.workload import PRODUCTS, STOCK, USERS, Expected, price_of
from db import migrate
from db.engine import create_engine
from worker.local.postgres import create_database, drop_database
from worker.local.threads import run_async

T = TypeVar("T")

_CATEGORIES: Final = range(1, 51)
_DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")

_NOT_CONSERVED: Final = """
SELECT count(*) FROM products p
LEFT JOIN (SELECT product_id, sum(quantity) AS quantity FROM order_items GROUP BY product_id) sold
  ON sold.product_id = p.id
WHERE p.received_quantity - coalesce(sold.quantity, 0) <> p.stock_quantity OR p.stock_quantity < 0"""
WRONG_TOTALS: Final = """
SELECT count(*) FROM orders o
LEFT JOIN (SELECT order_id, sum(quantity * unit_price) AS amount FROM order_items GROUP BY order_id) items
  ON items.order_id = o.id
WHERE items.amount IS DISTINCT FROM o.total_amount"""
_TAKEN: Final = (
    "SELECT id, received_quantity - stock_quantity FROM products WHERE received_quantity <> stock_quantity"
)
_NOT_IN_THE_LEDGER: Final = """
SELECT count(*) FROM orders o FULL JOIN order_outcomes l ON l.order_id = o.id
WHERE l.outcome IS DISTINCT FROM 'confirmed' OR o.id IS NULL"""


class Shops:
    """Makes databases on one server, each with the same full catalogue and no orders."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._template = f"bench_template_{uuid4().hex[:8]}"

    def prepare(self) -> str:
        """Make the template; returns the server's version. A server that is not durable is refused."""
        version = _run(self._server_url, _require_durable)
        url = create_database(self._server_url, self._template)
        run_async(lambda: _upgrade(url))
        _run(url, _stock_up)
        return version

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """The URL of a database for one drain; it is gone afterwards."""
        name = f"bench_{uuid4().hex[:12]}"
        url = create_database(self._server_url, name, template=self._template)
        try:
            # Each drain begins with an empty write-ahead log behind it, not with its predecessor's.
            _run(self._server_url, lambda connection: connection.execute("CHECKPOINT"))
            yield url
        finally:
            drop_database(self._server_url, name)


def find_faults(database_url: str, expected: Expected, *, has_ledger: bool) -> list[str]:
    """What is wrong in the database after all orders were confirmed; nothing, as a rule."""
    return _run(database_url, lambda connection: _find_faults(connection, expected, has_ledger))


async def _find_faults(connection: Any, expected: Expected, has_ledger: bool) -> list[str]:
    ids = await connection.fetch("SELECT id FROM orders")
    found = {str(row["id"]).encode() for row in ids}
    lines = await connection.fetchval("SELECT count(*) FROM order_items")
    taken = {row[0]: row[1] for row in await connection.fetch(_TAKEN)}
    faults = []
    if found != expected.order_ids:
        faults.append(
            f"{len(expected.order_ids - found)} orders are missing and"
            f" {len(found - expected.order_ids)} were never placed"
        )
    if lines != expected.lines:
        faults.append(f"{lines} items instead of {expected.lines}")
    if taken != expected.taken:
        faults.append("the stock taken is not what was ordered")
    for name, query in (("products whose stock is not conserved", _NOT_CONSERVED), ("totals", WRONG_TOTALS)):
        if wrong := await connection.fetchval(query):
            faults.append(f"{wrong} wrong {name}")
    if has_ledger and (differing := await connection.fetchval(_NOT_IN_THE_LEDGER)):
        faults.append(f"ledger and orders differ in {differing} rows")
    return faults


async def _require_durable(connection: Any) -> str:
    for setting in _DURABLE:
        value = await connection.fetchval(f"SHOW {setting}")
        if value != "on":
            raise BenchError(f"PostgreSQL runs with {setting} = {value}: such numbers mean nothing")
    return str(await connection.fetchval("SHOW server_version"))


async def _upgrade(url: str) -> None:
    engine = create_engine(url)
    await migrate.upgrade(engine, "public")
    await engine.dispose()


async def _stock_up(connection: Any) -> None:
    await connection.copy_records_to_table(
        "users",
        columns=("id", "email", "full_name"),
        records=[(i, f"user{i}@example.com", f"User {i}") for i in USERS],
    )
    await connection.copy_records_to_table(
        "categories", columns=("id", "name"), records=[(i, f"Category {i}") for i in _CATEGORIES]
    )
    await connection.copy_records_to_table(
        "products",
        columns=("id", "name", "price", "stock_quantity", "received_quantity", "category_id"),
        records=[
            (i, f"Product {i}", price_of(i), STOCK, STOCK, _CATEGORIES[i % len(_CATEGORIES)])
            for i in PRODUCTS
        ],
    )
    # Not the empty tables: foreign-key checks planned on "0 rows" stay sequential scans once they are cached.
    await connection.execute("ANALYZE users, categories, products")


def _run(url: str, action: Callable[[Any], Awaitable[T]]) -> T:
    async def connected() -> T:
        connection: Any = await asyncpg.connect(url)
        try:
            return await action(connection)
        finally:
            await connection.close()

    return run_async(connected)
