"""The limit: how fast PostgreSQL writes exactly the rows that the worker writes, with nothing else to do.

The rows are those that a worker wrote, read back in binary and written again by COPY, batch by batch, into
the same tables with all their keys, from one, two or four connections, each with its own transactions. Once
without foreign key lookups, as the worker does, and once with them, for roles that may not leave them out.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import asyncpg

from bench.drain import Scene
from bench.shop import Shops
from worker.sandbox.servers.threads import run_async

BATCH_ORDERS: Final = 8_000  # as many as the worker writes in one transaction
CONNECTIONS: Final = (1, 2, 4)
_NO_LOOKUPS: Final = {"session_replication_role": "replica"}  # as `db.bulk.references`
_TABLES: Final = {"order_outcomes": "order_id", "orders": "id", "order_items": "order_id"}


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of some orders, a table's after the other, as binary COPY reads them."""

    orders: int
    rows: Sequence[tuple[str, bytes]]


class Limit:
    """Keeps the rows that one worker wrote, and writes them as fast as possible."""

    def __init__(self, shops: Shops) -> None:
        self._shops = shops
        self.batches: list[Batch] = []

    def remember(self, scene: Scene) -> None:
        """Read back what is in the tables; once is enough, for all workers write the same."""
        if not self.batches:
            self.batches = run_async(lambda: _read(scene.database_url))

    def orders_per_second(self, connections: int, *, lookups: bool) -> float:
        with self._shops.fresh() as url:
            settings = {} if lookups else _NO_LOOKUPS
            seconds = run_async(lambda: _write(url, self.batches, connections, settings))
        return sum(batch.orders for batch in self.batches) / seconds


async def _read(url: str) -> list[Batch]:
    connection: Any = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT order_id FROM order_outcomes ORDER BY decided_at, order_id")
        ids = [row[0] for row in found]
        return [
            await _read_batch(connection, ids[start : start + BATCH_ORDERS])
            for start in range(0, len(ids), BATCH_ORDERS)
        ]
    finally:
        await connection.close()


async def _read_batch(connection: Any, ids: Sequence[Any]) -> Batch:
    rows = []
    for table, key in _TABLES.items():
        found = BytesIO()
        query = f"SELECT * FROM {table} WHERE {key} = ANY($1)"
        await connection.copy_from_query(query, ids, output=found, format="binary")
        rows.append((table, found.getvalue()))
    return Batch(len(ids), rows)


async def _write(url: str, batches: Sequence[Batch], connections: int, settings: dict[str, str]) -> float:
    waiting = list(reversed(batches))
    opened: list[Any] = [await asyncpg.connect(url, server_settings=settings) for _ in range(connections)]
    try:
        began = time.monotonic()
        await asyncio.gather(*(_write_from(connection, waiting) for connection in opened))
        return time.monotonic() - began
    finally:
        for connection in opened:
            await connection.close()


async def _write_from(connection: Any, waiting: list[Batch]) -> None:
    while waiting:
        batch = waiting.pop()
        async with connection.transaction():
            for table, rows in batch.rows:
                await connection.copy_to_table(table, source=BytesIO(rows), format="binary")
