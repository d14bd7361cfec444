"""An order as tuples: in a quarter of a model's memory, and read in half of its time."""

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

from pydantic_core import CoreSchema, SchemaValidator
from pydantic_core import core_schema as schema

from contracts.fields import (
    MAX_ID,
    MAX_ITEMS,
    MAX_QUANTITY,
    MAX_TOTAL_CENTS,
    PLAIN_PRICE_PATTERN,
    time_text,
)


class PlainItem(NamedTuple):
    """An `OrderedItem` as a tuple. `unit_price` is as events write it: equal prices are equal texts."""

    product_id: int
    quantity: int
    unit_price: str | None


class PlainOrder(NamedTuple):
    """An `OrderPlaced` as tuples, in a quarter of its memory.

    `key` is the order id as text, which is also the key of its records. `placed_at_text` is `placed_at` as
    events write it.
    """

    key: str
    user_id: int
    placed_at: datetime
    placed_at_text: str
    items: tuple[PlainItem, ...]

    @property
    def order_id(self) -> UUID:
        return UUID(self.key)

    def fingerprint(self) -> bytes:
        """The same 16 bytes for the same order, however its JSON was written.

        Covers every field but the id: spacing, field order, unknown fields, `2.5` for `2.50`
        and another offset for the same instant make no difference; anything else does.
        """
        _, user_id, placed_at, time, items = self
        lines = ";".join(
            [
                f"{product_id}*{quantity}" if price is None else f"{product_id}*{quantity}@{price}"
                for product_id, quantity, price in items
            ]
        )
        if not time.endswith("Z"):
            time = time_text(placed_at.astimezone(UTC))
        return blake2b(f"{user_id}|{time[:-1]}+00:00|{lines}".encode(), digest_size=16).digest()

    def sorted_fingerprint(self) -> bytes:
        """As `fingerprint`, and the same in whichever order the lines come."""
        lines = sorted(self.items, key=lambda item: (item.product_id, item.quantity, item.unit_price or ""))
        return self._replace(items=tuple(lines)).fingerprint()


def _as_dict(fields: dict[str, CoreSchema], optional: str = "") -> CoreSchema:
    return schema.typed_dict_schema(
        {name: schema.typed_dict_field(of, required=name != optional) for name, of in fields.items()}
    )


def _usual(form: str) -> CoreSchema:
    return schema.str_schema(strict=True, pattern=form)


def _whole_number(most: int) -> CoreSchema:
    return schema.int_schema(strict=True, ge=1, le=most)


# What `OrderPlaced` reads, if its texts have the forms that most services write: as dicts and texts, without
# the objects that models make of them.
_USUAL_ORDER: Final = SchemaValidator(
    _as_dict(
        {
            "order_id": _usual(r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"),
            "user_id": _whole_number(MAX_ID),
            "placed_at": _usual(
                r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{3}|\.[0-9]{6})?"
                r"(Z|[+-][0-9]{2}:[0-5][0-9])$"  # Python takes +00:75 for +01:15
            ),
            "items": schema.list_schema(
                _as_dict(
                    {
                        "product_id": _whole_number(MAX_ID),
                        "quantity": _whole_number(MAX_QUANTITY),
                        "unit_price": schema.nullable_schema(_usual(PLAIN_PRICE_PATTERN)),
                    },
                    optional="unit_price",
                ),
                min_length=1,
                max_length=MAX_ITEMS,
            ),
        }
    )
)
_USUAL_FROM, _USUAL_TO = "1970", "9999"
_CHEAP_QUANTITY: Final = 10_000  # of so many, at the highest price there is, the total is within its bound
_new: Final = tuple.__new__  # of a NamedTuple: half the time of a call of its class


def read_usual_order(json: bytes) -> tuple[PlainOrder, int] | None:
    """The order, and how many quotes its JSON has if each of its fields is there once and nothing else is.

    A property test holds it against `OrderPlaced`, which takes twice as long. None does not mean that it is
    no order: the model says whether, and why.
    """
    try:
        read = _USUAL_ORDER.validate_json(json)
        time = read["placed_at"]
        placed_at = datetime.fromisoformat(time)
    except ValueError:  # pydantic's own is one, too
        return None
    if not _USUAL_FROM <= time < _USUAL_TO:
        return None
    # Each name and text has two quotes, and no valid text holds an escaped one: here 4 names and 2 texts.
    quotes = 12
    quantities = 0
    items = []
    for item in read["items"]:
        price, quantity = item.get("unit_price"), item["quantity"]
        quantities += quantity
        quotes += 2 * len(item)
        if price is not None:
            quotes += 2
        items.append(_new(PlainItem, (item["product_id"], quantity, price)))
    if quantities > _CHEAP_QUANTITY and _priced_cents(items) > MAX_TOTAL_CENTS:
        return None
    text = _time_text(time, placed_at)
    return _new(PlainOrder, (read["order_id"], read["user_id"], placed_at, text, tuple(items))), quotes


def _priced_cents(items: Iterable[PlainItem]) -> int:
    return sum(int(price.replace(".", "")) * quantity for _, quantity, price in items if price is not None)


def _time_text(usual: str, time: datetime) -> str:
    """`time_text(time)`, in 0.1 instead of 0.9 µs where that is nearly what was read."""
    fraction = usual[19:]
    if fraction == "Z" or (fraction[-1] == "Z" and fraction not in (".000Z", ".000000Z")):
        return f"{usual[:-1]}000Z" if len(fraction) == 5 else usual
    return time_text(time)
