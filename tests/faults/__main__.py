"""`python -m tests.faults`: tries to break every promise, and says whether it could."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.campaign import Run, carry_out
from tests.faults.catalogue import FAULTS, SHORT
from worker.sandbox.servers import LocalServiceError

HELP = """Tries to break every promise of the worker: real processes killed, servers crashed, connections cut.

Each run is one fault and one seed: a hostile workload is drained by two to four workers while the fault
strikes, and then everything is compared with what was placed and with a sequential model. Ends with 1 if a
promise broke.

Examples:

    python -m tests.faults                                  every fault, one seed each

    python -m tests.faults --faults short --seeds 3         what CI runs

    python -m tests.faults --faults kill,broker-crash --seeds 10 --orders 20000

    python -m tests.faults --faults kill --first-seed 7     one run again

    python -m tests.faults --report report.tsv              a line for each run
"""
_SHOWN: Final = 20  # violations of a run: what follows is mostly their consequence
_COLUMNS: Final = ("fault", "seed", "orders", "injected", "verdict", "seconds", "log digest")


def main(
    faults: Annotated[str, typer.Option(help="Comma separated, or all, or short.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each fault.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The others follow it.")] = 1,
    orders: Annotated[int, typer.Option(min=100, help="Of each run.")] = 5_000,
    minutes: Annotated[float, typer.Option(min=0.0, help="Begin no run after so many.")] = 600.0,
    lanes: Annotated[int, typer.Option(min=1, help="Runs at a time, each lane on servers of its own.")] = 1,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A tab-separated line a run.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the faults and end.")] = False,
) -> None:
    console = Console(stderr=True, highlight=False)
    names = _names(faults)
    if list_:
        for name in names:
            typer.echo(f"{name:<32}{FAULTS[name].summary}")
        return
    if barred := [name for name in names if FAULTS[name].needs_root and os.geteuid() != 0]:
        console.print(f"left out, as only root may do it: {', '.join(barred)}")
        names = [name for name in names if name not in barred]
    if report and not report.exists():
        report.write_text("\t".join(_COLUMNS) + "\n", encoding="utf-8")
    plan = [(name, seed) for seed in range(first_seed, first_seed + seeds) for name in names]
    console.print(f"{len(plan)} runs of {orders:,} orders; Kafka and PostgreSQL as local processes")
    try:
        runs = _carry_out(plan, orders, lanes, minutes, console, report)
    except LocalServiceError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    violated = sum(bool(one.violations) for one in runs)
    injected = sum(one.injected for one in runs)
    placed = sum(one.orders for one in runs)
    left_out = f" ({len(plan) - len(runs)} left out, the time is up)" if len(runs) < len(plan) else ""
    console.print(
        f"\n{len(runs)} runs{left_out}, {placed:,} orders, {injected:,} faults injected:"
        f" {violated} runs with violations"
    )
    raise typer.Exit(1 if violated or not runs else 0)


def _carry_out(
    plan: Sequence[tuple[str, int]],
    orders: int,
    lanes: int,
    minutes: float,
    console: Console,
    report: Path | None,
) -> list[Run]:
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    runs: list[Run] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(plan))
        for one in carry_out(plan, orders, lanes, minutes):
            runs.append(one)
            progress.advance(task)
            _print(one, console, report)
    return runs


def _print(one: Run, console: Console, report: Path | None) -> None:
    what = (one.fault, one.seed, one.orders, one.injected, one.verdict, f"{one.seconds:.1f}", one.digest)
    fault, seed, orders, injected, verdict, seconds, digest = what
    line = f"{fault:<32}{seed:>4}{orders:>8,}{injected:>6} faults{seconds:>8} s  {digest}  {verdict}"
    console.print(line, markup=False, soft_wrap=True)
    for violation in one.violations[:_SHOWN]:
        console.print(f"    {violation}", markup=False, soft_wrap=True)
    if len(one.violations) > _SHOWN:
        console.print(f"    and {len(one.violations) - _SHOWN} more")
    if report:
        with report.open("a", encoding="utf-8") as file:
            file.write("\t".join(map(str, what)) + "\n")


def _names(faults: str) -> list[str]:
    groups = {"all": list(FAULTS), "short": list(SHORT)}
    names = list(dict.fromkeys(n for part in faults.split(",") for n in groups.get(part, [part])))
    if unknown := [name for name in names if name not in FAULTS]:
        raise typer.BadParameter(f"no such fault: {', '.join(unknown)}; --list shows them")
    return names


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(main)
    app(prog_name="python -m tests.faults")
