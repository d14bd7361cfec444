"""The forms of values in JSON: ids, quantities, prices, times. Each refusal says what the value should be."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AwareDatetime, Field, GetPydanticSchema, WithJsonSchema
from pydantic_core import CoreSchema, SchemaValidator, ValidationError
from pydantic_core import core_schema as schema

MAX_ITEMS: Final = 1_000  # a real retailer's orders reach 675 lines
MAX_QUANTITY: Final = 1_000_000
MAX_ID: Final = 2**63 - 1  # bigint
MAX_TOTAL_CENTS: Final = 10**14 - 1  # of an order: Numeric(14, 2)

# All of it is checked in Rust: a Python function for each value took half of the time of a validation.
_PRICE: Final = r"^[0-9]{1,8}(\.[0-9]{1,2})?$"  # Numeric(10, 2), never negative
PLAIN_PRICE_PATTERN: Final = r"^(0|[1-9][0-9]{0,7})\.[0-9]{2}$"  # as events write it
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
            [schema.str_schema(strict=True, pattern=PLAIN_PRICE_PATTERN), schema.decimal_schema(strict=False)]
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


def over_total_text(total_cents: int) -> str:
    """Why an order of that total is none."""
    total, most = (f"{cents // 100:,}.{cents % 100:02d}" for cents in (total_cents, MAX_TOTAL_CENTS))
    return f"the lines come to {total}, and the total of an order is at most {most}"


def time_text(time: datetime) -> str:
    """An aware time as events write it: RFC 3339, `Z` for UTC, microseconds if there are any."""
    text = time.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def parse_order_id(text: str) -> UUID | None:
    """The order id, in the form in which events have it; None for anything else."""
    try:
        order_id: UUID = _ID_AS_TEXT.validate_python(text)
    except ValidationError:
        return None
    return order_id
