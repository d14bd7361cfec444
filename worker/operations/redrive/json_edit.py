"""The edit of one field of a JSON text; every other byte stays as it was. Pure."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCAN: Final = json.JSONDecoder()


class ChangeError(ValueError):
    """Says why a value cannot be changed so."""


@dataclass(frozen=True, slots=True)
class Change:
    """A field by its path (`items.0.quantity`), and the JSON text that is to stand there."""

    field: str
    new_value: str

    def apply(self, value: bytes | None) -> tuple[bytes, str | None]:
        """The changed value, and the JSON text that stood there; None: the field was missing, and is added.

        Raises ChangeError where the value is not JSON, or has no place for the field.
        """
        text = _text(value)
        *outer, name = self.field.split(".")
        span = (_skip(text, 0), len(text))
        for number, part in enumerate(outer):
            inner = _member(text, span[0], part)
            if inner is None:
                raise ChangeError(f"has no {'.'.join(outer[: number + 1])}")
            span = inner
        found = _member(text, span[0], name)
        if found is None:
            return _added(text, span[0], name, self.new_value).encode(), None
        start, end = found
        return (text[:start] + self.new_value + text[end:]).encode(), text[start:end]


def set_in_each(value: bytes, array: str, name: str, new_value: str) -> bytes:
    """This member of each object in the array, where it has one, set to the JSON text.

    Raises ChangeError where the value is not JSON, or has no such array.
    """
    text = _text(value)
    found = _member(text, _skip(text, 0), array)
    if found is None or text[found[0]] != "[":
        raise ChangeError(f"has no {array}")
    for start, _ in reversed(_elements(text, found[0])):
        if span := _member(text, start, name):
            text = text[: span[0]] + new_value + text[span[1] :]
    return text.encode()


def parse_change(text: str) -> Change:
    """From `items.0.quantity=3`. Raises ChangeError that says how to write it."""
    field, equals, new_value = (part.strip() for part in text.partition("="))
    if not equals or not field or not all(field.split(".")):
        raise ChangeError("write FIELD=JSON, like items.0.quantity=3")
    try:
        json.loads(new_value, parse_constant=_refused)
    except (ValueError, RecursionError):
        quoted = json.dumps(new_value, ensure_ascii=False)
        raise ChangeError(
            f"{new_value or 'nothing'} is not JSON; text needs its quotes: '{field}={quoted}'"
        ) from None
    return Change(field, new_value)


def _text(value: bytes | None) -> str:
    try:
        text = (value or b"").decode()
        json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ChangeError(f"is not JSON ({error})") from None
    return text


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found
    return found.end()


def _member(text: str, at: int, name: str) -> tuple[int, int] | None:
    """From where to where the member's value goes, in the valid object or array that begins at `at`.

    Of a name that is given twice the last one, as every parser of JSON in use here has it.
    """
    if text[at] == "{":
        return {key: span for key, *span in _members(text, at)}.get(name)  # type: ignore[return-value]
    if text[at] == "[" and name.isascii() and name.isdigit():
        spans = _elements(text, at)
        return spans[int(name)] if int(name) < len(spans) else None
    return None


def _members(text: str, at: int) -> list[tuple[str, int, int]]:
    found = []
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, at = _SCAN.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)
        _, end = _SCAN.raw_decode(text, start)
        found.append((name, start, end))
        at = _next(text, end)
    return found


def _elements(text: str, at: int) -> list[tuple[int, int]]:
    found = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, end = _SCAN.raw_decode(text, at)
        found.append((at, end))
        at = _next(text, end)
    return found


def _next(text: str, end: int) -> int:
    """Behind the comma, if there is one."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at


def _added(text: str, at: int, name: str, new_value: str) -> str:
    if text[at] != "{":
        raise ChangeError(f"has no {name} there, and only an object takes a new field")
    rest = _skip(text, at + 1)
    comma = "" if text[rest] == "}" else ", "
    return f"{text[: at + 1]}{json.dumps(name)}: {new_value}{comma}{text[at + 1 :]}"
