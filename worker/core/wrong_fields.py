"""Explains what is wrong with the value of one field, and how to write it. Pure."""

import re
from collections.abc import Callable, Sequence
from typing import Final

_MAX_WITH_POINT: Final = 2**53 - 1
# Nothing that is known is longer. On a long text, some forms take time by the square of its length: minutes.
_LONGEST: Final = 200
_DATE: Final = r"\d{4}-\d\d-\d\d"
_CLOCK: Final = r"\d\d:\d\d:\d\d(\.\d{1,9})?"
_ZONE: Final = r"([Zz]|[+-]\d\d:\d\d)"

Form = tuple[re.Pattern[str], str]


def _forms(*forms: tuple[str, str]) -> Sequence[Form]:
    return [(re.compile(form, re.ASCII), said) for form, said in forms]


_AROUND: Final = ((r"\s.*|.*\s", "has white space at its beginning or end: send it without"),)
# The first pattern that matches gives the hint.
_IDS: Final = _forms(
    *_AROUND,
    (r"urn:uuid:.*", "begins with urn:uuid: write the UUID alone"),
    (r"\{.*\}", "is in braces: write the UUID alone"),
    (r"[0-9a-fA-F]{32}", "has no hyphens: write it like 7f1c0f0e-5a6b-4c9d-8e2f-0123456789ab"),
)
_UPPER_CASE_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIMES: Final = _forms(
    *_AROUND,
    (_DATE, "is only a date: write date, time and offset, like 2026-11-23T10:00:00Z"),
    (rf"{_DATE} \d\d:\d\d.*", "has a space between date and time: write T"),
    (rf"{_DATE}[Tt]\d\d:\d\d({_ZONE})?", "has no seconds: write them, like 2026-11-23T10:00:00Z"),
    (rf"{_DATE}[Tt]{_CLOCK}", "has no offset: end it with Z or an offset like +01:00"),
    (rf"{_DATE}[Tt]{_CLOCK}[+-]\d\d(\d\d)?", "has an offset without minutes or colon: write it like +01:00"),
    (rf"{_DATE}[Tt]\d\d:\d\d:\d\d,\d+.*", "has a comma before the decimals: write a point"),
    (rf"{_DATE}[Tt]\d\d:\d\d:\d\d\.\d{{10,}}.*", "has more than nine decimals: write at most nine"),
    (rf"{_DATE}[Tt]24:.*", "is at 24 o'clock: write 00:00:00 of the next day"),
    (rf"{_DATE}[Tt]\d\d:\d\d:60.*", "is a leap second: write second 59, or 00 of the next minute"),
    (r"\d+(\.\d+)?", "is a number of seconds or milliseconds: write RFC 3339, like 2026-11-23T10:00:00Z"),
    (r"(0\d{3}|1[0-8]\d\d|19[0-6]\d|9999)-.*", "is in a year out of 1970 to 9998: write a year within"),
    (r"[+-]?\d{5,}-.*", "is in a year out of 1970 to 9998: write a year within"),
    (rf"{_DATE}[Tt]{_CLOCK}{_ZONE}", "is not a time that exists: correct day, clock or offset"),
    (rf"{_DATE}[Tt]{_CLOCK}.+", "does not end with its offset: end it with Z or an offset like +01:00"),
)
_PRICES: Final = _forms(
    *_AROUND,
    (r"-.*", "is negative: a price is 0.00 or more"),
    (r"\d+\.\d{3,}", "has more than two decimals: round it to two"),
    (r"[\d.,]*,[\d.,]*", "has a comma: write a point before the decimals, and no separator of thousands"),
    (r"\d{9,}(\.\d*)?", "is above 99999999.99: correct it"),
)


def remark(name: str, found: object, general: str) -> str:
    """What is wrong with the value, in the contract's terms; `general` if nothing better is known."""
    said = _SAYS[name](found) if name in _SAYS else None
    if said is None:
        return general
    return f"{said}; {general}" if name in _NUMBERS else said


def _said_of_text(forms: Sequence[Form]) -> Callable[[object], str | None]:
    def said(found: object) -> str | None:
        if not isinstance(found, str) or len(found) > _LONGEST:
            return None
        return next((text for form, text in forms if form.fullmatch(found)), None)

    return said


def _of_id(found: object) -> str | None:
    if isinstance(found, str) and _UPPER_CASE_ID.fullmatch(found):
        return f"has capital letters: write it in lower case, {found.lower()}"
    return _said_of_text(_IDS)(found)


def _of_time(found: object) -> str | None:
    if isinstance(found, int | float) and not isinstance(found, bool):
        return "is a number: write text in RFC 3339, like 2026-11-23T10:00:00Z"
    return _said_of_text(_TIMES)(found)


def _of_price(found: object) -> str | None:
    if isinstance(found, int | float) and not isinstance(found, bool):
        return 'is a number: write text with at most two decimals, like "2.55"'
    return _said_of_text(_PRICES)(found)


def _of_number(found: object) -> str | None:
    if isinstance(found, bool):
        return "is true or false"
    if isinstance(found, str) and found.isascii() and found.isdigit():
        return "is text: write the number without quotes"
    if isinstance(found, float) and not found.is_integer():
        return "is not a whole number"
    if isinstance(found, float) and found > _MAX_WITH_POINT:
        return f"is written with a point or an exponent and above {_MAX_WITH_POINT}: write digits only"
    return None


_NUMBERS: Final = ("user_id", "product_id", "quantity")
_SAYS: Final[dict[str, Callable[[object], str | None]]] = {
    "order_id": _of_id,
    "placed_at": _of_time,
    "unit_price": _of_price,
    **dict.fromkeys(_NUMBERS, _of_number),
}
