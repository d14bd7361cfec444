"""`python -m tests.faults`: tries to break every promise, and says whether it could."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.campaign import Run, run, template
from tests.faults.catalogue import FAULTS
from worker.local import LocalServiceError
from worker.local.services import NO_DOCKER_VARIABLE, Services, running_services

# What can tell the order of the commits to the sequential model.
_POSTGRES: Final = {"track_commit_timestamp": "on", "log_min_messages": "panic"}

HELP = """Tries to break every promise of the worker: real processes killed, servers crashed, connections cut.

Each run is one fault and one seed: a hostile workload is drained by two to four workers while the fault
strikes, and then everything is compared with what was placed and with a sequential model. Ends with 1 if a
promise broke.

Examples:

    python -m tests.faults                                  every fault, one seed each

    python -m tests.faults --faults kill,broker-crash --seeds 10 --orders 20000

    python -m tests.faults --faults kill --first-seed 7     one run again

    python -m tests.faults --report report.tsv              a line for each run
"""


def main(
    faults: Annotated[str, typer.Option(help="Comma separated, or all. --list shows them.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each fault.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The others follow it.")] = 1,
    orders: Annotated[int, typer.Option(min=100, help="Of each run.")] = 5_000,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="A tab-separated line a run.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the faults and end.")] = False,
) -> None:
    names = _names(faults)
    if list_:
        for name in names:
            typer.echo(f"{name:<30}{(FAULTS[name].__doc__ or '').strip().splitlines()[0]}")
        return
    os.environ[NO_DOCKER_VARIABLE] = "1"  # servers are to be killed and frozen as processes
    plan = [(name, seed) for seed in range(first_seed, first_seed + seeds) for name in names]
    console = Console(stderr=True, highlight=False)
    try:
        with running_services(announce=console.print, postgres_settings=_POSTGRES) as services:
            runs = _carry_out(plan, orders, services, console, report)
    except LocalServiceError as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    violated = sum(bool(one.violations) for one in runs)
    struck = sum(one.injected for one in runs)
    placed = sum(one.orders for one in runs)
    console.print(f"\n{len(runs)} runs, {placed:,} orders, {struck:,} blows: {violated} runs with violations")
    raise typer.Exit(1 if violated else 0)


def _carry_out(
    plan: Sequence[tuple[str, int]],
    orders: int,
    services: Services,
    console: Console,
    report: Path | None,
) -> list[Run]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=console, disable=not console.is_terminal)
    runs: list[Run] = []
    with template(services) as name, shown as progress:
        task = progress.add_task("", total=len(plan))
        for fault, seed in plan:
            progress.update(task, description=f"{fault} {seed}")
            one = run(services, name, fault, seed, orders)
            runs.append(one)
            progress.advance(task)
            _tell(one, console, report)
    return runs


def _tell(one: Run, console: Console, report: Path | None) -> None:
    what = (one.fault, one.seed, one.orders, one.injected, one.verdict, f"{one.seconds:.1f}", one.digest)
    fault, seed, orders, injected, verdict, seconds, digest = what
    line = f"{fault:<30}{seed:>4}{orders:>8,}{injected:>6} blows{seconds:>8} s  {digest}  {verdict}"
    console.print(line, markup=False, soft_wrap=True)
    for violation in one.violations:
        console.print(f"    {violation}", markup=False, soft_wrap=True)
    if report:
        with report.open("a", encoding="utf-8") as file:
            file.write("\t".join(map(str, what)) + "\n")


def _names(faults: str) -> list[str]:
    if faults == "all":
        return list(FAULTS)
    names = faults.split(",")
    unknown = [name for name in names if name not in FAULTS]
    if unknown or max(Counter(names).values()) > 1:
        raise typer.BadParameter(
            f"--faults takes different names of --list; unknown: {', '.join(unknown) or 'none'}"
        )
    return names


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(main)
    app(prog_name="python -m tests.faults")
