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
from typing import Annotated, Any, Final
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
_WHOLE_PRICE: Final = r"^[0-9]{1,8}\.[0-9]{2}$"
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
            [schema.str_schema(strict=True, pattern=_WHOLE_PRICE), schema.decimal_schema(strict=False)]
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

    def fingerprint(self) -> bytes:
        """The same 16 bytes for the same order, however its JSON was written.

        Covers every field but the id: spacing, field order, unknown fields, `2.5` for `2.50`
        and another offset for the same instant make no difference; anything else does.
        """
        lines = ";".join(
            [
                f"{i.product_id}*{i.quantity}"
                if i.unit_price is None
                else f"{i.product_id}*{i.quantity}@{i.unit_price!s}"
                for i in self.items
            ]
        )
        text = f"{self.user_id}|{self.placed_at.astimezone(UTC).isoformat()}|{lines}"
        return blake2b(text.encode(), digest_size=16).digest()


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
