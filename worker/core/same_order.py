"""Whether an order is the one that was decided under its id, and which field differs if it is not. Pure.

Two orders with one id are the same if user, time and lines are equal. The order of the lines does not count.

The ledger's `fingerprint` depends on the order of the lines. It has to stay so: in a rolling deploy, an older
worker must recognise an order that a newer one has decided and not yet published, or it would make a dead
letter of it and the outcome would be lost. So equal fingerprints mean an exact repeat. If they differ:

- A confirmed order's event has the lines. The arrived order's lines are put into that order, and its
  fingerprint is compared again. Lines that differ only in whether they name a price keep their order.
- A rejected order's event has no lines, and a pruned event is gone. Such rows have a second fingerprint, of
  the sorted lines (`sorted_fingerprint`). Rows that an older version wrote, or that were restored without
  their input record, do not have it: for them only exact repeats are duplicates.

A worker of an older version makes a dead letter of an order whose lines come in another order.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from contracts.events import OrderConfirmed, OrderRejected
from contracts.fields import time_text
from contracts.plain_order import PlainItem, PlainOrder
from db.decision import price_of
from db.statuses import Outcome

UNKNOWN_OFFSET: Final = -1
"""the source of an outcome whose input record is gone: no record has this offset"""
_STANDS: Final = "that decision stands"


class Known(Protocol):
    """What the ledger stores about a decided order."""

    @property
    def outcome(self) -> str: ...
    @property
    def fingerprint(self) -> bytes: ...
    @property
    def sorted_fingerprint(self) -> bytes | None: ...
    @property
    def source_topic(self) -> str: ...
    @property
    def source_partition(self) -> int: ...
    @property
    def source_offset(self) -> int: ...
    @property
    def event(self) -> str | None: ...


class Difference(NamedTuple):
    """The first field that differs (`order_id` if that is not known), and a sentence about it."""

    path: str
    message: str


def is_same(order: PlainOrder, fingerprint: bytes, row: Known) -> bool:
    """Whether the order is the one of that row. `fingerprint`: the order's own."""
    if row.fingerprint == fingerprint:
        return True
    if row.sorted_fingerprint is not None:
        return row.sorted_fingerprint == order.sorted_fingerprint()
    event = _event(row)
    if not isinstance(event, OrderConfirmed):
        return False
    arranged = _arranged(order.items, [(item.product_id, item.quantity) for item in event.items])
    return arranged is not None and order._replace(items=arranged).fingerprint() == row.fingerprint


def sorted_fingerprint_of(fingerprint: bytes, event: str) -> bytes | None:
    """The sorted fingerprint of a confirmed order, which recognises it once its event is pruned.

    `fingerprint`: the order's own. None: the event does not determine it, since only some lines named a
    price.
    """
    try:
        confirmed = OrderConfirmed.model_validate_json(event)
    except ValueError:  # no event that a worker publishes
        return None
    for priced in (True, False):
        lines = tuple(
            PlainItem(i.product_id, i.quantity, price_of(i.unit_price) if priced else None)
            for i in confirmed.items
        )
        order = PlainOrder("", confirmed.user_id, confirmed.placed_at, time_text(confirmed.placed_at), lines)
        if order.fingerprint() == fingerprint:
            return order.sorted_fingerprint()
    return None


def difference_from_row(order: PlainOrder, row: Known) -> Difference:
    """Where the order differs from the one in that row, as far as the row shows it."""
    event = _event(row)
    if event is None:
        return Difference("order_id", f"this order id was decided for an order with other content; {_STANDS}")
    found = _heads_differ(order, event.user_id, event.placed_at)
    if found is None and isinstance(event, OrderConfirmed):
        found = _lines_differ(order.items, [(i.product_id, i.quantity) for i in event.items])
        found = found or _prices_differ(order, event)
    if found is None and row.source_offset == UNKNOWN_OFFSET:
        text = "the record of the decided order is gone, so it is unknown whether this is the same order"
        return Difference("order_id", f"{text}; {_STANDS}")
    return found or _differs("items")


def difference(order: PlainOrder, decided: PlainOrder) -> Difference:
    """Where the order differs from the decided one, all of whose fields are known."""
    found = _heads_differ(order, decided.user_id, decided.placed_at)
    found = found or _lines_differ(order.items, [item[:2] for item in decided.items])
    if found is None:
        left = Counter(decided.items)
        for number, item in enumerate(order.items):
            if not left[item]:
                return _differs(f"items.{number}.unit_price")
            left[item] -= 1
    return found or _differs("items")


def _event(row: Known) -> OrderConfirmed | OrderRejected | None:
    """None: not an event that a worker publishes, or a pruned one."""
    if row.event is None:
        return None
    try:
        if row.outcome == Outcome.CONFIRMED:
            return OrderConfirmed.model_validate_json(row.event)
        return OrderRejected.model_validate_json(row.event)
    except ValueError:  # pydantic's own is one, too
        return None


def _arranged(items: Sequence[PlainItem], lines: Sequence[tuple[int, int]]) -> tuple[PlainItem, ...] | None:
    """The items in the order of those lines; None if the items are different.

    Items that differ only in their price keep their relative order.
    """
    if len(items) != len(lines):
        return None
    by_line = defaultdict[tuple[int, int], list[PlainItem]](list)
    for item in reversed(items):
        by_line[item.product_id, item.quantity].append(item)
    arranged = [by_line[line].pop() for line in lines if by_line[line]]
    return tuple(arranged) if len(arranged) == len(items) else None


def _heads_differ(order: PlainOrder, user_id: int, placed_at: datetime) -> Difference | None:
    if order.user_id != user_id:
        return _differs("user_id", order.user_id, user_id)
    if order.placed_at != placed_at:
        return _differs("placed_at", *(time_text(t.astimezone(UTC)) for t in (order.placed_at, placed_at)))
    return None


def _lines_differ(items: Sequence[PlainItem], lines: Sequence[tuple[int, int]]) -> Difference | None:
    """Beside prices."""
    left, products = Counter(lines), {product_id for product_id, _ in lines}
    for number, item in enumerate(items):
        line = item[:2]
        if left[line]:
            left[line] -= 1
        elif item.product_id in products:
            return _differs(f"items.{number}.quantity")
        else:
            return _differs(f"items.{number}.product_id")
    missing = left.total()
    return _differs("items", f"{missing} lines less", f"{len(lines)} lines") if missing else None


def _prices_differ(order: PlainOrder, event: OrderConfirmed) -> Difference | None:
    """A confirmed order's buyer saw the price it was sold for, or none."""
    sold = {item.product_id: f"{item.unit_price:.2f}" for item in event.items}
    for number, (product_id, _, price) in enumerate(order.items):
        if price not in (None, sold[product_id]):
            return _differs(f"items.{number}.unit_price", price, sold[product_id])
    return None


def _differs(path: str, here: object = None, there: object = None) -> Difference:
    values = "" if here is None else f" ({here} here, {there} there)"
    verb = "differ" if path == "items" else "differs"
    return Difference(path, f"{path} {verb} from the decided order's{values}; {_STANDS}")
