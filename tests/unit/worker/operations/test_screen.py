"""Tables on terminals of any width."""

import io
import json
from uuid import UUID

import pytest
from rich.console import Console
from rich.text import Text

from worker.operations.screen import fitting_widths, json_text, output, table

ORDER = UUID("0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f")


def printed(width: int) -> list[str]:
    rows = [("first", "2026-11-30 10:24:39.477Z", ORDER, 1_000), ("last", None, ORDER, 7)]
    console = Console(file=io.StringIO(), width=width)
    console.print(table(("", "decided", "order", "count"), rows, numbers=("count",)))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [46, 60, 70, 80, 120])
def test_a_table_fits_any_terminal_and_breaks_no_id(width: int):
    lines = printed(width)
    assert max(map(len, lines)) <= width
    assert sum(str(ORDER) in line for line in lines) == 2


def test_where_there_is_room_a_row_is_a_line():
    assert len(printed(120)) == 4


def test_where_there_is_none_a_row_is_a_block_of_names_and_values():
    assert printed(50)[:4] == [
        "         first",
        "decided  2026-11-30 10:24:39.477Z",
        f"order    {ORDER}",
        "count    1,000",
    ]


def test_the_widest_column_that_may_be_is_narrowed_first():
    assert fitting_widths([36, 24, 5], [36, 13, 5], 60) == [36, 19, 5]
    assert fitting_widths([36, 24, 5], [36, 13, 5], 54) == [36, 13, 5]
    assert fitting_widths([36, 24, 5], [36, 13, 5], 53) == []


def test_a_column_without_a_word_and_a_row_that_is_too_short_are_shown():
    console = Console(file=io.StringIO(), width=60)
    console.print(table(("", "b", "c"), [("", "x"), ("", "y", "z")]))
    assert isinstance(console.file, io.StringIO)
    assert "z" in console.file.getvalue()


def test_nothing_that_is_printed_is_markup_or_makes_a_terminal_obey(capsys: pytest.CaptureFixture[str]):
    odd = "group [/a] [red]x \x1b[2J \x9b31m \u202e"
    output().print(odd)
    output().print(Text(odd))
    output().print(table((odd,), [(odd,)]))
    shown = capsys.readouterr().out.splitlines()
    for line in [*shown[:3], shown[-1]]:
        assert line.strip() == "group [/a] [red]x ·[2J ·31m ·"


def test_a_document_escapes_what_a_terminal_would_obey_and_holds_it_all_the_same():
    odd = {"x": "\x1b[2J \x7f \x9b31m \u202e Größe \U000e0001"}
    text = json_text(odd)
    assert text == r'{"x":"\u001b[2J \u007f \u009b31m \u202e Größe \udb40\udc01"}'
    assert json.loads(text) == odd
    assert json.loads(json_text([odd, odd], indent=2)) == [odd, odd]
