"""A test's own view of its database: filled and read with plain SQL, through asyncpg."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import asyncpg

from tests.support.sessions import Sessions

T = TypeVar("T")


class Shop:
    """A shop's database. Synchronous, so that tests of other processes read top to bottom."""

    def __init__(self, database_url: str, sessions: Sessions | None = None) -> None:
        """`sessions` of this database; without them each statement has one of its own."""
        self.database_url = database_url
        self._sessions = sessions

    def sql(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement."""
        if self._sessions is not None:
            return self._sessions.fetch(statement, *arguments)

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.database_url)
            try:
                return await connection.fetch(statement, *arguments)
            finally:
                await connection.close()

        return run_apart(run())

    def leave(self) -> None:
        """End our sessions there: PostgreSQL copies no database that somebody is in."""
        if self._sessions is not None:
            self._sessions.end()

    def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        return self.sql(statement, *arguments)[0][0]

    def stock_up(self, products: dict[int, int], price: str = "2.50", users: int = 10) -> None:
        """Users 1 to `users`, one category, and these products (id → stock) at one price."""
        self.sql(
            "INSERT INTO users (id, email, full_name)"
            " SELECT i, 'user' || i || '@example.com', 'User ' || i FROM generate_series(1, $1::int) i"
            " ON CONFLICT DO NOTHING",
            users,
        )
        self.sql("INSERT INTO categories (id, name) VALUES (1, 'Gifts') ON CONFLICT DO NOTHING")
        self.sql(
            "INSERT INTO products (id, name, price, stock_quantity, received_quantity, category_id)"
            " SELECT id, 'Product ' || id, $3::text::numeric, stock, stock, 1"
            " FROM unnest($1::bigint[], $2::bigint[]) AS new (id, stock)",
            list(products),
            list(products.values()),
            price,
        )

    def stock(self) -> dict[int, int]:
        return {
            row["id"]: row["stock_quantity"] for row in self.sql("SELECT id, stock_quantity FROM products")
        }

    def assert_conserved(self) -> None:
        """received − sold = stock for every product; confirmed ⇔ order and items exist; totals add up."""
        wrong = self.sql(
            "SELECT p.id, p.received_quantity, p.stock_quantity, sold.quantity FROM products p"
            " LEFT JOIN LATERAL (SELECT coalesce(sum(i.quantity), 0) AS quantity FROM order_items i"
            "   JOIN orders o ON o.id = i.order_id AND o.status <> 'cancelled'"
            "   WHERE i.product_id = p.id) sold ON true"
            " WHERE p.received_quantity - sold.quantity <> p.stock_quantity OR p.stock_quantity < 0"
        )
        assert not wrong, f"stock is not conserved: {wrong[:5]}"
        differing = self.sql(
            "SELECT order_id FROM order_outcomes l FULL JOIN orders o ON o.id = l.order_id"
            " WHERE (l.outcome = 'confirmed') IS DISTINCT FROM (o.id IS NOT NULL)"
        )
        assert not differing, f"ledger and orders disagree on {differing[:5]}"
        itemless = self.sql(
            "SELECT o.id FROM orders o LEFT JOIN order_items i ON i.order_id = o.id"
            " GROUP BY o.id HAVING coalesce(sum(i.quantity * i.unit_price), -1) <> o.total_amount"
        )
        assert not itemless, f"items and total disagree for {itemless[:5]}"


def run_apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that runs in a thread and event loop of its own."""
    # In a thread of its own: asyncio.run() leaves the calling thread without the event loop that
    # pytest-asyncio keeps there.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()
