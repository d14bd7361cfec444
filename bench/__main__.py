"""`python -m bench`: how fast the worker is, compared with others in one run on one machine."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from confluent_kafka import KafkaException

from bench import backlog, batches, latency, peer, rates, recovery, report, shapes, steady
from bench.errors import BenchError, WrongResultError
from bench.peer import Peer
from bench.run import Bench, running_bench
from bench.screen import Screen
from worker.sandbox.servers import LocalServiceError

ROUNDS: Final = 5
QUICK_SCALE: Final = 0.25  # and one round: some two minutes for the rates, whose numbers mean nothing

HELP = """How fast the worker is, beside what a tutorial gives, what others reach, and the limit.

Servers of its own, durable ones. Every result is checked: it ends with 1 if one is wrong (never because it is
slow), and with 2 for wrong usage. Without a PART: rates.

    rates     orders a second: baselines, peers, one and two workers, COPY of the same rows
    shapes    skewed, hot, repeated and real orders; partitions and processes
    latency   from an order's time to its outcome, idle and at 10, 50 and 80 % of the peak
    steady    the same at 200 to 6,000 orders a second, for each --peer as well
    batches   what a batch of 1 to 1,000 orders costs, for each --peer as well
    backlog   rate and memory over 1,000,000 orders; the rate with 10,000,000 rows in the tables
    recovery  from start to first outcome, and back to the rate after a kill
    all       each of them, an hour or so

Examples:

    python -m bench

    python -m bench all --results bench/results

    python -m bench --quick                does it work? some minutes

    python -m bench rates --peer 'mine=./mine {orders} {bootstrap} {database} {placed} {outcomes}'

    ORDER_WORKER_BATCH_MAX_RECORDS=500 python -m bench shapes --rounds 3
"""


class Part(StrEnum):
    RATES = "rates"
    SHAPES = "shapes"
    LATENCY = "latency"
    STEADY = "steady"
    BATCHES = "batches"
    BACKLOG = "backlog"
    RECOVERY = "recovery"
    ALL = "all"


def run(
    parts: Annotated[list[Part] | None, typer.Argument(metavar="[PART]...", show_default=False)] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved; tables show medians.")] = ROUNDS,
    scale: Annotated[float, typer.Option(min=0.01, help="Times as many orders.")] = 1.0,
    peers: Annotated[list[str] | None, typer.Option("--peer", metavar="SPEC", help=peer.HELP)] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write tables and plots here too.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few orders, one round: a check.")] = False,
) -> None:
    asked = parts or [Part.RATES]
    others = [_peer(text) for text in peers or ()]
    if quick:
        rounds, scale = 1, QUICK_SCALE
    if results:
        results.mkdir(parents=True, exist_ok=True)
    screen = Screen()
    try:
        with running_bench(screen, rounds, scale) as bench:
            ground = [report.set_by_hand(), report.machine(bench.postgres_version)]
            for measure in _measures(asked, bench, others):
                section = measure()
                report.show(section)
                if results:
                    report.keep(section, ground, results)
            screen.say("\n".join(ground))
    except (BenchError, LocalServiceError, KafkaException) as error:
        wrong = "wrong result: " if isinstance(error, WrongResultError) else ""
        screen.say(f"[red]{wrong}{error}[/red]")
        raise typer.Exit(1) from None


def _measures(asked: list[Part], bench: Bench, others: list[Peer]) -> Iterator[Callable[[], report.Section]]:
    measures: dict[Part, list[Callable[[], report.Section]]] = {
        Part.RATES: [partial(rates.measure, bench, others)],
        Part.SHAPES: [partial(shapes.measure, bench)],
        Part.LATENCY: [partial(latency.measure, bench)],
        Part.STEADY: [partial(steady.measure, bench, others)],
        Part.BATCHES: [partial(batches.measure, bench, others)],
        Part.BACKLOG: [partial(backlog.measure_backlog, bench), partial(backlog.measure_tables, bench)],
        Part.RECOVERY: [partial(recovery.measure, bench)],
    }
    for part, its in measures.items():
        if part in asked or Part.ALL in asked:
            yield from its


def _peer(text: str) -> Peer:
    try:
        return peer.parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"--peer takes {error}") from None


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(run)
    app(prog_name="python -m bench")
