"""What orders ask for and what was decided about them, read from topic and ledger without code of the worker.

The commit times are those of the ledger rows' `xmin`: they need a server with `track_commit_timestamp=on`,
its clock never rewound, and no statement that rewrites `order_outcomes`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support.shop import Shop

CONFIRMED, REJECTED = "confirmed", "rejected"
UNKNOWN_USER, UNKNOWN_PRODUCT = "unknown_user", "unknown_product"
INSUFFICIENT_STOCK, PRICE_CHANGED = "insufficient_stock", "price_changed"


@dataclass(frozen=True)
class Line:
    """One line of an order as the buyer sent it; `price` is what the buyer saw, where that was said."""

    product_id: int
    quantity: int
    price: Decimal | None = None


@dataclass(frozen=True)
class Placed:
    """What an order asks for."""

    user_id: int
    lines: tuple[Line, ...]

    def wanted(self) -> Counter[int]:
        """What all lines together want of each product."""
        wanted: Counter[int] = Counter()
        for line in self.lines:
            wanted[line.product_id] += line.quantity
        return wanted


@dataclass(frozen=True)
class Start:
    """The shop before the first order. Every product in `stock` has a price."""

    stock: Mapping[int, int]
    prices: Mapping[int, Decimal]
    users: frozenset[int]


@dataclass(frozen=True)
class Reason:
    """One reason of a rejection, with everything that the event says about it."""

    code: str
    product_id: int | None = None
    requested: int | None = None
    available: int | None = None
    expected: Decimal | None = None
    current: Decimal | None = None

    def __str__(self) -> str:
        details = [
            f"{name} {value}" for name, value in vars(self).items() if name != "code" and value is not None
        ]
        return " ".join([self.code, *details])


@dataclass(frozen=True)
class Decided:
    """One row of the ledger. Rows of one transaction have the same `commit_order`; a later one has a higher.

    `total`, `lines` (each with the price it was sold at) belong to confirmations, `reasons`, `retryable` to
    rejections.
    """

    order_id: UUID
    outcome: str
    source_partition: int
    source_offset: int
    commit_order: int
    user_id: int
    total: Decimal | None = None
    lines: tuple[Line, ...] = ()
    reasons: tuple[Reason, ...] = ()
    retryable: bool | None = None

    def __str__(self) -> str:
        where = f"partition {self.source_partition}, offset {self.source_offset}, commit {self.commit_order}"
        return f"order {self.order_id} ({where})"


def parse_order(value: bytes) -> Placed:
    """What a sound order-placed value asks for."""
    order = json.loads(value)
    return Placed(order["user_id"], _lines(order["items"]))


def parse_decided(
    outcome: str, event: str, source_partition: int, source_offset: int, commit_order: int
) -> Decided:
    """A ledger row: its event's JSON holds the reasons or the total."""
    fields = json.loads(event)
    confirmed = outcome == CONFIRMED
    return Decided(
        order_id=UUID(fields["order_id"]),
        outcome=outcome,
        source_partition=source_partition,
        source_offset=source_offset,
        commit_order=commit_order,
        user_id=fields["user_id"],
        total=Decimal(fields["total_amount"]) if confirmed else None,
        lines=_lines(fields["items"]) if confirmed else (),
        reasons=() if confirmed else tuple(_reason(reason) for reason in fields["reasons"]),
        retryable=None if confirmed else fields["retryable"],
    )


# A transaction's rows share one xmin. An xid has no order of its own, a number has. The subquery gives the
# time a name, so that one sort serves both the numbers and the order of the rows.
DECIDED = """
    SELECT order_id, outcome, event, source_partition, source_offset, committed_at,
           dense_rank() OVER (ORDER BY committed_at, xid) AS commit_order
    FROM (SELECT order_id, outcome, event::text, source_partition, source_offset,
                 pg_xact_commit_timestamp(xmin) AS committed_at, xmin::text::bigint AS xid
          FROM order_outcomes) AS decided
    ORDER BY committed_at, xid
"""


def read_decided(shop: Shop) -> list[Decided]:
    """Every row of the ledger; raises when the server does not know when one of them was committed."""
    rows = shop.sql(DECIDED)
    assert all(row["committed_at"] for row in rows), "the server forgot, or never kept, a commit's time"
    names = ("outcome", "event", "source_partition", "source_offset", "commit_order")
    return [parse_decided(*(row[name] for name in names)) for row in rows]


def _lines(items: Sequence[Mapping[str, Any]]) -> tuple[Line, ...]:
    return tuple(Line(i["product_id"], i["quantity"], _money(i.get("unit_price"))) for i in items)


def _reason(fields: Mapping[str, Any]) -> Reason:
    return Reason(
        fields["code"],
        fields.get("product_id"),
        fields.get("requested"),
        fields.get("available"),
        _money(fields.get("expected_unit_price")),
        _money(fields.get("current_unit_price")),
    )


def _money(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
