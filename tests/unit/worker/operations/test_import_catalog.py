"""What a catalogue file may hold, and where an error says it is."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from db.values import MAX_STOCK
from worker.errors import CommandError, UsageError
from worker.operations.setup.catalog import find_files
from worker.operations.setup.catalog_csv import CATEGORIES, MAX_LINE_BYTES, PRODUCTS, USERS, Layout, read_rows
from worker.operations.setup.catalog_report import Imported, summary

USERS_HEADER = b"id,email,full_name\n"
PRODUCTS_HEADER = b"id,name,description,price,stock_quantity,category_id\n"


def rows_of(content: bytes, layout: Layout = USERS) -> list[tuple[Any, ...]]:
    return list(read_rows(Path(layout.file_name), io.BytesIO(content), layout))


def error_of(content: bytes, layout: Layout = USERS) -> str:
    with pytest.raises(CommandError) as caught:
        rows_of(content, layout)
    return str(caught.value)


def product(**changed: str) -> bytes:
    fields = {
        "id": "1",
        "name": "Lamp",
        "description": "",
        "price": "2.50",
        "stock_quantity": "3",
        "category_id": "4",
    }
    return PRODUCTS_HEADER + ",".join((fields | changed).values()).encode() + b"\n"


def test_reads_each_row_with_its_line() -> None:
    assert rows_of(USERS_HEADER + b"1,a@b.c,Ann\n2,d@e.f,Dan\n") == [
        (2, 1, "a@b.c", "Ann"),
        (3, 2, "d@e.f", "Dan"),
    ]


def test_money_is_exact() -> None:
    prices = [rows_of(product(price=price), PRODUCTS)[0][4] for price in ("0", "2.5", "2.50", "99999999.99")]
    assert prices == [Decimal("0"), Decimal("2.5"), Decimal("2.50"), Decimal("99999999.99")]


def test_a_text_over_several_lines_does_not_shift_the_line_numbers() -> None:
    content = b'id,name,description\n1,A,"two\nlines"\n\n2,B,\nx,C,\n'
    assert error_of(content, CATEGORIES).startswith("categories.csv, line 6, column id: is not an integer")


def test_takes_what_excel_writes() -> None:
    assert rows_of(b"\xef\xbb\xbfid,email,full_name\r\n1,a@b.c,J\xc3\xb6rg\r\n") == [(2, 1, "a@b.c", "Jörg")]


def test_the_last_line_needs_no_end() -> None:
    assert len(rows_of(USERS_HEADER + b"1,a@b.c,Ann")) == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"id": "one"}, "column id: is not an integer from 1 to 9223372036854775807: 'one'"),
        ({"id": ""}, "column id: is not an integer"),
        ({"id": "1.0"}, "column id: is not an integer"),
        ({"id": " 1"}, "column id: is not an integer"),
        ({"id": "\u0663"}, "column id: is not an integer"),
        ({"id": "1_0"}, "column id: is not an integer"),
        ({"id": "9" * 5_000}, "column id: is not an integer"),
        ({"id": "0"}, "column id: is not from 1 to 9223372036854775807: 0"),
        ({"id": "-7"}, "column id: is not from 1 to 9223372036854775807: -7"),
        ({"id": "9223372036854775808"}, "column id: is not from 1 to 9223372036854775807"),
        ({"name": ""}, "column name: is empty"),
        ({"name": "  "}, "column name: is empty"),
        ({"name": "a\0b"}, "column name: holds a NUL character"),
        ({"description": "a\0b"}, "column description: holds a NUL character"),
        ({"price": "2.505"}, "column price: is not a price of at most 8 digits and 2 decimals"),
        ({"price": "-1"}, "column price: is not a price"),
        ({"price": "1e3"}, "column price: is not a price"),
        ({"price": "NaN"}, "column price: is not a price"),
        ({"price": "123456789"}, "column price: is not a price"),
        ({"price": "2.5\n"}, "column price: is not a price"),
        ({"stock_quantity": "-1"}, f"column stock_quantity: is not from 0 to {MAX_STOCK}: -1"),
        ({"stock_quantity": str(10**18 + 1)}, "column stock_quantity: is not from 0"),
        ({"category_id": "x"}, "column category_id: is not an integer"),
    ],
)
def test_names_line_and_column_of_a_bad_value(changed: dict[str, str], expected: str) -> None:
    quoted = {name: f'"{value}"' for name, value in changed.items()}
    assert error_of(product(**quoted), PRODUCTS).startswith(f"products.csv, line 2, {expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "users.csv is empty: it starts with the header id,email,full_name"),
        (b"\n\n", "users.csv is empty"),
        (USERS_HEADER, "users.csv has a header and no rows"),
        (b"email,full_name\na,b\n", "users.csv, line 1: wrong header (missing id): it must be id,email,"),
        (b"id,emial\n1,a\n", "users.csv, line 1: wrong header (unknown column 'emial'): it must be id,"),
        (b"id,email,email\n1,a,b\n", "users.csv, line 1: wrong header (email more than once)"),
        (b"id,email,\n1,a,\n", "users.csv, line 1: wrong header (unknown column '')"),
        (b"id\n1\n", "users.csv, line 1: wrong header (nothing beside id)"),
        (b"id,full_name,email\n", "users.csv, line 1: wrong header (found 'id,full_name,email')"),
        (b"id;email;full_name\n", "users.csv, line 1: wrong header (missing id, email, full_name)"),
        (USERS_HEADER + b"1,a@b.c\n", "users.csv, line 2, column full_name: is missing (2 fields instead"),
        (USERS_HEADER + b"1,a,b,c\n", "users.csv, line 2: 4 fields instead of 3: a text with a comma"),
        (USERS_HEADER + b"1,a@b.c,J\xf6rg\n", "users.csv, line 2, column full_name: is not UTF-8"),
        (USERS_HEADER + b"1,\xed\xa0\x80,Ann\n", "users.csv, line 2, column email: is not UTF-8"),
        (USERS_HEADER + b'1,a,b\n2,"a,b\n3,c,d\n', "users.csv, line 3: not CSV:"),
        (USERS_HEADER + b'1,"a"b,c\n', "users.csv, line 2: not CSV:"),
        (USERS_HEADER + b"1,a," + b"x" * 200_000, "users.csv, line 2: not CSV: field larger"),
        (USERS_HEADER + b"1," + b"x" * MAX_LINE_BYTES, "users.csv, line 2: longer than"),
    ],
)
def test_names_what_is_wrong_with_the_file(content: bytes, expected: str) -> None:
    assert error_of(content).startswith(expected)


def test_good_rows_come_before_the_error_so_nothing_is_read_ahead() -> None:
    rows = read_rows(Path("users.csv"), io.BytesIO(USERS_HEADER + b"1,a,b\n2,c\n"), USERS)
    assert next(rows) == (2, 1, "a", "b")
    with pytest.raises(CommandError):
        next(rows)


def test_finds_the_files_in_the_order_of_their_foreign_keys(tmp_path: Path) -> None:
    for name in ("products.csv", "categories.csv", "users.csv"):
        (tmp_path / name).touch()
    assert [f.path.name for f in find_files(tmp_path)] == ["users.csv", "categories.csv", "products.csv"]
    assert [f.part.name for f in find_files(tmp_path / "products.csv")] == ["products"]


def test_says_which_files_a_folder_lacks(tmp_path: Path) -> None:
    (tmp_path / "users.csv").touch()
    with pytest.raises(UsageError, match=r"has no categories\.csv and no products\.csv"):
        find_files(tmp_path)


def test_refuses_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "people.csv").touch()
    with pytest.raises(UsageError, match=r"neither a folder with users\.csv"):
        find_files(tmp_path / "people.csv")


def test_the_summary_aligns() -> None:
    lines = summary([Imported("users", 1_000_000, 10, 5), Imported("products", 1, 0, 0)]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["users", "1,000,000", "10", "5", "999,985"]
