"""What a command shows: tables that align, one JSON document for scripts, progress with rate and time left.

Results go to standard output, everything else to standard error, so that a script may read the one and a
person the other.
"""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Final

from pydantic_core import to_json, to_jsonable_python
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from worker import DOCUMENT_VERSION
from worker.standard_streams import visible

# Output into a pipe or a file is neither cut nor folded; rich would assume 80 columns.
_PIPE_COLUMNS: Final = 1_000


class _Output(Console):
    """Nothing in a text is markup, or something that a terminal would obey."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(highlight=False, emoji=False, markup=False, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, but="\n"))


def output() -> Console:
    """Standard output: as wide as the terminal, or as wide as it takes."""
    console = _Output()
    return console if console.is_terminal else _Output(_PIPE_COLUMNS)


def print_json(value: object) -> None:
    """One JSON document of dataclasses, times (RFC 3339), UUIDs and money (strings), for scripts."""
    print(json_text(versioned(value), indent=2))  # noqa: T201 (this is the one place that prints)


def print_json_line(value: object) -> None:
    """As `print_json`, on one line and at once: a script reads such lines while they come."""
    print(json_text(versioned(value)), flush=True)  # noqa: T201


def json_text(value: object, indent: int | None = None) -> str:
    """As JSON. What cannot be seen, or what a terminal would obey, is escaped in it."""
    text = to_json(value, indent=indent, by_alias=True).decode()
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def versioned(value: object) -> object:
    """As JSON holds it, each document with its `version`; a list has none, so its entries are documents."""
    plain = to_jsonable_python(value, by_alias=True)
    if isinstance(plain, list):
        return [versioned(entry) for entry in plain]
    return {"version": DOCUMENT_VERSION, **plain} if isinstance(plain, dict) else plain


class JsonStream:
    """One JSON document whose first field is a list that memory could not hold: written as it comes.

    Nothing is written before the first item, or the end: whatever fails before leaves no half document.
    """

    def __init__(self, name: str) -> None:
        self._before = f'{{"version": {DOCUMENT_VERSION}, "{name}": [\n'
        self._pending = False

    def add(self, item: object) -> None:
        print(self._before + json_text(item), end="")  # noqa: T201
        self._before, self._pending = ",\n", True

    def end(self, name: str, value: object) -> None:
        """Close the list, and the document with one field more."""
        before = "\n" if self._pending else self._before
        print(f'{before}], "{name}": {json_text(value)}}}')  # noqa: T201


class FittingTable:
    """Columns that align, or where the terminal is too narrow for the longest words of them, a block a row.

    So no id is ever broken, and all can be copied.
    """

    def __init__(
        self, head: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str], ruled: bool
    ) -> None:
        self._head, self._numbers = head, numbers
        self._lines: box.Box | None = box.SIMPLE_HEAD if ruled else None
        self._between = 3 if ruled else 2
        self._rows = [[shown(cell) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(zip_longest(self._head, *self._rows, fillvalue=""))
        natural = [max(1, *map(cell_len, column)) for column in columns]
        words = [[word for cell in column for word in cell.split()] for column in columns]
        least = [max(map(cell_len, of_column), default=1) for of_column in words]
        widths = fitting_widths(natural, least, options.max_width - self._between * (len(columns) - 1))
        if widths:
            yield _grid(self._head, self._rows, self._numbers, widths, self._lines)
        else:
            yield from _blocks(self._head, self._rows)


def fitting_widths(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """The widths of columns that fit into the room, the widest narrowed first; none if they cannot."""
    if sum(least) > room:
        return []
    widths = list(natural)
    while sum(widths) > room:
        _, widest = max((width, n) for n, width in enumerate(widths) if width > least[n])
        widths[widest] -= 1
    return widths


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Sequence[str] = (),
    ruled: bool = True,
) -> FittingTable:
    """A table, the `numbers` to the right. Text is shown as it is: nothing in it is markup.

    `ruled`: with a line below the head.
    """
    return FittingTable(head, list(rows), numbers, ruled)


def _blocks(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
    """A row each: name and value of a column on a line."""
    for number, row in enumerate(rows):
        block = Table.grid(padding=(0, 2))
        block.add_column(style="bold", no_wrap=True)
        block.add_column(overflow="fold")
        for name, cell in zip(head, row, strict=False):
            if cell:
                block.add_row(Text(name), Text(cell))
        yield from ([Text()] if number else [])
        yield block


def _grid(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[str],
    widths: Sequence[int],
    lines: box.Box | None,
) -> Table:
    grid = Table(box=lines, pad_edge=False, header_style="bold", show_edge=False)
    for name, width in zip(head, widths, strict=True):
        grid.add_column(name, justify="right" if name in numbers else "left", overflow="fold", width=width)
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def shown(value: object) -> str:
    """As a person reads it: 1,000 with its comma, times in UTC, None as a dash, no control characters."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    return visible(str(value))


def command_line(*words: str) -> str:
    """The call that does what a dry run has shown: to be copied, so it is never folded."""
    return shlex.join(["order-worker", *words, "--execute"])


def repeated_command_line(*flags: str) -> str:
    """As `command_line`, of what was typed, whatever the options are, and these flags."""
    return command_line(*sys.argv[1:], *flags)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar on its way."""

    progress: Progress
    task: TaskID

    def advance(self, steps: int = 1) -> None:
        self.progress.advance(self.task, steps)

    def to(self, done: int) -> None:
        self.progress.update(self.task, completed=done)

    def describe(self, what: str) -> None:
        """What is being done from now on; shown at once."""
        self.progress.update(self.task, description=what, refresh=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:,.0f} of {task.total or 0:,.0f}")


def say(sentence: str) -> None:
    """What is being done, for somebody who looks on: nothing where standard error is no terminal."""
    console = Console(stderr=True, highlight=False, emoji=False)
    if console.is_terminal:
        console.print(sentence, markup=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Bar]:
    """A bar on standard error with count, rate and time left; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Done(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = quiet or not console.is_terminal
    shown_progress = Progress(
        *columns,
        console=console,
        disable=hidden,
        transient=True,
        # In a terminal, lines that are printed meanwhile go above the bar. rich would do so in a pipe as
        # well, where they belong into the pipe and not to standard error.
        redirect_stdout=sys.stdout.isatty(),
    )
    with shown_progress:
        yield Bar(shown_progress, shown_progress.add_task(what, total=total))
