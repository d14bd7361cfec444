"""Reads the CSV files of a catalogue, row by row, into values that PostgreSQL takes.

A file has the columns of its layout in their order; all but id may be left out. An empty cell is an empty
text where the column takes one (a description), and else an error: it never keeps what is stored.

Whatever is wrong with a file becomes a CommandError that names file, line and column.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

from db.values import MAX_ID, MAX_STOCK, MAX_TEXT_BYTES
from worker.errors import CommandError

Value = int | str | Decimal

MAX_LINE_BYTES: Final = 1024 * 1024  # a file without a line end must not fill the memory

_DIGITS: Final = re.compile(r"[0-9]{1,19}")
_PRICE: Final = re.compile(r"[0-9]{1,8}(\.[0-9]{1,2})?")  # Numeric(10, 2), never negative
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # Excel begins UTF-8 files with it


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    if not value.isascii() and not _is_utf8(value):
        raise ValueError("is not UTF-8")
    return value


def _filled_text(value: str) -> str:
    if not value or value.isspace():
        raise ValueError("is empty")
    if len(value.encode(errors="surrogateescape")) > MAX_TEXT_BYTES:
        raise ValueError(f"is longer than {MAX_TEXT_BYTES:,} bytes")
    return _text(value)


def _integer(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not _DIGITS.fullmatch(value.removeprefix("-")):
            raise ValueError(f"is not an integer from {lowest} to {highest}: {_shown(value)}")
        number = int(value)
        if not lowest <= number <= highest:
            raise ValueError(f"is not from {lowest} to {highest}: {value}")
        return number

    return parse


def _price(value: str) -> Decimal:
    if not _PRICE.fullmatch(value):
        raise ValueError(f"is not a price of at most 8 digits and 2 decimals, like 12.50: {_shown(value)}")
    return Decimal(value)


_id: Final = _integer(1, MAX_ID)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that one file may have, in their order, and what reads each."""

    file_name: str
    columns: Mapping[str, Callable[[str], Value]]


USERS: Final = Layout("users.csv", {"id": _id, "email": _filled_text, "full_name": _filled_text})
CATEGORIES: Final = Layout("categories.csv", {"id": _id, "name": _filled_text, "description": _text})
PRODUCTS: Final = Layout(
    "products.csv",
    {
        "id": _id,
        "name": _filled_text,
        "description": _text,
        "price": _price,
        "stock_quantity": _integer(0, MAX_STOCK),
        "category_id": _id,
    },
)
# What is added to a stock may be negative: goods that were lost or sent back.
PRODUCTS_TO_ADD: Final = replace(
    PRODUCTS, columns={**PRODUCTS.columns, "stock_quantity": _integer(-MAX_STOCK, MAX_STOCK)}
)


class Rows(Iterator[tuple[Any, ...]]):
    """(line, *values) for each row, once. `columns`: those that the file has, id first."""

    def __init__(self, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
        self.columns = columns
        self._rows = rows

    def __next__(self) -> tuple[Any, ...]:
        return next(self._rows)


def read_rows(path: Path, file: BinaryIO, layout: Layout) -> Rows:
    """Read the header, and each row when it is asked for; a file without rows is an error too.

    `line` is where the row begins: a quoted text may continue over several lines. Blank lines are skipped.
    """
    records = _records(path, file)
    header = next(records, None)
    if header is None:
        raise CommandError(f"{path} is empty: it starts with the header {','.join(layout.columns)}")
    line, columns = header
    if detail := _wrong_header(columns, tuple(layout.columns)):
        raise CommandError(
            f"{at(path, line)}: wrong header ({detail}): it must be {','.join(layout.columns)},"
            " in this order; all but id may be left out"
        )
    parsers = {name: layout.columns[name] for name in columns}
    return Rows(tuple(columns), _parsed(path, records, parsers))


def _parsed(
    path: Path, records: Iterator[tuple[int, list[str]]], parsers: Mapping[str, Callable[[str], Value]]
) -> Iterator[tuple[Any, ...]]:
    count = 0
    for line, fields in records:
        if len(fields) != len(parsers):
            raise _wrong_count(path, line, fields, tuple(parsers))
        try:
            yield line, *[parse(field) for parse, field in zip(parsers.values(), fields, strict=True)]
        except ValueError:
            raise _bad_field(path, line, fields, parsers) from None
        count += 1
    if not count:
        raise CommandError(f"{path} has a header and no rows")


def at(path: Path, line: int, column: str | None = None) -> str:
    """How every message names a place."""
    return f"{path}, line {line}" + (f", column {column}" if column else "")


def _records(path: Path, file: BinaryIO) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the line it begins on."""
    reader = csv.reader(_lines(path, file), strict=True)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise CommandError(f"{at(path, line)}: not CSV: {error}") from None


def _lines(path: Path, file: BinaryIO) -> Iterator[str]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raise CommandError(f"{at(path, number)}: longer than {MAX_LINE_BYTES} bytes")
        if number == 1:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        # Bytes that are not UTF-8 come through marked, so that the field they are in can be named.
        yield raw.decode("utf-8", "surrogateescape")


def _wrong_header(found: Sequence[str], known: Sequence[str]) -> str:
    """What is wrong with it; empty where nothing is."""
    if "id" not in found:
        return f"missing {', '.join(name for name in known if name not in found)}"
    if unknown := [name for name in found if name not in known]:
        return f"unknown column {_shown(unknown[0])}"
    if repeated := [name for name in known if found.count(name) > 1]:
        return f"{repeated[0]} more than once"
    if len(found) == 1:
        return "nothing beside id"
    return (
        "" if list(found) == [name for name in known if name in found] else f"found {_shown(','.join(found))}"
    )


def _wrong_count(path: Path, line: int, fields: list[str], names: tuple[str, ...]) -> CommandError:
    if len(fields) < len(names):
        return CommandError(
            f"{at(path, line, names[len(fields)])}: is missing ({len(fields)} fields instead of {len(names)})"
        )
    return CommandError(
        f"{at(path, line)}: {len(fields)} fields instead of {len(names)}: a text with a comma needs quotes"
    )


def _bad_field(
    path: Path, line: int, fields: list[str], parsers: Mapping[str, Callable[[str], Value]]
) -> CommandError:
    for (name, parse), field in zip(parsers.items(), fields, strict=True):
        try:
            parse(field)
        except ValueError as error:
            hint = "" if field or name == "id" else "; to keep what is stored, leave the whole column out"
            return CommandError(f"{at(path, line, name)}: {error}{hint}")
    raise AssertionError("called for a row without a bad field")


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:60] + "…")
