"""Shows the measurements: a table on the terminal and in Markdown, and a plot."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from bench import plot
from bench.drain import Drained
from worker.settings import Settings

# Neither addresses of servers, which the benchmark sets itself, nor secrets.
_TUNABLE: Final = [name for name in Settings.model_fields if name.endswith(("_ms", "_seconds", "_records"))]
_FILE_WIDTH: Final = 140  # a table is not to be folded where there is no terminal to measure
MIB: Final = 1024 * 1024
_GIB: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Columns:
    """A table's head and rows, ready to show; every column but the first is a number."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the benchmark. `name` is that of its files."""

    name: str
    title: str
    columns: Columns
    notes: Sequence[str]
    figure: plot.Bars | plot.Lines | None = None


def rates(results: Mapping[str, Sequence[Drained]]) -> Columns:
    """One row per name; the first one is what the others are multiples of."""
    first = next(iter(results))
    base = median(drained.orders_per_second for drained in results[first])
    return Columns(
        ("", "orders/s", "range", f"× {first}", "peak", "client", "Postgres", "Kafka", "other"),
        [_rate_row(name, drains, base) for name, drains in results.items()],
    )


def rounds(count: int) -> str:
    return f"{count} round{'' if count == 1 else 's'}"


def table(columns: Columns) -> Table:
    """For the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, padding=0)  # fits into 80 columns
    for number, name in enumerate(columns.head):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in columns.rows:
        shown.add_row(*row)
    return shown


def show(section: Section) -> None:
    """Print the table, never folded, with its title above and its notes below."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)
    console.print(f"\n{section.title}", style="bold", soft_wrap=True)
    console.print(table(section.columns))
    for note in section.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)


def keep(section: Section, notes: Sequence[str], folder: Path) -> None:
    """Write the table, and the plot where there is one, into the folder."""
    text = markdown(section.columns, section.title, [*section.notes, *notes])
    (folder / f"{section.name}.md").write_text(text, encoding="utf-8")
    if section.figure:
        plot.draw(section.figure, section.title, folder / f"{section.name}.svg")


def markdown(columns: Columns, title: str, notes: Sequence[str]) -> str:
    """The same as Markdown, aligned in its source too."""
    widths = [max(len(row[i]) for row in (columns.head, *columns.rows)) for i in range(len(columns.head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    body = [line(columns.head), f"| {' | '.join(rule)} |", *map(line, columns.rows)]
    return "\n".join([f"**{title}**", "", *body, "", *(f"- {note}" for note in notes)]) + "\n"


def machine(postgres: str) -> str:
    """What it ran on."""
    memory_gib = psutil.virtual_memory().total / _GIB
    return (
        f"{_cpu_name()}, {_cores()} cores for everything, {memory_gib:.0f} GiB,"
        f" {platform.system()} {platform.release()};"
        f" Python {platform.python_version()}, PostgreSQL {postgres}"
    )


def set_by_hand() -> str:
    """The worker's settings that the environment changes, so that a result shows them."""
    variables = sorted(f"ORDER_WORKER_{field.upper()}" for field in _TUNABLE)
    chosen = [f"{name}={os.environ[name]}" for name in variables if name in os.environ]
    return f"the worker's settings: {', '.join(chosen) or 'defaults'}"


def _rate_row(name: str, drains: Sequence[Drained], base: float) -> list[str]:
    rates = [drained.orders_per_second for drained in drains]
    peaks = [drained.peak_bytes for drained in drains if drained.peak_bytes]
    cores = [drained.cores for drained in drains if drained.cores]
    used = [(c.client, c.postgres, c.kafka, c.elsewhere) for c in cores]
    return [
        name,
        f"{median(rates):,.0f}",
        f"{min(rates):,.0f}–{max(rates):,.0f}",
        f"{median(rates) / base:.1f}",
        mib(max(peaks)) if peaks else "",
        *([f"{median(each):.2f}" for each in zip(*used, strict=True)] or [""] * 4),
    ]


def mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"


def _cores() -> int:
    # The cores that this process may use; in a container or under taskset it may be fewer than there are.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
