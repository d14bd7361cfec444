"""`python -m bench`: how fast the worker drains a backlog, beside what a tutorial gives."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from confluent_kafka import KafkaException

from bench import report
from bench.contenders import Contender, baseline, worker
from bench.drain import Drained, Servers, drain
from bench.errors import BenchError, WrongResultError
from bench.kafka import Cluster
from bench.screen import Screen
from bench.shop import Shops
from bench.workload import Workload
from worker.local import LocalServiceError, Services, running_services
from worker.local.services import NO_DOCKER_VARIABLE

PARTITIONS: Final = 4
ORDERS: Final = 60_000
BACKLOG_ORDERS: Final = 300_000
BASELINE_ORDERS: Final = 1_000
ROUNDS: Final = 3
QUICK: Final = (6_000, 200, 1)  # orders, baseline orders, rounds: about a minute
_LEGEND: Final = (
    "ratio: to the baseline; peak: VmHWM of the largest process; client, Postgres, Kafka, other: CPU in cores"
)
MEMORY_AT: Final = (0.1, 0.5, 1.0)

HELP = """How fast the worker drains a backlog, beside what a tutorial gives, on servers of its own.

Checks every result and ends with 1 if one is wrong (never because it is slow), 2 for wrong usage.

Examples:

    python -m bench                    the whole table, some minutes

    python -m bench --quick            does it work? about a minute

    python -m bench --rounds 5 --processes 1,2,4

    python -m bench --markdown bench/results.md

    python -m bench --backlog-memory   memory while 300,000 orders wait

    ORDER_WORKER_BATCH_MAX_RECORDS=500 python -m bench --processes 1
"""


def run(
    orders: Annotated[
        int | None,
        typer.Option(min=1, help=f"For the worker.  [default: {ORDERS:,}; {BACKLOG_ORDERS:,} for memory]"),
    ] = None,
    baseline_orders: Annotated[
        int | None, typer.Option(min=1, help=f"For the baseline.  [default: {BASELINE_ORDERS:,}]")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Interleaved; the table shows medians.  [default: {ROUNDS}]")
    ] = None,
    processes: Annotated[str, typer.Option(help="Numbers of worker processes, comma separated.")] = "1,2",
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write the table here too.")
    ] = None,
    backlog_memory: Annotated[
        bool, typer.Option("--backlog-memory", help="Show memory at 10, 50 and 100 % of a large backlog.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few orders, one round: a check.")] = False,
) -> None:
    screen = Screen()
    counts = _process_counts(processes)
    defaults = QUICK if quick else (BACKLOG_ORDERS if backlog_memory else ORDERS, BASELINE_ORDERS, ROUNDS)
    if markdown:
        report.require_writable(markdown)
    workload = Workload(orders or defaults[0])
    try:
        with _servers(screen) as (servers, postgres_version):
            if backlog_memory:
                title, columns, notes = _memory(servers, screen, worker(counts[0]), workload)
            else:
                entries = {baseline(): Workload(baseline_orders or defaults[1])}
                entries |= {worker(count): workload for count in counts}
                title, columns, notes = _rates(servers, screen, entries, rounds or defaults[2])
    except (BenchError, LocalServiceError, KafkaException) as error:
        wrong = "wrong result: " if isinstance(error, WrongResultError) else ""
        screen.say(f"[red]{wrong}{error}[/red]")
        raise typer.Exit(1) from None
    notes = [*notes, report.set_by_hand(), report.machine(postgres_version)]
    report.show(title, columns, notes)
    if markdown:
        markdown.write_text(report.markdown(columns, title, notes), encoding="utf-8")


def _rates(
    servers: Servers, screen: Screen, entries: Mapping[Contender, Workload], rounds: int
) -> tuple[str, report.Columns, list[str]]:
    results: dict[Contender, list[Drained]] = {contender: [] for contender in entries}
    for number in range(rounds):
        for contender in _turned(list(entries), number):
            drained = _drain(servers, screen, contender, entries[contender])
            results[contender].append(drained)
            rate = f"{drained.orders_per_second:>8,.0f} orders/s, result right"
            screen.say(f"round {number + 1} of {rounds}  {contender.name:<10} {rate}")
    title = f"Backlog drain, end to end, medians of {rounds} round{'' if rounds == 1 else 's'}"
    return (
        title,
        report.rates(results),
        [_sizes(entries), _LEGEND],
    )


def _memory(
    servers: Servers, screen: Screen, contender: Contender, workload: Workload
) -> tuple[str, report.Columns, list[str]]:
    drained = _drain(servers, screen, contender, workload, MEMORY_AT)
    title = f"Memory of the largest process while a backlog of {workload.count:,} orders is drained"
    rate = f"{drained.orders_per_second:,.0f} orders/s"
    note = f"{contender.name}; {PARTITIONS} partitions; {rate}; result right"
    return title, report.memory(drained.memory), [note]


def _drain(
    servers: Servers,
    screen: Screen,
    contender: Contender,
    workload: Workload,
    memory_at: Sequence[float] = (),
) -> Drained:
    with screen.bars(contender.name, workload.count) as (filled, decided):
        return drain(servers, contender, workload, filled=filled, decided=decided, memory_at=memory_at)


def _turned(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Each round begins with another contender, so that nobody is always the one who comes after whom."""
    start = number % len(contenders)
    return [*contenders[start:], *contenders[:start]]


@contextmanager
def _servers(screen: Screen) -> Iterator[tuple[Servers, str]]:
    """Servers of our own as local processes, never in Docker: what they use of the CPU is to be seen."""
    os.environ[NO_DOCKER_VARIABLE] = "1"
    with running_services(announce=screen.say) as services:
        shops = Shops(services.database_url)
        version = shops.prepare()
        cluster = Cluster(services.kafka_bootstrap_servers, PARTITIONS)
        postgres_pid, kafka_pid = _pids(services)
        yield Servers(cluster, shops, postgres_pid, kafka_pid), version


def _pids(services: Services) -> tuple[int, int]:
    pids = [getattr(server, "pid", None) for server in (services.postgres, services.kafka)]
    if not all(pids):
        raise BenchError("the servers are no processes of ours")
    return int(pids[0] or 0), int(pids[1] or 0)


def _sizes(entries: Mapping[Contender, Workload]) -> str:
    sizes = ", ".join(f"{contender.name} {workload.count:,}" for contender, workload in entries.items())
    return f"orders: {sizes}; 1 to 5 items of 5,000 products, 10,000 users, {PARTITIONS} partitions"


def _process_counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or not all(1 <= count <= PARTITIONS for count in counts) or len(set(counts)) < len(counts):
        raise typer.BadParameter(
            f"--processes takes different numbers from 1 to {PARTITIONS} (the partitions), like 1,2"
        )
    return counts


if __name__ == "__main__":
    run.__doc__ = HELP
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(run)
    app(prog_name="python -m bench")
