"""The forms of values in JSON: ids, quantities, prices, times. Each refusal says what the value should be."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AwareDatetime, GetPydanticSchema, WithJsonSchema
from pydantic_core import CoreSchema, SchemaValidator, ValidationError
from pydantic_core import core_schema as schema

MAX_ITEMS: Final = 1_000  # a real retailer's orders reach 675 lines
MAX_QUANTITY: Final = 1_000_000
MAX_ID: Final = 2**63 - 1  # bigint
MAX_TOTAL_CENTS: Final = 10**14 - 1  # of an order: Numeric(14, 2)

# Of numbers with a point or an exponent: up to here exact readers and those of doubles read the same integer.
_MAX_WITH_POINT: Final = 2**53 - 1

# All of it is checked in Rust: a Python function for each value took half of the time of a validation.
_ORDER_ID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_PRICE: Final = r"^[0-9]{1,8}(\.[0-9]{1,2})?$"  # Numeric(10, 2), never negative
PLAIN_PRICE_PATTERN: Final = r"^(0|[1-9][0-9]{0,7})\.[0-9]{2}$"  # as events write it
_TOTAL: Final = r"^(0|[1-9][0-9]{0,11})\.[0-9]{2}$"  # Numeric(14, 2)
# RFC 3339, with days that exist: validators that ignore `format` have to agree with those that assert it.
# Written from 1970 to 9998, so that no change of zone leaves what a datetime holds.
_YEAR: Final = "(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"
_DAY_OF_ANY_YEAR: Final = (
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR: Final = (
    "(19(7[26]|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[3579][26])00)"
)
_CLOCK: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_OFFSET: Final = "[+-]([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = (
    f"^({_YEAR}-{_DAY_OF_ANY_YEAR}|{_LEAP_YEAR}-02-29)[Tt]{_CLOCK}"
    rf"(\.[0-9]{{1,9}})?([Zz]|{_OFFSET})$"
)
_EVENT_TIME: Final = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_CLOCK}(\.[0-9]{{6}})?(Z|{_OFFSET})$"
_CENT: Final = Decimal("0.01")
# The `$` of Python's and of some other regular expressions lets one line break pass; this says that none may.
_NO_LINE_BREAK: Final = {"not": {"pattern": "\\n"}}


def _text(error: str, **limits: Any) -> CoreSchema:
    """A string within limits. `error` says what it should be."""
    return schema.custom_error_schema(
        schema.str_schema(strict=True, **limits), "form", custom_error_message=error
    )


def _read_as(json: CoreSchema, python: CoreSchema | None = None) -> GetPydanticSchema:
    """In JSON read by this schema; in Python by the other one, or as the type it annotates."""
    return GetPydanticSchema(
        lambda kind, handler: schema.json_or_python_schema(json, python or handler(kind))
    )


def _whole_number(most: int, name: str) -> GetPydanticSchema:
    """An integer from 1 to `most`. In JSON also written as 7.0 or 7e0, which JSON Schema calls one."""
    digits = schema.int_schema(strict=True, ge=1, le=most)
    with_point = schema.chain_schema(
        [
            schema.float_schema(strict=True, ge=1, le=_MAX_WITH_POINT),
            schema.int_schema(strict=False, ge=1, le=most),
        ]
    )
    json = schema.union_schema(
        [digits, with_point],
        mode="left_to_right",
        custom_error_type="form",
        custom_error_message=f"{name} is an integer from 1 to {most}",
    )
    return _read_as(json, digits)


_ID_FROM_JSON: Final = schema.chain_schema(
    [
        _text(
            "an order id is a UUID in lower case, like 7f1c0f0e-5a6b-4c9d-8e2f-0123456789ab",
            pattern=_ORDER_ID,
        ),
        schema.uuid_schema(strict=False),
    ]
)
# As a person may write it: also in capital letters, but of 36 characters, on which pydantic does not insist.
_ID_AS_TYPED: Final = SchemaValidator(
    schema.chain_schema([schema.str_schema(min_length=36, max_length=36), schema.uuid_schema(strict=False)])
)
# pydantic alone accepts 2.55 (a float by then), "1e3", " 2.5" and "٣" as a Decimal.
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
# pydantic alone accepts "1700000000" as a time.
_TIME_FROM_JSON: Final = schema.chain_schema(
    [
        _text("a time is RFC 3339 with its offset, like 2026-11-23T10:00:00+00:00", pattern=_TIME),
        schema.datetime_schema(strict=False, tz_constraint="aware"),
    ]
)


def _number_schema(most: int, form: str) -> dict[str, Any]:
    return {"type": "integer", "format": form, "minimum": 1, "maximum": most}


_ID_SCHEMA: Final = _number_schema(MAX_ID, "int64")
# Also where a validator reads numbers as doubles, for which 2^63 is not above 2^63 - 1.
_ID_SCHEMA_TO_WRITE: Final = {**_ID_SCHEMA, "exclusiveMaximum": MAX_ID + 1}

OrderId = Annotated[
    UUID,
    _read_as(_ID_FROM_JSON),
    WithJsonSchema(
        {"type": "string", "format": "uuid", "pattern": _ORDER_ID, "minLength": 36, "maxLength": 36}
    ),
]
Id = Annotated[
    int,
    _whole_number(MAX_ID, "an id"),
    WithJsonSchema(_ID_SCHEMA_TO_WRITE, mode="validation"),
    WithJsonSchema(_ID_SCHEMA, mode="serialization"),
]
Quantity = Annotated[
    int, _whole_number(MAX_QUANTITY, "a quantity"), WithJsonSchema(_number_schema(MAX_QUANTITY, "int32"))
]
Price = Annotated[
    Decimal,
    _read_as(_PRICE_FROM_JSON),
    WithJsonSchema(
        {"type": "string", "pattern": _PRICE, **_NO_LINE_BREAK, "examples": ["2.55"]}, mode="validation"
    ),
    WithJsonSchema(
        {"type": "string", "pattern": PLAIN_PRICE_PATTERN, "examples": ["2.55"]}, mode="serialization"
    ),
]
Total = Annotated[Decimal, WithJsonSchema({"type": "string", "pattern": _TOTAL, "examples": ["5.10"]})]
Time = Annotated[
    AwareDatetime,
    _read_as(_TIME_FROM_JSON),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "pattern": _TIME,
            **_NO_LINE_BREAK,
            "examples": ["2026-11-23T10:00:00Z"],
        }
    ),
]
EventTime = Annotated[
    AwareDatetime, WithJsonSchema({"type": "string", "format": "date-time", "pattern": _EVENT_TIME})
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
    """The order id that a person or a header names, also in capital letters; None for anything else."""
    try:
        order_id: UUID = _ID_AS_TYPED.validate_python(text)
    except ValidationError:
        return None
    return order_id
