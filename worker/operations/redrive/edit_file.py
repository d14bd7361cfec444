"""A file that says of each letter what is to be sent: JSON lines of a place, and a value or fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.error_texts import reason_of
from worker.errors import UsageError
from worker.operations.dead_letters.letter import LetterPlace, parse_place
from worker.operations.redrive.edits import Edits, FileLine
from worker.operations.redrive.json_edit import Change, ChangeError, raw_members

# Fields that `export` writes: one of its lines may be edited and used here.
_EXPORTED: Final = frozenset(
    ["source", "error", "failed_at", "cut_from_bytes", "headers", "key", "key_base64", "value_base64"]
)
_MAX_NAMED: Final = 5  # of bad lines
# A file without a line end must not fill the memory: more than `export` writes of the largest usual record.
_MAX_LINE_BYTES: Final = 16 * 1024 * 1024


def read_edits(path: Path) -> Edits:
    """What each line says. Raises UsageError that names every bad line, or the first few."""
    lines: dict[LetterPlace, FileLine] = {}
    bad: list[str] = []
    for number, text in _lines(path):
        try:
            place, changes = _read_line(text)
            if place in lines:
                raise ChangeError(f"{place} stands in line {lines[place].number} already")
            lines[place] = FileLine(number, changes)
        except ChangeError as error:
            bad.append(f"{path}:{number}: {error}")
    if bad:
        raise UsageError(named(bad))
    if not lines:
        raise UsageError(f"{path} names no dead letter")
    return Edits(file=str(path), lines=lines)


def named(bad: list[str]) -> str:
    """What is wrong with some letters, as one line."""
    more = f"; and {len(bad) - _MAX_NAMED:,} more" if len(bad) > _MAX_NAMED else ""
    return f"{'; '.join(bad[:_MAX_NAMED])}{more}; nothing was sent"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), 1):
                if len(line) == _MAX_LINE_BYTES:
                    raise UsageError(
                        f"{path}:{number}: longer than {_MAX_LINE_BYTES} bytes; nothing was sent"
                    )
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
                if text.strip():
                    yield number, text.strip()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from None


def _read_line(text: str) -> tuple[LetterPlace, tuple[Change, ...]]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ChangeError("is not UTF-8") from None
    given = raw_members(text)
    if unknown := given.keys() - _EXPORTED - {"place", "value", "set"}:
        raise ChangeError(f"{min(unknown)}: a line has place, and value or set")
    place = _place(given.get("place"))
    if ("value" in given) == ("set" in given):
        raise ChangeError(f"{place}: give either value, the whole new one, or set, the fields to change")
    return place, _whole(given["value"]) if "value" in given else _fields(given["set"])


def _place(written: str | None) -> LetterPlace:
    place = json.loads(written) if written else None
    found = parse_place(place) if isinstance(place, str) else None
    if found is None:
        raise ChangeError('has no place like {"place": "2:17", …}')
    return found


def _whole(written: str) -> tuple[Change, ...]:
    """An order as an object, or as its text, as `export` writes it."""
    value = json.loads(written)
    text = value if isinstance(value, str) else written
    try:
        raw_members(text)
    except ChangeError:
        raise ChangeError("value: is no JSON object, nor the text of one") from None
    return (Change("", text),)


def _fields(written: str) -> tuple[Change, ...]:
    try:
        fields = raw_members(written)
    except ChangeError:
        fields = {}
    if not fields or not all(all(name.split(".")) for name in fields):
        raise ChangeError('set: write fields and their values, like {"user_id": 7, "items.0.quantity": 1}')
    return tuple(Change(name, text) for name, text in fields.items())
