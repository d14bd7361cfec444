"""`python -m tests.faults.soak`: steady load and steady faults for long, and every order judged."""

import logging
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.faults.arena import SETTINGS, arena
from tests.faults.site import Site, running_site
from tests.faults.soak.feed import MOST_ORDERS, STOCK, USERS, Feeder, Stream
from tests.faults.soak.run import Soak
from tests.faults.soak.verdict import find_violations
from tests.faults.soak.watch import MB, Sample, Sampler, Watch, picture, slope_per_hour
from tests.faults.workload import Workload
from worker.sandbox.servers import LocalServiceError

PARTITIONS: Final = 4
SAMPLE_SECONDS: Final = 5.0
# On disk: 1.6 KB in PostgreSQL, 0.9 KB in Kafka; the rest is for the WAL and for the sort of the verdict.
BYTES_AN_ORDER: Final = 4_096

_LINE_SECONDS: Final = 20.0  # between two lines where there is no terminal
# Large batches take longer than the campaign's small ones.
_SETTINGS: Final = {**SETTINGS, "batch_max_records": "2000", "lock_timeout_ms": "3000"}

HELP = """A long run: a steady stream of orders at half of the peak, a fault now and then, and a verdict.

Two workers with batches of the default size, on servers of their own. One of them, the spared worker, is
never killed: its memory is watched. Every order is judged at the end. Ends with 1 if a promise broke. Ctrl-C
ends the feeding early, and what was placed is judged all the same.

Examples:

    python -m tests.faults.soak --minutes 60 --every-seconds 20

    python -m tests.faults.soak --minutes 3 --rate 2000 --report /tmp/soak    soak.tsv, soak.svg, the logs
"""


def main(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Of feeding; the peak and the verdict add to it.")
    ] = 60,
    every_seconds: Annotated[float, typer.Option(min=1, help="From fault to fault.")] = 20,
    rate: Annotated[
        float | None, typer.Option(min=1, help="Orders a second. Without: half of the peak.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the orders and of the order of the faults.")] = 1,
    report: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Without: a new one.")] = None,
) -> None:
    console = Console(stderr=True, highlight=False)
    folder = report or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with running_site(report=console.print) as site:
            violations = soak(site, minutes * 60, every_seconds, rate, seed, folder, console)
    except (LocalServiceError, NotEnoughDiskError) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    for violation in violations:
        console.print(f"    {violation}", markup=False, soft_wrap=True)
    console.print(f"{len(violations)} violations; the report is in {folder}", soft_wrap=True)
    raise typer.Exit(1 if violations else 0)


class NotEnoughDiskError(Exception):
    """The orders of the whole run would not fit on the disk."""


def soak(
    site: Site,
    seconds: float,
    every: float,
    rate: float | None,
    seed: int,
    folder: Path,
    console: Console,
) -> list[str]:
    """Every violation of one soak. The folder gets the table, the picture and the workers' logs."""
    stream, watch = Stream(seed, PARTITIONS), Watch()
    workload = Workload(STOCK, USERS, [])
    with arena(site, workload, seed=seed, partitions=PARTITIONS, folder=folder) as there:
        there.size = 2
        there.settings = dict(_SETTINGS)
        feeder = Feeder(stream, there.scene.kafka, there.scene.topics.order_placed)
        with watch.over(there.scene, PARTITIONS), ended_by_ctrl_c() as ended:
            require_disk((rate or 0) * seconds)
            run = Soak(there, feeder, watch, ended)
            if rate is None:
                peak = run.peak()
                rate = peak / 2
                console.print(f"peak {peak:,.0f} orders/s")
            orders = require_disk(rate * seconds)
            console.print(f"feeding {rate:,.0f} orders/s: {orders:,.0f} orders, some {_gb(orders)} on disk")
            sampler = Sampler(folder / "soak.tsv", run.sample, SAMPLE_SECONDS)
            run.start(rate)
            with sampler.running(), screen(console, run, seconds) as report:
                run.strike_until(seconds, every, Random(f"soak {seed}"), report)
                feeder.end()
                run.drain(report)
            violations = run.violations + _judged(run, stream, console)
        (folder / "soak.svg").write_text(picture(sampler.samples), encoding="utf-8")
        console.print(_memory(sampler.samples))
        return violations


def require_disk(orders: float) -> float:
    """The number of orders, if they fit on the servers' disk and the stock lasts for them."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if orders * BYTES_AN_ORDER > free * 0.9:
        raise NotEnoughDiskError(
            f"{orders:,.0f} orders take some {_gb(orders)} in {tempfile.gettempdir()}, where"
            f" {free / 1e9:,.0f} GB are free: give fewer --minutes, a lower --rate, or another TMPDIR"
        )
    if orders > 0.9 * MOST_ORDERS:
        raise NotEnoughDiskError(f"{orders:,.0f} orders are more than the {MOST_ORDERS:,} there is stock for")
    return orders


@contextmanager
def ended_by_ctrl_c() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that no fault is left half done; the second one interrupts."""
    ended = threading.Event()

    def end(*_: Any) -> None:
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def screen(console: Console, run: Soak, seconds: float) -> Iterator[Callable[[], None]]:
    """Shows the progress when it is called: a bar in a terminal, else a line now and then."""
    columns = (BarColumn(20), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    due = [0.0]
    with bar:
        task = bar.add_task("", total=seconds)

        def report() -> None:
            bar.update(task, completed=min(run.seconds, seconds), description=run.line())
            if not console.is_terminal and time.monotonic() >= due[0]:
                due[0] = time.monotonic() + _LINE_SECONDS
                left = max(0.0, seconds - run.seconds)
                console.print(f"{left:5.0f} s left  {run.line()}", soft_wrap=True)

        yield report


def _judged(run: Soak, stream: Stream, console: Console) -> list[str]:
    placed, began = run.feeder.placed, time.monotonic()
    violations = find_violations(run.there, stream, placed, lambda: run.watch.published, console.print)
    took = time.monotonic() - began
    million = took / placed * 1e6
    console.print(
        f"{placed:,} orders judged in {took:.0f} s ({million:.0f} s a million), {len(run.struck)} faults"
    )
    return violations


def _memory(samples: list[Sample]) -> str:
    points = [(s.seconds, s.spared_bytes / MB) for s in samples if s.spared_bytes]
    highest = max((mb for _, mb in points), default=0.0)
    return f"memory of the spared worker: {slope_per_hour(points):+.1f} MB an hour, {highest:.0f} MB at most"


def _gb(orders: float) -> str:
    return f"{orders * BYTES_AN_ORDER / 1e9:,.1f} GB"


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(main)
    app(prog_name="python -m tests.faults.soak")
