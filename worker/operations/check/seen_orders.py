"""Which order ids a file has named so far: on disk, so that a file of any length takes the same memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple
from uuid import UUID

from worker.operations.temporary_files import temporary_files


class Earlier(NamedTuple):
    """The first line that named an order id, and the fingerprint of its order with its lines sorted."""

    line: int
    fingerprint: bytes


class SeenOrders:
    """Orders by id; of each id the first one counts."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def first(self, order_id: UUID, fingerprint: bytes, line: int) -> Earlier | None:
        """The order that had this id before, or None: then it is this one."""
        row = (order_id.bytes, line, fingerprint)
        if self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", row).rowcount:
            return None
        found = self._database.execute("SELECT line, fingerprint FROM seen WHERE id = ?", row[:1])
        return Earlier(*found.fetchone())


@contextmanager
def seen_orders() -> Iterator[SeenOrders]:
    """Empty; gone at the end of the block."""
    # The empty name: a temporary file that SQLite removes. Past this cache of 16 MiB it is written there.
    with temporary_files(), closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA cache_size = -16384")
        database.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, line INT, fingerprint BLOB) WITHOUT ROWID")
        database.execute("BEGIN")
        yield SeenOrders(database)
