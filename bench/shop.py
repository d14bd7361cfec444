"""The benchmark's databases: one template with the catalogue, a copy of it for each drain, and the checks."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from bench.errors import BenchError
from bench.workload import FIRST_PLACED_AT, PRODUCTS, STOCK, USERS, Expected, price_of
from db import migrate
from db.engine import create_engine
from worker.rights import grants
from worker.sandbox.servers.postgres import create_database, drop_database
from worker.sandbox.servers.threads import run_async

T = TypeVar("T")

_CATEGORIES: Final = range(1, 51)
_DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")

_PLAIN_ROLE: Final = "bench_plain"

# A million orders write 1.7 GiB.
LOG_KEPT_BYTES: Final = 2 * 1024**3

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
_LINES: Final = (
    "SELECT count(*) FROM order_items i JOIN orders o ON o.id = i.order_id WHERE o.placed_at >= $1"
)
_NOT_IN_THE_LEDGER: Final = """
SELECT count(*) FROM orders o FULL JOIN order_outcomes l ON l.order_id = o.id
WHERE l.outcome IS DISTINCT FROM 'confirmed' OR o.id IS NULL"""


class Shops:
    """Makes databases on one server, each with the same full catalogue and no orders."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._template = f"bench_template_{uuid4().hex[:8]}"
        self._aged = f"{self._template}_aged"

    def prepare(self, *, log_kept_bytes: int = LOG_KEPT_BYTES) -> str:
        """Make the template; returns the server's version. A server that is not durable is refused.

        `log_kept_bytes`: of write-ahead log that the server keeps to write again.
        """
        version = _run(self._server_url, _require_durable)
        _run(self._server_url, partial(_write_log_files, kept_bytes=log_kept_bytes))
        url = create_database(self._server_url, self._template)
        run_async(lambda: _upgrade(url))
        _run(url, _stock_up)
        _run(url, _let_plain_role_in)
        return version

    def age(self, report: Callable[[str], None]) -> None:
        """Make a second template, with the orders of years in its tables."""
        report(f"filling the tables with {OLD_ROWS:,} rows")
        url = create_database(self._server_url, self._aged, template=self._template)
        _run(url, _sell_for_years)

    @contextmanager
    def fresh(self, after_years: bool = False) -> Iterator[str]:
        """The URL of a database for one drain; it is gone afterwards."""
        name = f"bench_{uuid4().hex[:12]}"
        template = self._aged if after_years else self._template
        url = create_database(self._server_url, name, template=template)
        try:
            if after_years:
                # As on the server that filled them: a copy is only on the disk.
                _run(url, _warm)
            # Each drain begins with an empty write-ahead log behind it, not with its predecessor's.
            _run(self._server_url, lambda connection: connection.execute("CHECKPOINT"))
            yield url
        finally:
            drop_database(self._server_url, name)


def as_plain_role(database_url: str) -> str:
    """The same database for a role that may read and write its tables, and nothing else."""
    parts = urlsplit(database_url)
    return urlunsplit(parts._replace(netloc=f"{_PLAIN_ROLE}@{parts.hostname}:{parts.port}"))


def stock_taken(database_url: str) -> dict[int, int]:
    """Product id → quantity that is no more in stock, of the products of which there is one."""
    return _run(database_url, _stock_taken)


def find_faults(
    database_url: str, expected: Expected, taken_before: Mapping[int, int], *, has_ledger: bool
) -> list[str]:
    """What is wrong in the database after all orders were confirmed; nothing, as a rule."""
    return _run(database_url, lambda connection: _find_faults(connection, expected, taken_before, has_ledger))


async def _stock_taken(connection: Any) -> dict[int, int]:
    return {row[0]: row[1] for row in await connection.fetch(_TAKEN)}


async def _find_faults(
    connection: Any, expected: Expected, taken_before: Mapping[int, int], has_ledger: bool
) -> list[str]:
    ids = await connection.fetch("SELECT id FROM orders WHERE placed_at >= $1", FIRST_PLACED_AT)
    found = {str(row["id"]).encode() for row in ids}
    lines = await connection.fetchval(_LINES, FIRST_PLACED_AT)
    taken = Counter(await _stock_taken(connection))
    taken.subtract(taken_before)
    faults = []
    if found != expected.order_ids:
        faults.append(
            f"{len(expected.order_ids - found)} orders are missing and"
            f" {len(found - expected.order_ids)} were never placed"
        )
    if lines != expected.lines:
        faults.append(f"{lines} items instead of {expected.lines}")
    if +taken != Counter(expected.taken):
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


async def _let_plain_role_in(connection: Any) -> None:
    await connection.execute("; ".join([f"CREATE ROLE {_PLAIN_ROLE} LOGIN", *grants(_PLAIN_ROLE)]))


async def _write_log_files(connection: Any, kept_bytes: int) -> None:
    """As many log files as a server has that has run for a while: it reuses old ones.

    A new server makes each when it is needed, and the writer who needs it fills its 16 MiB with zeros first,
    40 ms, for which all others wait: every 0.7 s at 13,700 orders a second.
    """
    file_bytes = await connection.fetchval(
        "SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'"
    )
    for _ in range(kept_bytes // file_bytes):
        # A file is left only if there is something in it.
        await connection.execute("SELECT pg_logical_emit_message(false, '', ''); SELECT pg_switch_wal()")
    await connection.execute("CHECKPOINT")


_WARM: Final = """
SELECT sum(pg_prewarm(indexrelid::regclass)) FROM pg_index
WHERE indrelid IN ('orders'::regclass, 'order_items'::regclass, 'order_outcomes'::regclass)"""


async def _warm(connection: Any) -> None:
    await connection.execute("CREATE EXTENSION pg_prewarm")
    await connection.execute(_WARM)


# Each order with three items and a row of the ledger: five rows.
OLD_ORDERS: Final = 2_000_000
OLD_ROWS: Final = 5 * OLD_ORDERS
_SELL_FOR_YEARS: Final = f"""
CREATE TEMPORARY TABLE old AS
  SELECT n, gen_random_uuid() AS id, timestamptz '2020-01-01 00:00Z' + n * interval '1 minute' AS at,
         {USERS.start} + n * 7919 % {len(USERS)} AS user_id
  FROM generate_series(1::bigint, {OLD_ORDERS}) n;
CREATE TEMPORARY TABLE old_items AS
  SELECT old.id AS order_id, line, p.id AS product_id, 1 + (n + line) % 5 AS quantity, p.price AS unit_price
  FROM old CROSS JOIN generate_series(1, 3) line
  JOIN products p ON p.id = {PRODUCTS.start} + (n * 31 + line * 1667) % {len(PRODUCTS)};
INSERT INTO orders (id, user_id, status, total_amount, placed_at, created_at)
  SELECT old.id, user_id, 'completed', sum(quantity * unit_price), at, at
  FROM old JOIN old_items i ON i.order_id = old.id GROUP BY old.n, old.id, user_id, at ORDER BY old.n;
INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price) TABLE old_items;
INSERT INTO order_outcomes
  (order_id, outcome, fingerprint, source_topic, source_partition, source_offset, event, decided_at)
  SELECT id, 'confirmed', decode(md5(id::text), 'hex'), 'order-placed-of-old', n % 4, n / 4,
         json_build_object('order_id', id, 'of', repeat('old times ', 30)), at FROM old;
UPDATE products SET received_quantity = received_quantity + sold.quantity
  FROM (SELECT product_id, sum(quantity) AS quantity FROM old_items GROUP BY product_id) sold
  WHERE sold.product_id = products.id;
DROP TABLE old, old_items"""


async def _sell_for_years(connection: Any) -> None:
    await connection.execute(_SELL_FOR_YEARS, timeout=None)
    await connection.execute("VACUUM ANALYZE")


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
