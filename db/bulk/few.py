"""A few orders written in one statement, with their items and the ledger's rows.

A COPY takes two round trips, however few its rows are, and three of them took half of the time of a small
batch. Many rows are cheaper by COPY (`db.bulk.copy`), so rows come as it takes them, and are read again here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from struct import Struct
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk.rows import EPOCH, require_all
from db.engine import raw_connection

# An array for each column, so that the statement is the same whatever the number of rows. Foreign keys are
# checked at its end, when the order of an item is there. What an INSERT counts is written before it begins:
# the ledger first, as by COPY, or two workers that decide the same orders could deadlock.
_WRITE: Final = """
    WITH decided AS (
        INSERT INTO order_outcomes (order_id, outcome, fingerprint, source_topic, source_partition,
                                    source_offset, event, decided_at, sorted_fingerprint, passed_on)
        SELECT order_id, outcome, fingerprint, topic, partition, source_offset, event::json, decided_at,
               sorted_fingerprint, passed_on
        FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::integer[], $6::bigint[],
                    $7::text[], $8::timestamptz[], $9::bytea[], $10::text[])
          AS new (order_id, outcome, fingerprint, topic, partition, source_offset, event, decided_at,
                  sorted_fingerprint, passed_on)
        RETURNING 1
    ), placed AS (
        INSERT INTO orders (id, user_id, status, total_amount, placed_at, created_at)
        SELECT * FROM unnest($11::uuid[], $12::bigint[], $13::text[], $14::numeric[], $15::timestamptz[],
                             $16::timestamptz[])
        WHERE (SELECT count(*) FROM decided) >= 0
        RETURNING 1
    ), listed AS (
        INSERT INTO order_items (order_id, line_number, product_id, quantity, unit_price)
        SELECT * FROM unnest($17::uuid[], $18::integer[], $19::bigint[], $20::integer[], $21::numeric[])
        WHERE (SELECT count(*) FROM placed) >= 0
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM decided), (SELECT count(*) FROM placed), (SELECT count(*) FROM listed)
    """
_TABLES: Final = ("order_outcomes", "orders", "order_items")

_FIELDS: Final = Struct(">h")
_LENGTH: Final = Struct(">i")
_NUMERIC: Final = Struct(">hhhh")
_PLACES: Final = 4  # a digit of numeric is of base 10,000


def _uuid(content: bytes) -> UUID:
    return UUID(bytes=content)


def _integer(content: bytes) -> int:
    return int.from_bytes(content, "big", signed=True)


def _money(content: bytes) -> Decimal:
    count, weight, _, _ = _NUMERIC.unpack_from(content)
    digits = Struct(f">{count}h").unpack_from(content, _NUMERIC.size)
    return sum((Decimal(d).scaleb(_PLACES * (weight - n)) for n, d in enumerate(digits)), Decimal())


def _time(content: bytes) -> datetime:
    return EPOCH + timedelta(microseconds=_integer(content))


_OUTCOME: Final = (
    *(_uuid, bytes.decode, bytes, bytes.decode, _integer, _integer, bytes.decode, _time, bytes, bytes.decode),
)
_ORDER: Final = (_uuid, _integer, bytes.decode, _money, _time, _time)
_ITEM: Final = (_uuid, _integer, _integer, _integer, _money)


async def insert_rows(
    session: AsyncSession, outcomes: Iterable[bytes], orders: Iterable[bytes], items: Iterable[bytes]
) -> None:
    """Write encoded rows, in the session's transaction, which must have begun.

    Each element of `items` is one row or several. Raises asyncpg's errors as they are, and
    RowsNotWrittenError where a trigger has left out some.
    """
    columns = (_columns(outcomes, _OUTCOME), _columns(orders, _ORDER), _columns(items, _ITEM))
    async with raw_connection(session) as connection:
        written = await connection.fetchrow(_WRITE, *chain.from_iterable(columns))
    assert written is not None
    for table, of_table, count in zip(_TABLES, columns, written, strict=True):
        require_all(table, len(of_table[0]), count)


def _columns(encoded: Iterable[bytes], types: Sequence[Callable[[bytes], Any]]) -> Sequence[Sequence[Any]]:
    rows = [
        [None if each is None else of_type(each) for of_type, each in zip(types, row, strict=True)]
        for row in _rows(encoded)
    ]
    return list(zip(*rows, strict=True)) or [()] * len(types)


def _rows(encoded: Iterable[bytes]) -> Iterator[list[bytes | None]]:
    """The fields of each row. None: NULL."""
    for row in encoded:
        at = 0
        while at < len(row):
            (count,) = _FIELDS.unpack_from(row, at)
            at += _FIELDS.size
            fields: list[bytes | None] = []
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(row, at)
                at += _LENGTH.size
                fields.append(None if length < 0 else row[at : at + length])
                at += max(0, length)
            yield fields
