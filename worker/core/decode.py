"""From the bytes of one record to an order, or to the reason why they are none: pure."""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from contracts.events import DeadLetterCode, OrderedItem, OrderPlaced
from contracts.fields import MAX_ITEMS
from contracts.plain_order import PlainOrder, read_usual_order

_NOT_HEADER_TEXT = re.compile(r"[^ -~]")  # control characters, and what a terminal would reorder or hide

_MESSAGES: Final = {  # where pydantic speaks of Python
    "missing": "is missing",
    "model_type": "should be an object",
    "too_short": "should have at least 1 item",
    "too_long": f"should have at most {MAX_ITEMS} items",
    "datetime_from_date_parsing": "is not a time that exists",
}


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why a value is not an order; message and path are safe as header text."""

    code: DeadLetterCode
    message: str
    path: str  # like "items.3.quantity", of known names only; "" for the whole value

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _NOT_HEADER_TEXT.sub("?", self.message)[:300])


class Decoded(NamedTuple):
    """An order that is safe to decide on."""

    order: PlainOrder
    fingerprint: bytes
    unknown_fields: int


def decode(value: bytes | None, max_bytes: int) -> Decoded | Invalid:
    """Never raises because of what the value holds: whatever is wrong with it comes back as `Invalid`."""
    if not value:
        return Invalid(DeadLetterCode.EMPTY_VALUE, "the value is empty", "")
    if len(value) > max_bytes:
        return Invalid(DeadLetterCode.TOO_LARGE, f"{len(value)} bytes, at most {max_bytes} are allowed", "")
    try:
        return _decode(value)
    except ValidationError as error:
        return _not_json(value) or _invalid(error)
    except (MemoryError, RecursionError):  # the process, not the value: the parser stops at 200 levels
        raise
    except Exception as error:
        return Invalid(DeadLetterCode.INVALID_ORDER, f"{type(error).__name__}: {error}", "")


def _decode(value: bytes) -> Decoded | Invalid:
    usual = read_usual_order(value)
    if usual is not None:
        order, quotes = usual
        # Asking pydantic for unknown fields would double the time, and it does not report repeated ones at
        # all. As many quotes as the known fields bring means: nothing unknown, nothing twice.
        if value.count(b'"') == quotes:
            return Decoded(order, order.fingerprint(), 0)
    order = _validate(value).plain()
    unknown = _not_json(value) or _count_unknown(value)
    return unknown if isinstance(unknown, Invalid) else Decoded(order, order.fingerprint(), unknown)


_validate: Final = OrderPlaced.__pydantic_validator__.validate_json


def _not_json(value: bytes) -> Invalid | None:
    # pydantic reads these numbers, which JSON does not have; where it ignores a field they even pass.
    if b"NaN" in value or b"Infinity" in value:
        try:
            from_json(value, allow_inf_nan=False)
        except ValueError as error:
            return Invalid(DeadLetterCode.NOT_JSON, f"Invalid JSON: {error}", "")
    return None


def _count_unknown(value: bytes) -> int | Invalid:
    # As pairs, because a dict hides a repeated name; numbers as text, because int() refuses very long ones.
    pairs = json.loads(value.decode(), object_pairs_hook=list, parse_int=str, parse_float=str)
    twice = _given_twice("", pairs, OrderPlaced)
    order = dict(pairs)
    unknown = len(order.keys() - OrderPlaced.model_fields.keys())
    for n, item in enumerate(order["items"]):
        twice = twice or _given_twice(f"items.{n}.", item, OrderedItem)
        unknown += len(dict(item).keys() - OrderedItem.model_fields.keys())
    return twice or unknown


def _given_twice(prefix: str, pairs: list[tuple[str, object]], model: type[BaseModel]) -> Invalid | None:
    names = [name for name, _ in pairs]
    for name in model.model_fields:
        if names.count(name) > 1:  # which one is meant cannot be known, and an order must not be guessed at
            return Invalid(DeadLetterCode.INVALID_ORDER, "is given twice", f"{prefix}{name}")
    return None


def _invalid(error: ValidationError) -> Invalid:
    first, *_ = errors = error.errors(include_url=False, include_context=False, include_input=False)
    code = DeadLetterCode.NOT_JSON if first["type"] == "json_invalid" else DeadLetterCode.INVALID_ORDER
    # pydantic counts the good items only: after errors in items, "too short" is no error of its own.
    spurious = sum(b["type"] == "too_short" and a["loc"][:1] == b["loc"] for a, b in pairwise(errors))
    more = len(errors) - 1 - spurious
    message = _MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    return Invalid(code, message + (f" (and {more} more)" if more else ""), ".".join(map(str, first["loc"])))
