"""The edit of a field of a JSON text; every other byte stays as it was. Pure."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_INDEX: Final = re.compile(r"[0-9]{1,9}")
_SCAN: Final = json.JSONDecoder()


class ChangeError(ValueError):
    """Says why a value cannot be changed so."""


MayAdd = Callable[[str], bool]
"""whether a field of that path may be added where it is missing"""


class _Spot(NamedTuple):
    """Where the new text goes: in place of what stands from `start` to `end`, between these two."""

    start: int
    end: int
    before: str = ""
    after: str = ""
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A field by its path (`items.0.quantity`, `items.*.quantity`), and the JSON text that is to stand there.

    An empty path is the whole value.
    """

    field: str
    new_value: str

    def apply(self, value: bytes | None, may_add: MayAdd = lambda _: True) -> tuple[bytes, str | None]:
        """The changed value, and the JSON text that stood there; None: the field was missing, and is added.

        Of `*` a JSON list of the texts that stood there. Raises ChangeError where the value is not JSON, or
        has no place for the field, or no such field and `may_add` refuses its path.
        """
        if not self.field:
            return self.new_value.encode(), (value or b"").decode(errors="replace")
        text = _text(value)
        spots = list(_spots(text, _skip(text, 0), "", self.field.split("."), may_add))
        old = [None if spot.is_new else text[spot.start : spot.end] for spot in spots]
        for spot in reversed(spots):
            text = f"{text[: spot.start]}{spot.before}{self.new_value}{spot.after}{text[spot.end :]}"
        if "*" not in self.field.split("."):
            return text.encode(), old[0]
        return text.encode(), f"[{', '.join('null' if one is None else one for one in old)}]"


def set_in_each(value: bytes, array: str, name: str, new_value: str) -> bytes:
    """This member of each object in the array, where it has one, set to the JSON text. `array` is a path.

    Raises ChangeError where the value is not JSON, or has no such array.
    """
    text = _text(value)
    at = _skip(text, 0)
    for part in array.split("."):
        found = _member(text, at, part)
        if found is None:
            raise ChangeError(f"has no {array}")
        at, _ = found
    if text[at] != "[":
        raise ChangeError(f"has no {array}")
    for start, _ in reversed(_elements(text, at)):
        if span := _member(text, start, name):
            text = text[: span[0]] + new_value + text[span[1] :]
    return text.encode()


def parse_change(text: str) -> Change:
    """From `items.0.quantity=3`. Raises ChangeError that says how to write it."""
    field, equals, new_value = (part.strip() for part in text.partition("="))
    if not equals or not field or not all(field.split(".")):
        raise ChangeError("write FIELD=JSON, like items.0.quantity=3")
    try:
        new_value.encode()  # bytes of the command line that are no text
        json.loads(new_value, parse_constant=_refused)
    except (ValueError, RecursionError):
        quoted = json.dumps(new_value, ensure_ascii=False)
        raise ChangeError(
            f"{new_value or 'nothing'} is not JSON; text needs its quotes: '{field}={quoted}'"
        ) from None
    return Change(field, new_value)


def raw_members(text: str) -> dict[str, str]:
    """The members of a JSON object, each as it is written; of a name that is given twice the last one.

    Raises ChangeError where the text is no object.
    """
    _text(text.encode())
    start = _skip(text, 0)
    if text[start] != "{":
        raise ChangeError("is no JSON object")
    return {name: text[begin:end] for name, begin, end in _members(text, start)}


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
    if text[at] == "[" and _INDEX.fullmatch(name):
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


def _spots(text: str, at: int, path: str, names: Sequence[str], may_add: MayAdd) -> Iterator[_Spot]:
    """In the valid JSON that begins at `at` and is the value of `path`; in the order of the text."""
    name, *inner = names
    here = f"{path}.{name}" if path else name
    if name == "*":
        elements = _elements(text, at) if text[at] == "[" else []
        if not elements:
            raise ChangeError(f"has no {here}")
        places = [(span, f"{path}.{number}") for number, span in enumerate(elements)]
    elif found := _member(text, at, name):
        places = [(found, here)]
    elif inner:
        raise ChangeError(f"has no {here}")
    else:
        yield _new_member(text, at, name, here, may_add)
        return
    for (start, end), place in places:
        if inner:
            yield from _spots(text, start, place, inner, may_add)
        else:
            yield _Spot(start, end)


def _new_member(text: str, at: int, name: str, path: str, may_add: MayAdd) -> _Spot:
    if text[at] != "{":
        raise ChangeError(f"has no {path}, and only an object takes a new field")
    if not may_add(path):
        raise ChangeError(f"has no {path}, and no order has such a field")
    comma = "" if text[_skip(text, at + 1)] == "}" else ", "
    return _Spot(at + 1, at + 1, f"{json.dumps(name)}: ", comma, is_new=True)
