"""The three events: order-placed in, order-confirmed and order-rejected out.

A value that validates here is safe to decide on: every number is bounded, money
is an exact decimal with two places, every time carries its offset. Models are
frozen and strict: `true`, `"7"` and `3.0` are not integers. Unknown fields are
ignored, so that a publisher can add one without asking anybody.
"""

import hashlib
import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MAX_ITEMS: Final = 1_000  # a real retailer's orders reach 675 lines
MAX_QUANTITY: Final = 1_000_000
MAX_ID: Final = 2**63 - 1  # bigint

_PRICE = re.compile(r"[0-9]{1,8}(\.[0-9]{1,2})?")  # Numeric(10, 2), never negative
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_CENT = Decimal("0.01")


def _canonical_uuid(value: object) -> object:
    # pydantic alone takes {…}, urn:uuid:… and 32 digits without hyphens as well.
    if isinstance(value, str) and len(value) != 36:
        raise ValueError("an order id is a UUID of 36 characters, like 7f1c0f0e-5a6b-4c9d-8e2f-0123456789ab")
    return value


def _decimal_string(value: object) -> object:
    # pydantic alone takes 2.55 (a float by then), "1e3", " 2.5" and "٣" for a Decimal.
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str) or not _PRICE.fullmatch(value):
        raise ValueError('a price is a string of digits with at most two decimals, like "2.55"')
    return Decimal(value).quantize(_CENT)


def _rfc3339(value: object) -> object:
    # pydantic alone takes "1700000000" for a time.
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("a time is RFC 3339 with its offset, like 2026-11-23T10:00:00+00:00")
    return value


# strict=False: a before-validator hands Python objects on, and a strict UUID or time takes no string then.
OrderId = Annotated[
    UUID,
    Field(strict=False),
    BeforeValidator(_canonical_uuid),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Quantity = Annotated[int, Field(ge=1, le=MAX_QUANTITY)]
Price = Annotated[
    Decimal,
    BeforeValidator(_decimal_string),
    WithJsonSchema({"type": "string", "pattern": f"^{_PRICE.pattern}$", "examples": ["2.55"]}),
]
Total = Annotated[
    Decimal, WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,12}\.[0-9]{2}$"})
]  # Numeric(14, 2)
Time = Annotated[
    AwareDatetime,
    # Within a year of either end of what datetime holds, a change of zone overflows.
    Field(strict=False, ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC)),
    BeforeValidator(_rfc3339),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{_TIME.pattern}$"}),
]


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
            f"{i.product_id}*{i.quantity}"
            if i.unit_price is None
            else f"{i.product_id}*{i.quantity}@{i.unit_price}"
            for i in self.items
        )
        text = f"{self.user_id}|{self.placed_at.astimezone(UTC).isoformat()}|{lines}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


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
