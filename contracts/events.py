"""The three events: order-placed in, order-confirmed and order-rejected out.

A value that validates here is safe to decide on: every number is bounded, money
is an exact decimal with two places, every time carries its offset. Models are
frozen and strict: `true`, `"7"` and `3.0` are not integers. Unknown fields are
ignored, so that a publisher can add one without asking anybody.
"""

from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, SchemaValidator, ValidationError
from pydantic_core import core_schema as schema

MAX_ITEMS: Final = 1_000  # a real retailer's orders reach 675 lines
MAX_QUANTITY: Final = 1_000_000
MAX_ID: Final = 2**63 - 1  # bigint

# All of it is checked in Rust: a Python function for each value took half of the time of a validation.
_PRICE: Final = r"^[0-9]{1,8}(\.[0-9]{1,2})?$"  # Numeric(10, 2), never negative
_PLAIN_PRICE: Final = r"^(0|[1-9][0-9]{0,7})\.[0-9]{2}$"  # as events write it
_TIME: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_CENT: Final = Decimal("0.01")


def _text(error: str, **limits: Any) -> CoreSchema:
    """A string within limits. `error` says what it should be."""
    return schema.custom_error_schema(
        schema.str_schema(strict=True, **limits), "form", custom_error_message=error
    )


def _read_as(json: CoreSchema) -> GetPydanticSchema:
    """In JSON read by this schema, in Python a value of the type it annotates."""
    return GetPydanticSchema(lambda kind, handler: schema.json_or_python_schema(json, handler(kind)))


# The form first: pydantic alone takes {…}, urn:uuid:… and 32 digits without hyphens as well.
_ID_FROM_JSON: Final = schema.chain_schema(
    [
        _text(
            "an order id is a UUID of 36 characters, like 7f1c0f0e-5a6b-4c9d-8e2f-0123456789ab",
            min_length=36,
            max_length=36,
        ),
        schema.uuid_schema(strict=False),
    ]
)
_ID_AS_TEXT: Final = SchemaValidator(_ID_FROM_JSON)
# pydantic alone takes 2.55 (a float by then), "1e3", " 2.5" and "٣" for a Decimal.
_PRICE_FROM_JSON: Final = schema.union_schema(
    [
        schema.chain_schema(
            [schema.str_schema(strict=True, pattern=_PLAIN_PRICE), schema.decimal_schema(strict=False)]
        ),
        schema.chain_schema(
            [
                schema.str_schema(strict=True, pattern=_PRICE),
                schema.no_info_after_validator_function(
                    lambda price: price.quantize(_CENT), schema.decimal_schema(strict=False)
                ),
            ]
        ),
    ],
    mode="left_to_right",
    custom_error_type="form",
    custom_error_message='a price is a string of digits with at most two decimals, like "2.55"',
)
# pydantic alone takes "1700000000" for a time.
_TIME_FROM_JSON: Final = schema.chain_schema(
    [
        _text("a time is RFC 3339 with its offset, like 2026-11-23T10:00:00+00:00", pattern=_TIME),
        schema.datetime_schema(
            strict=False,
            tz_constraint="aware",
            # Within a year of either end of what datetime holds, a change of zone overflows.
            ge=datetime(1970, 1, 1, tzinfo=UTC),
            lt=datetime(9999, 1, 1, tzinfo=UTC),
        ),
    ]
)

OrderId = Annotated[UUID, _read_as(_ID_FROM_JSON), WithJsonSchema({"type": "string", "format": "uuid"})]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
Price = Annotated[
    Decimal,
    _read_as(_PRICE_FROM_JSON),
    WithJsonSchema({"type": "string", "pattern": _PRICE, "examples": ["2.55"]}),
]
Total = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,12}\.[0-9]{2}$"})
]  # Numeric(14, 2)
Time = Annotated[
    AwareDatetime,
    _read_as(_TIME_FROM_JSON),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME}),
]


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


def time_text(time: datetime) -> str:
    """An aware time as events write it: RFC 3339, `Z` for UTC, microseconds if there are any."""
    text = time.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


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
                        "unit_price": schema.nullable_schema(_usual(_PLAIN_PRICE)),
                    },
                    optional="unit_price",
                ),
                min_length=1,
                max_length=MAX_ITEMS,
            ),
        }
    )
)
_USUAL_FROM, _USUAL_TO = "1971", "9998"  # within the contract's bounds in every zone
_new: Final = tuple.__new__  # of a NamedTuple: half the time of a call of its class


def read_usual_order(json: bytes) -> tuple[PlainOrder, int] | None:
    """The order, and how many quotes its JSON has if each of its fields is there once and nothing else is.

    A property test holds it against `OrderPlaced`, which takes twice as long. None does not mean that it is
    no order: the model tells, and why.
    """
    try:
        read = _USUAL_ORDER.validate_json(json)
        time = read["placed_at"]
        placed_at = datetime.fromisoformat(time)
    except ValueError:  # pydantic's own is one, too
        return None
    if not _USUAL_FROM <= time < _USUAL_TO:
        return None
    # Every name brings two quotes, and no valid text holds an escaped one: of the order 4 names and 2 texts.
    quotes = 12
    items = []
    for item in read["items"]:
        price = item.get("unit_price")
        quotes += 2 * len(item)
        if price is not None:
            quotes += 2
        items.append(_new(PlainItem, (item["product_id"], item["quantity"], price)))
    text = _time_text(time, placed_at)
    return _new(PlainOrder, (read["order_id"], read["user_id"], placed_at, text, tuple(items))), quotes


def _time_text(usual: str, time: datetime) -> str:
    """`time_text(time)`, in 0.1 instead of 0.9 µs where that is nearly what was read."""
    fraction = usual[19:]
    if fraction == "Z" or (fraction[-1] == "Z" and fraction not in (".000Z", ".000000Z")):
        return f"{usual[:-1]}000Z" if len(fraction) == 5 else usual
    return time_text(time)


def parse_order_id(text: str) -> UUID | None:
    """The order id, in the form in which events have it; None for anything else."""
    try:
        order_id: UUID = _ID_AS_TEXT.validate_python(text)
    except ValidationError:
        return None
    return order_id


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class OrderedItem(_Event):
    """One line of an order: several lines may name one product."""

    product_id: Id
    quantity: Quantity
    unit_price: Price | None = None  # the price the buyer saw; None: whatever it costs now


class OrderPlaced(_Event):
    """A buyer's order, as the upstream service publishes it."""

    order_id: OrderId
    user_id: Id
    placed_at: Time
    items: Annotated[tuple[OrderedItem, ...], Field(min_length=1, max_length=MAX_ITEMS)]

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


class ConfirmedItem(_Event):
    """One line as it was sold: `unit_price` is the price at the decision."""

    product_id: Id
    quantity: Quantity
    unit_price: Price


class OrderConfirmed(_Event):
    """Stock is taken, order and items are stored: final."""

    order_id: UUID
    user_id: Id
    total_amount: Total
    items: tuple[ConfirmedItem, ...]
    placed_at: AwareDatetime
    decided_at: AwareDatetime


class ReasonCode(StrEnum):
    """Why an order was rejected. All that apply are listed, not the first."""

    UNKNOWN_USER = "unknown_user"  # no such user
    UNKNOWN_PRODUCT = "unknown_product"  # no such product
    INSUFFICIENT_STOCK = "insufficient_stock"  # the lines of this product together want more than there is
    PRICE_CHANGED = "price_changed"  # the buyer saw another price than the one in force


class Reason(_Event):
    """One failing product (or the user), with what was asked for and what was there.

    `requested` and `available` come with insufficient_stock, the two prices with price_changed.
    """

    code: ReasonCode
    product_id: int | None = None
    requested: int | None = None
    available: int | None = None
    expected_unit_price: Price | None = None
    current_unit_price: Price | None = None


class OrderRejected(_Event):
    """Nothing was taken and nothing stored but this answer: final for this order id.

    `retryable`: stock is the only thing missing, so the same basket may succeed later under a new id.
    Every other reason needs somebody to change something first (the user, the product, the price).
    """

    order_id: UUID
    user_id: Id
    reasons: Annotated[tuple[Reason, ...], Field(min_length=1)]
    retryable: bool
    placed_at: AwareDatetime
    decided_at: AwareDatetime


class DeadLetterCode(StrEnum):
    """Why a record could not become an order: the `error.code` header of its dead letter."""

    EMPTY_VALUE = "empty_value"  # null (a tombstone) or no bytes at all
    TOO_LARGE = "too_large"  # more bytes than the contract allows
    NOT_JSON = "not_json"  # not one UTF-8 JSON document; NaN and Infinity are not JSON
    INVALID_ORDER = "invalid_order"  # JSON, but not the contract; error.path names the field
    ORDER_ID_CONFLICT = "order_id_conflict"  # this id was decided for another order; the first stands
    DATA_ERROR = "data_error"  # PostgreSQL names a value of this one order
    UNREADABLE = "unreadable"  # no client can unpack the record; the letter has what can be read raw
