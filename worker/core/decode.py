"""Turns the bytes of one record into an order, or into the reason why they are not an order. Pure."""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from contracts.cloud_events import StructuredOrder, is_event
from contracts.envelope import Headers
from contracts.events import DeadLetterCode, OrderedItem, OrderPlaced
from contracts.fields import MAX_ITEMS
from contracts.former import FormerOrder
from contracts.plain_order import PlainOrder, read_usual_order
from worker.core import wrong_bytes, wrong_fields, wrong_shapes

_NOT_HEADER_TEXT = re.compile(r"[^ -~]")  # control characters, and what a terminal would reorder or hide

_MESSAGES: Final = {  # where pydantic speaks of Python
    "missing": "is missing",
    "model_type": "should be an object",
    "too_short": "should have at least 1 item",
    "too_long": f"should have at most {MAX_ITEMS} items",
    "tuple_type": "should be an array",
    "literal_error": 'should be "1.0", the version of CloudEvents that is read',  # of `specversion` alone
}
_TWICE: Final = "is given twice: send it once"
_DATA: Final = "data."  # where an event in structured mode has the order
# Of an order with as many items as it may have.
_MOST_ERRORS: Final = MAX_ITEMS * len(OrderedItem.model_fields) + 10


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


def decode(value: bytes | None, max_bytes: int, headers: Headers = ()) -> Decoded | Invalid:
    """Never raises because of the value: anything wrong with it is returned as `Invalid`.

    `headers`: the record's, which say whether the value is a CloudEvents event in structured mode.
    """
    if not value:
        return Invalid(DeadLetterCode.EMPTY_VALUE, "the value is empty", "")
    if len(value) > max_bytes:
        return Invalid(DeadLetterCode.TOO_LARGE, f"{len(value)} bytes, at most {max_bytes} are allowed", "")
    try:
        return _decode(value, headers)
    except ValidationError as error:
        return _not_json(value) or _invalid(error, value)
    except (MemoryError, RecursionError):  # the process, not the value: the parser stops at 200 levels
        raise
    except Exception as error:
        return Invalid(DeadLetterCode.INVALID_ORDER, f"{type(error).__name__}: {error}", "")


def decode_former(value: bytes | None, max_bytes: int, headers: Headers = ()) -> Decoded | Invalid:
    """As `decode`, but also accepts orders that only earlier versions accepted."""
    decoded = decode(value, max_bytes, headers)
    if isinstance(decoded, Decoded) or decoded.code is not DeadLetterCode.INVALID_ORDER:
        return decoded
    try:
        return _complete(value or b"", FormerOrder)
    except ValueError:  # pydantic's own is one, too
        return decoded


def _decode(value: bytes, headers: Headers) -> Decoded | Invalid:
    usual = read_usual_order(value)
    if usual is not None:
        order, quotes = usual
        # Asking pydantic for unknown fields would double the time, and it does not report repeated ones at
        # all. As many quotes as the known fields bring means: nothing unknown, nothing twice. So it is no
        # event in structured mode either.
        if value.count(b'"') == quotes:
            return Decoded(order, order.fingerprint(), 0)
    if not headers or not is_event(value, headers):
        return _complete(value, OrderPlaced)
    event = StructuredOrder.model_validate_json(value)
    return _with_unknown(event.data.plain(), value, is_event=True)


def _complete(value: bytes, model: type[OrderPlaced]) -> Decoded | Invalid:
    return _with_unknown(model.model_validate_json(value).plain(), value, is_event=False)


def _with_unknown(order: PlainOrder, value: bytes, *, is_event: bool) -> Decoded | Invalid:
    unknown = _not_json(value) or _count_unknown(value, is_event=is_event)
    return unknown if isinstance(unknown, Invalid) else Decoded(order, order.fingerprint(), unknown)


def _not_json(value: bytes) -> Invalid | None:
    # pydantic reads these numbers, which JSON does not have; where it ignores a field they even pass.
    if b"NaN" in value or b"Infinity" in value:
        try:
            from_json(value, allow_inf_nan=False)
        except ValueError as error:
            message = f"Invalid JSON: {error}: NaN and Infinity are no numbers of JSON, leave the field out"
            return Invalid(DeadLetterCode.NOT_JSON, message, "")
    return None


def _count_unknown(value: bytes, *, is_event: bool = False) -> int | Invalid:
    # As pairs, because a dict hides a repeated name; numbers as text, because int() refuses very long ones.
    pairs = json.loads(value.decode(), object_pairs_hook=list, parse_int=str, parse_float=str)
    twice, at = None, ""
    if is_event:
        twice, at = _given_twice(at, pairs, StructuredOrder), _DATA
        pairs = dict(pairs)["data"]
    twice = twice or _given_twice(at, pairs, OrderPlaced)
    order = dict(pairs)
    unknown = len(order.keys() - OrderPlaced.model_fields.keys())
    for n, item in enumerate(order["items"]):
        twice = twice or _given_twice(f"{at}items.{n}.", item, OrderedItem)
        unknown += len(dict(item).keys() - OrderedItem.model_fields.keys())
    return twice or unknown


def _given_twice(prefix: str, pairs: list[tuple[str, object]], model: type[BaseModel]) -> Invalid | None:
    names = [name for name, _ in pairs]
    for name in model.model_fields:
        if names.count(name) > 1:  # which one is meant cannot be known, and an order must not be guessed at
            return Invalid(DeadLetterCode.INVALID_ORDER, _TWICE, f"{prefix}{name}")
    return None


def _invalid(error: ValidationError, value: bytes) -> Invalid:
    if error.error_count() > _MOST_ERRORS:  # to list them takes half a second for each such value
        at = _DATA if error.title == StructuredOrder.__name__ else ""
        return Invalid(DeadLetterCode.INVALID_ORDER, _MESSAGES["too_long"], f"{at}items")
    first, *_ = errors = error.errors(include_url=False, include_context=False)
    if first["type"] == "json_invalid":
        return Invalid(DeadLetterCode.NOT_JSON, wrong_bytes.remark(value, first["msg"]), "")
    # pydantic counts the good items only: after errors in items, "too short" is no error of its own.
    spurious = sum(b["type"] == "too_short" and a["loc"][:1] == b["loc"] for a, b in pairwise(errors))
    more = len(errors) - 1 - spurious
    message = _what_is_wrong(first) + (f" (and {more} more)" if more else "")
    return Invalid(DeadLetterCode.INVALID_ORDER, message, ".".join(map(str, first["loc"])))


def _what_is_wrong(error: ErrorDetails) -> str:
    kind, found = error["type"], error["input"]
    general = _MESSAGES.get(kind) or error["msg"].removeprefix("Value error, ")
    name = str(error["loc"][-1]) if error["loc"] else ""
    if kind == "missing":
        return wrong_shapes.remark_of_missing(name, found) or general
    if kind == "model_type":
        return wrong_shapes.remark(found, is_line=name.isdecimal()) or general
    return wrong_fields.remark(name, found, general)
