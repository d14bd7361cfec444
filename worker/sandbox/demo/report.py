"""What the demo proves: checks on what was placed, seen and stored, and the tables at the end. Pure."""

import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from worker.sandbox.demo.checks import Check, DemoRun, Kill
from worker.sandbox.demo.feed import RecordKind
from worker.sandbox.demo.retailer import LeftOut


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the record's CreateTime to the moment the subscriber had its outcome."""

    orders: int
    median_ms: int
    p99_ms: int
    longest_ms: int


def latency(run: DemoRun, *, before_ms: int | None = None) -> Latency | None:
    """Over all orders, or over those placed before the given time."""
    placed: dict[str, int] = {}
    for one in run.placed:
        if one.placement.kind is RecordKind.ORDER:
            placed[one.placement.key.decode()] = one.placed_ms
    took = sorted(
        seen[0].seen_ms - placed[order_id]
        for order_id, seen in run.tally.outcomes.items()
        if order_id in placed and (before_ms is None or placed[order_id] < before_ms)
    )
    if not took:
        return None
    return Latency(len(took), took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)], took[-1])


def print_report(console: Console, run: DemoRun, results: Sequence[Check], *, seconds_in_all: float) -> None:
    """The whole report; the checks come last but one, because they are the point of it."""
    console.print()
    console.rule(Text("What happened", style="bold"), align="left")
    console.print(_numbers(run))
    console.print(_kill(run.kill), highlight=False)
    console.print()
    console.rule(Text("Does it hold?", style="bold"), align="left")
    console.print(_check_table(results))
    failed = sum(not check.held for check in results)
    verdict = (
        Text(f"{failed} of {len(results)} checks FAILED", style="bold red")
        if failed
        else Text(f"All {len(results)} checks hold", style="bold green")
    )
    console.print(Padding(verdict + Text(f" · {seconds_in_all:.0f} s in all", style="default"), (1, 1)))


def _numbers(run: DemoRun) -> RenderableType:
    left_out = run.retailer.left_out
    kinds = Counter(p.placement.kind for p in run.placed)
    counts = run.tally.counts
    rows: list[tuple[str, int, str]] = [
        ("orders placed", kinds[RecordKind.ORDER], f"{run.retailer.lines:,} lines, {_rate(run)}"),
        ("confirmed", counts["confirmed"], _share(counts["confirmed"], kinds[RecordKind.ORDER])),
        ("rejected", counts["rejected"], _reasons(run.tally.reasons)),
        ("sent twice", kinds[RecordKind.DUPLICATE], "no second effect"),
        ("dead letters", len(run.tally.letters), _listed(run.tally.codes)),
        ("left out", left_out.cancellations, f"cancellations, of {left_out.cancelled_lines:,} lines"),
        (
            "",
            left_out.unpriced_lines,
            f"lines without a price ({left_out.empty_invoices:,} invoices had no other)",
        ),
        *_rarely_left_out(left_out),
    ]
    table = Table.grid(padding=(0, 2, 0, 1))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="bright_black", overflow="fold")
    for name, number, note in rows:
        table.add_row(name, f"{number:,}", note)
    return Group(Padding(table, (1, 0, 0, 0)), _latencies(run))


def _rarely_left_out(left_out: LeftOut) -> list[tuple[str, int, str]]:
    """Rules that this part of the data never needs are shown only if they were."""
    rows = [
        ("", left_out.uncountable_lines, "lines of a quantity that no order may have"),
        (
            "",
            left_out.too_long_invoices,
            f"invoices too long for an order, of {left_out.too_long_lines:,} lines",
        ),
    ]
    return [row for row in rows if row[1]]


def _rate(run: DemoRun) -> str:
    return f"in {run.seconds:.1f} s" if run.seconds else ""


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % of the orders" if whole else ""


def _reasons(reasons: Mapping[str, int]) -> str:
    return _listed(reasons) + (" (an order may have both)" if len(reasons) > 1 else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _latencies(run: DemoRun) -> RenderableType:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 1))
    table.add_column("placed → visible, in ms", style="")
    for name in ("orders", "median", "p99", "longest"):
        table.add_column(name, justify="right", style="bold")
    rows = (("before the kill", latency(run, before_ms=run.kill.killed_ms)), ("the whole run", latency(run)))
    for name, found in rows:
        if found:
            numbers = (found.orders, found.median_ms, found.p99_ms, found.longest_ms)
            table.add_row(name, *(f"{number:,}" for number in numbers))
    measured = (
        "From the record's CreateTime to the moment a read_committed subscriber had the outcome in hand."
    )
    return Group(table, Text(f" {measured}", style="bright_black"))


def _kill(kill: Kill) -> RenderableType:
    owned = ", ".join(map(str, kill.partitions)) or "no partition"
    lines = [
        f"{kill.worker.capitalize()} was killed with SIGKILL after {kill.killed_at:.1f} s;"
        f" it held partitions {owned}."
    ]
    if kill.took_over_after is None:
        lines.append("Nobody took them over.")
    else:
        lines.append(
            f"{kill.took_over_after:.1f} s later the other worker had taken over and decided their orders"
            f" (Kafka waits {kill.session_timeout_ms / 1000:g} s for a heartbeat)."
        )
    if kill.redelivered:
        lines.append(
            f"{kill.redelivered:,} orders it had decided but not published were published from the ledger."
        )
    else:
        lines.append("No order was between its decision and its publication at that moment.")
    if kill.back_after is not None:
        lines.append(f"Started again, it had partitions {kill.back_after:.1f} s after its start.")
    return Padding(Text("\n".join(lines)), (1, 1, 0, 1))


def _check_table(results: Sequence[Check]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 1))
    table.add_column()
    table.add_column(style="bold")
    table.add_column(style="bright_black", overflow="fold")
    for check in results:
        sign = Text("✓ ok", style="bold green") if check.held else Text("✗ FAILED", style="bold red")
        table.add_row(sign, check.name, check.detail)
    return Padding(table, (1, 0, 0, 0))


PROGRAM: Final = "order-worker"
NEXT: Final = (
    (
        f"{PROGRAM} demo --keep",
        "or make demo KEEP=1: leaves all of it up, with the operator's page to open in a browser",
    ),
    (f"{PROGRAM} --help", "every command, each with an example"),
    ("docs/README.md", "a page for each audience: guarantees, tutorial, running, operating"),
)


def program_here() -> str:
    """What to type for `order-worker` in this folder: `make demo` has put it where no shell looks."""
    if shutil.which(PROGRAM):
        return PROGRAM
    return shlex.quote(os.path.relpath(Path(sys.executable).with_name(PROGRAM)))


def print_next(console: Console, *, program: str = PROGRAM) -> None:
    """Where to look next. `program`: what to type for `order-worker`."""
    console.rule(Text("Where to look next", style="bold"), align="left")
    table = Table.grid(padding=(0, 2, 0, 1))
    for what, why in NEXT:
        table.add_row(Text(what.replace(PROGRAM, program), style="cyan"), Text(why, style="bright_black"))
    console.print(Padding(table, (1, 0)))


def print_kept(
    console: Console,
    *,
    kafka: str,
    database: str,
    workers: Mapping[str, str],
    exports: Mapping[str, str],
    is_given: bool,
    program: str = PROGRAM,
) -> None:
    """What is still running and how to use it. Lines to copy are never wrapped."""
    console.rule(Text("Still running", style="bold"), align="left")
    table = Table.grid(padding=(0, 2, 0, 1))
    if page := next((url for url in workers.values() if url), ""):
        table.add_row("The operator's page", Text(f"{page}/", style="bold cyan"))
        table.add_row("", Text("Open it in a browser: lag and rates, rejections, dead letters, any order."))
    table.add_row("Kafka", Text(kafka, style="cyan"))
    table.add_row("PostgreSQL", Text(database, style="cyan"))
    for name, url in workers.items():
        table.add_row(name, Text(f"{url}/docs   {url}/metrics   {url}/readyz", style="cyan"))
    console.print(Padding(table, (1, 0)))
    console.print(Text(" In another terminal" + (", beside your two URLs:" if is_given else ":")))
    for name, value in exports.items():
        console.print(Text(f"export {name}={shlex.quote(value)}", style="cyan"), soft_wrap=True)
    console.print(Text(f"{program} place --random 1000 --duplicates 0.02", style="cyan"), soft_wrap=True)
    console.print(Padding(Text("Ctrl-C stops it all and leaves nothing behind.", style="bold"), (1, 1)))
