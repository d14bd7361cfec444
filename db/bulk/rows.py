"""Rows of orders, items and the ledger as PostgreSQL's binary COPY takes them. Pure.

The format is that of PostgreSQL's manual, "COPY, Binary Format": a row is its number of fields, and each
field its length and bytes, everything big-endian.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from struct import Struct, pack
from typing import Final, NamedTuple
from uuid import UUID

from db.decision import Line, Price, cents_of
from db.statuses import OrderStatus

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

_LENGTH: Final = Struct(">i").pack

_TIME: Final = Struct(">iq").pack

_SHORT_AMOUNT: Final = Struct(">ihhhhhh").pack


NULL: Final = _LENGTH(-1)


def field(content: bytes) -> bytes:
    """A field of text, json or bytea."""
    return _LENGTH(len(content)) + content


def time_field(time: datetime) -> bytes:
    """A field of timestamptz. `time` is aware."""
    since = time - EPOCH
    return _TIME(8, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


# A batch is decided at one time. (Equal times of two zones are one instant, and the same field.)
remembered_time_field: Final = lru_cache(16)(time_field)


def money_field(cents: int) -> bytes:
    """A field of numeric, for an amount that is not negative."""
    rest, last = divmod(cents, 100)
    last *= 100  # the digits are of base 10,000: this one is behind the point
    if 0 < rest < 10_000:  # most amounts, in half the time
        return _SHORT_AMOUNT(12, 2, 0, 0, 2, rest, last)
    digits = [last]
    weight = -1
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.insert(0, digit)
        weight += 1
    return pack(f">ihhhh{len(digits)}h", 8 + 2 * len(digits), len(digits), weight, 0, 2, *digits)


@lru_cache(10_000)  # a shop has few prices
def price_field(price: Price) -> bytes:
    """As `money_field`, of a price."""
    return money_field(cents_of(price))


ORDER_COLUMNS: Final = ("id", "user_id", "status", "total_amount", "placed_at", "created_at")

ITEM_COLUMNS: Final = ("order_id", "line_number", "product_id", "quantity", "unit_price")

_ORDER_FIELDS: Final = len(ORDER_COLUMNS)

_ITEM_FIELDS: Final = len(ITEM_COLUMNS)

_PENDING: Final = field(OrderStatus.PENDING.value.encode())

_START_ORDER: Final = Struct(">hi16siq").pack

_START_ITEM: Final = Struct(">hi16siiiqii").pack


def encode_order(
    order_id: bytes, user_id: int, total_cents: int, placed_at: datetime, created_at: datetime
) -> bytes:
    """A confirmed order as `add_orders` takes it. `created_at`: when it was decided."""
    return b"".join(
        (
            _START_ORDER(_ORDER_FIELDS, 16, order_id, 8, user_id),
            _PENDING,
            money_field(total_cents),
            time_field(placed_at),
            remembered_time_field(created_at),
        )
    )


def encode_items(order_id: bytes, lines: Sequence[Line], unit_prices: Sequence[Price]) -> bytes:
    """An order's items as `add_orders` takes them: `unit_prices` are those each line was sold for."""
    rows: list[bytes] = []
    for number, (product_id, quantity, _), price in zip(count(1), lines, unit_prices, strict=False):
        rows.append(_START_ITEM(_ITEM_FIELDS, 16, order_id, 4, number, 8, product_id, 4, quantity))
        rows.append(price_field(price))
    return b"".join(rows)


_ITEM_HEAD_BYTES: Final = 2 + 4 + 16  # the number of fields, the order's id and its length


def count_items(items: bytes) -> int:
    """How many rows `encode_items` made: all of an order's begin alike."""
    return items.count(items[:_ITEM_HEAD_BYTES]) if items else 0


class RowsNotWrittenError(Exception):
    """PostgreSQL has left out rows without an error: roll back."""

    def __init__(self, table: str, rows: int, written: int) -> None:
        super().__init__(f"PostgreSQL wrote {written} of {rows} rows of {table}: look at its triggers")


def require_all(table: str, rows: int, written: int) -> None:
    """Raise RowsNotWrittenError where PostgreSQL has written another number of rows.

    A trigger that returns NULL leaves its row out, and nobody says so. Without its row in the ledger an order
    would be decided again, and without its items its stock would be gone.
    """
    if written != rows:
        raise RowsNotWrittenError(table, rows, written)


class LedgerRow(NamedTuple):
    """One decided order. `event` is the outcome's JSON, byte for byte; `decided_at` is aware UTC.

    `event` is None if it was pruned: the order is decided and published, and cannot be published again.

    `sorted_fingerprint` is of the order with its lines sorted, for rejected and pruned orders, whose lines
    are not stored. None: of any other order, or in a row of a version that did not write it. `passed_on` has,
    as JSON, the headers that each publication carries on.
    """

    order_id: UUID
    outcome: str
    fingerprint: bytes
    source_topic: str
    source_partition: int
    source_offset: int
    event: str | None
    decided_at: datetime
    sorted_fingerprint: bytes | None = None
    passed_on: str | None = None


_FIELDS: Final = len(LedgerRow._fields)

_START: Final = Struct(">hi16s").pack  # the number of fields, the order's id

_PLACE: Final = Struct(">iiiqi").pack  # partition and offset, the length of the event


def encode_outcome(
    order_id: bytes,
    outcome: str,
    fingerprint: bytes,
    source: tuple[str, int, int],
    event: bytes,
    decided_at: datetime,
    sorted_fingerprint: bytes | None = None,
    passed_on: str | None = None,
) -> bytes:
    """A row as `add_outcomes` takes it. `source`: topic, partition and offset."""
    topic, partition, offset = source
    return b"".join(
        (
            _START(_FIELDS, 16, order_id),
            _text_field(outcome),
            field(fingerprint),
            _text_field(topic),
            _PLACE(4, partition, 8, offset, len(event)),
            event,
            remembered_time_field(decided_at),
            NULL if sorted_fingerprint is None else field(sorted_fingerprint),
            NULL if passed_on is None else field(passed_on.encode()),
        )
    )


@lru_cache(16)  # few different ones, and looked up in less than they are made
def _text_field(text: str) -> bytes:
    return field(text.encode())
