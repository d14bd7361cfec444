"""The three events: order-placed in, order-confirmed and order-rejected out.

A value that validates here is safe to decide on: every number is bounded, money
is an exact decimal with two places, every time carries its offset. Models are
frozen and strict: `true`, `"7"` and `7.5` are not integers; `7.0` in JSON is one,
as JSON Schema has it. Unknown fields are ignored, so that a publisher can add one
without asking anybody.

The models, the published JSON Schemas and the worker accept the same values. What a
schema cannot say is in `BEYOND_SCHEMA`, by name. What pydantic does not see, the worker
alone refuses: a repeated field, and NaN or Infinity in an unknown one.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from contracts.fields import (
    MAX_ITEMS,
    MAX_TOTAL_CENTS,
    EventTime,
    Id,
    OrderId,
    Price,
    Quantity,
    Time,
    Total,
    over_total_text,
    time_text,
)
from contracts.plain_order import PlainItem, PlainOrder

# What the schema of an order cannot say: the worker refuses these values, and a validator accepts them.
BEYOND_SCHEMA: Final = {
    "total": "quantity times unit_price of all items comes to at most 999999999999.99; where no unit_price is"
    " given, the catalogue's price counts when the order is decided",
    "size": "the value has at most 262144 bytes, or what the worker is set to",
    "one JSON document": "UTF-8 without a byte order mark, nothing behind it, no NaN and no Infinity",
    "repeated members": "every field is given once, also with equal values; unknown fields may be repeated",
    "surrogates": "no text, also in an unknown field, holds half of a surrogate pair",
    "nesting": "a value, also in an unknown field, lies inside at most 200 arrays and objects",
    "long numbers": "a number, also in an unknown field, has at most 4300 digits before its point or"
    " exponent",
    "numbers with a point": "7.0 and 7e0 are integers up to 9007199254740991; above that write digits only,"
    " because readers disagree which integer it is",
}


class Event(BaseModel):
    """Frozen and strict; fields that it does not name are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class OrderedItem(Event):
    """One line of an order: several lines may name one product."""

    product_id: Id
    quantity: Quantity
    unit_price: Price | None = None  # the price the buyer saw; None: whatever it costs now


def _within_total(items: tuple[OrderedItem, ...]) -> tuple[OrderedItem, ...]:
    total_cents = sum(int(i.unit_price.scaleb(2)) * i.quantity for i in items if i.unit_price is not None)
    if total_cents > MAX_TOTAL_CENTS:
        raise ValueError(over_total_text(total_cents))
    return items


class OrderPlaced(Event):
    """A buyer's order, as the upstream service publishes it."""

    model_config = ConfigDict(
        json_schema_extra={
            "$comment": "What a schema cannot say. "
            + " ".join(f"{name}: {rule}." for name, rule in BEYOND_SCHEMA.items())
        }
    )

    order_id: OrderId
    user_id: Id
    placed_at: Time
    items: Annotated[
        tuple[OrderedItem, ...], Field(min_length=1, max_length=MAX_ITEMS), AfterValidator(_within_total)
    ]

    def plain(self) -> PlainOrder:
        """The same order in less memory."""
        items = [
            PlainItem(i.product_id, i.quantity, None if i.unit_price is None else f"{i.unit_price:.2f}")
            for i in self.items
        ]
        time = time_text(self.placed_at)
        return PlainOrder(str(self.order_id), self.user_id, self.placed_at, time, tuple(items))

    def fingerprint(self) -> bytes:
        """As `PlainOrder.fingerprint`."""
        return self.plain().fingerprint()


class ConfirmedItem(Event):
    """One line as it was sold: `unit_price` is the price at the decision."""

    product_id: Id
    quantity: Quantity
    unit_price: Price


class OrderConfirmed(Event):
    """Stock is taken, order and items are stored: final."""

    order_id: OrderId
    user_id: Id
    total_amount: Total
    items: Annotated[tuple[ConfirmedItem, ...], Field(min_length=1, max_length=MAX_ITEMS)]
    placed_at: EventTime
    decided_at: EventTime


class ReasonCode(StrEnum):
    """Why an order was rejected. All that apply are listed, not the first."""

    UNKNOWN_USER = "unknown_user"  # no such user
    UNKNOWN_PRODUCT = "unknown_product"  # no such product
    INSUFFICIENT_STOCK = "insufficient_stock"  # the lines of this product together want more than there is
    PRICE_CHANGED = "price_changed"  # the buyer saw another price than the one in force


_CODE: Final = r"^[a-z][a-z0-9_]{0,63}$"
# A later version may add a code, so that subscribers take any that has this form: the list is open.
AnyReasonCode = Annotated[
    ReasonCode | Annotated[str, Field(pattern=_CODE)],
    Field(union_mode="left_to_right"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": _CODE,
            "examples": [code.value for code in ReasonCode],
            "description": "An open list: a later version may add a code. One that you do not know is a"
            " reason like any other, and `retryable` counts for it as well.",
        }
    ),
]


# The fields of each code. A code that a later version adds is not in here, and may have any of them.
_WITH_CODE: Final = {
    ReasonCode.UNKNOWN_PRODUCT: ("product_id",),
    ReasonCode.INSUFFICIENT_STOCK: ("product_id", "requested", "available"),
    ReasonCode.PRICE_CHANGED: ("product_id", "expected_unit_price", "current_unit_price"),
}


def _require_fields(code: ReasonCode, names: tuple[str, ...]) -> dict[str, Any]:
    """A rule of JSON Schema: with this code these fields are there, and none of them is null."""
    return {
        "if": {"properties": {"code": {"const": code.value}}, "required": ["code"]},
        "then": {"properties": {name: {"not": {"type": "null"}} for name in names}, "required": list(names)},
    }


class Reason(Event):
    """One failing product (or the user), with what was asked for and what was there.

    `requested` and `available` come with insufficient_stock, the two prices with price_changed.
    """

    model_config = ConfigDict(
        json_schema_extra={"allOf": [_require_fields(code, names) for code, names in _WITH_CODE.items()]}
    )

    code: AnyReasonCode
    product_id: int | None = None
    requested: int | None = None
    available: int | None = None
    expected_unit_price: Price | None = None
    current_unit_price: Price | None = None


class OrderRejected(Event):
    """Nothing was taken and nothing stored but this answer: final for this order id.

    `retryable`: stock is the only thing missing, so the same basket may succeed later under a new id.
    Every other reason needs somebody to change something first (the user, the product, the price).
    """

    order_id: OrderId
    user_id: Id
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    retryable: bool
    placed_at: EventTime
    decided_at: EventTime


class DeadLetterCode(StrEnum):
    """Why a record could not become an order: the `error.code` header of its dead letter."""

    EMPTY_VALUE = "empty_value"  # null (a tombstone) or no bytes at all
    TOO_LARGE = "too_large"  # more bytes than the contract allows
    NOT_JSON = "not_json"  # not one UTF-8 JSON document; NaN and Infinity are not JSON
    INVALID_ORDER = "invalid_order"  # JSON, but not the contract; error.path names the field
    ORDER_ID_CONFLICT = "order_id_conflict"  # this id was decided for another order; the first stands
    ORDER_ID_TAKEN = "order_id_taken"  # an order has this id that was not placed through Kafka
    DATA_ERROR = "data_error"  # PostgreSQL names a value of this one order
    UNREADABLE = "unreadable"  # no client can unpack the record; the letter has what can be read raw
