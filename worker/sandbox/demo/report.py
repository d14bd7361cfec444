"""What the demo proves: checks on what was placed, seen and stored, and the tables at the end. Pure."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contracts.envelope import event_id
from contracts.events import OrderPlaced
from worker.sandbox.demo.evidence import DemoEvidence
from worker.sandbox.demo.feed import PlacedRecord, RecordKind
from worker.sandbox.demo.retailer import LeftOut, Retailer
from worker.sandbox.demo.watch import SeenLetter, TopicTally

Source = tuple[int, int]  # partition and offset in the input topic


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, whether it held, and by what it is shown."""

    name: str
    held: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Kill:
    """What was done to a worker and what came of it; seconds after the first order, None: never."""

    worker: str
    partitions: tuple[int, ...]
    killed_at: float
    killed_ms: int
    session_timeout_ms: int
    took_over_after: float | None = None
    back_after: float | None = None
    redelivered: int = 0


@dataclass(frozen=True, slots=True)
class DemoRun:
    """All that happened: the source of checks and report."""

    retailer: Retailer
    placed: Sequence[PlacedRecord]
    due: int  # records that were to be placed
    tally: TopicTally
    evidence: DemoEvidence
    lag: int | None
    read_to_the_end: bool
    kill: Kill
    alive: Mapping[str, bool]  # at the end, by worker
    seconds: float  # from the first order to the last outcome


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the record's CreateTime to the moment the subscriber had its outcome."""

    orders: int
    median_ms: int
    p99_ms: int
    longest_ms: int


def checks(run: DemoRun) -> list[Check]:
    """Every promise of the worker that can be seen from outside."""
    return [
        _everything_read(run),
        _one_fate_each(run),
        _decided_once(run),
        _told_once(run),
        _dead_letters(run),
        _stock_conserved(run),
        _orders_stored(run),
        _worker_back(run),
    ]


def _everything_read(run: DemoRun) -> Check:
    held = run.lag == 0 and run.read_to_the_end and len(run.placed) == run.due
    lag = "unknown" if run.lag is None else f"{run.lag:,}"
    return Check(
        "Every record is read",
        held,
        f"{len(run.placed):,} of {run.due:,} records placed, lag at the end {lag}",
    )


def _one_fate_each(run: DemoRun) -> Check:
    decided, letters, duplicates, silent = fates(run)
    count = len(decided) + len(letters) + len(duplicates)
    return Check(
        "Every record has one fate",
        not silent and not decided & letters and count == len(run.placed),
        f"{len(run.placed):,} = {len(decided):,} decided + {len(duplicates):,} duplicates"
        f" + {len(letters):,} dead letters" + (f"; {len(silent):,} without any" if silent else ""),
    )


def fates(run: DemoRun) -> tuple[set[Source], set[Source], set[Source], set[Source]]:
    """The input records that were decided, dead-lettered, repeats of a decided order, and none of these."""
    fingerprints = {str(row.order_id).encode(): row.fingerprint for row in run.evidence.ledger}
    placed = {(p.partition, p.offset): p for p in run.placed}
    decided = {(row.partition, row.offset) for row in run.evidence.ledger} & placed.keys()
    letters = {(letter.partition, letter.offset) for letter in run.tally.letters} & placed.keys()
    rest = placed.keys() - decided - letters
    duplicates = {source for source in rest if _repeats(placed[source], fingerprints)}
    return decided, letters, duplicates, rest - duplicates


def _repeats(placed: PlacedRecord, fingerprints: Mapping[bytes, bytes]) -> bool:
    value, known = placed.placement.value, fingerprints.get(placed.placement.key)
    if known is None or value is None:
        return False
    try:
        return OrderPlaced.model_validate_json(value).fingerprint() == known
    except ValueError:
        return False


def _decided_once(run: DemoRun) -> Check:
    wanted = {invoice.order_id for invoice in run.retailer.invoices}
    decided = Counter(row.order_id for row in run.evidence.ledger)
    held = decided.keys() == wanted and max(decided.values(), default=0) == 1
    return Check("Every order decided once", held, f"{len(wanted):,} orders, {decided.total():,} decisions")


def _told_once(run: DemoRun) -> Check:
    ledger = {str(row.order_id): row for row in run.evidence.ledger}
    seen = run.tally.outcomes
    wrong = [
        order_id
        for order_id in ledger.keys() | seen.keys()
        if order_id not in ledger
        or [(s.outcome, s.value, s.event_id) for s in seen.get(order_id, ())]
        != [(ledger[order_id].outcome, ledger[order_id].event, str(event_id(UUID(order_id))))]
    ]
    total = run.tally.outcomes_seen
    return Check(
        "Every outcome seen once",
        not wrong,
        f"{total:,} seen, read_committed, "
        + (f"{len(wrong):,} not once or not as in the ledger" if wrong else "byte for byte as in the ledger"),
    )


def _dead_letters(run: DemoRun) -> Check:
    placed = {(p.partition, p.offset): p.placement for p in run.placed}
    expected = {source: (p.code, p.value) for source, p in placed.items() if p.code}
    found: dict[Source, list[SeenLetter]] = {}
    for letter in run.tally.letters:
        found.setdefault((letter.partition, letter.offset), []).append(letter)
    wrong = [
        source
        for source in expected.keys() | found.keys()
        if [(one.code, one.value) for one in found.get(source, ())] != [expected.get(source)]
    ]
    return Check(
        "Broken ones are set aside",
        not wrong,
        f"{len(expected):,} sent, {len(run.tally.letters):,} dead letters, "
        + (f"{len(wrong):,} not as expected" if wrong else "untouched and with the right code"),
    )


def _stock_conserved(run: DemoRun) -> Check:
    shelves = run.evidence.shelves
    wrong = [s.product_id for s in shelves if s.received - s.sold != s.stock or s.stock < 0]
    sold = sum(shelf.sold for shelf in shelves)
    return Check(
        "Stock is conserved",
        not wrong,
        f"received − sold = stock for {len(shelves) - len(wrong):,} of {len(shelves):,} products,"
        f" {sold:,} sold",
    )


def _orders_stored(run: DemoRun) -> Check:
    confirmed = {row.order_id for row in run.evidence.ledger if row.outcome == "confirmed"}
    stored = {order.order_id: order for order in run.evidence.orders}
    unequal = [o for o in stored.values() if o.total_amount != o.sum_of_lines]
    revenue = sum(order.total_amount for order in stored.values())
    return Check(
        "Only confirmed are stored",
        confirmed == stored.keys() and not unequal,
        f"{len(stored):,} orders, whose lines add up to £{revenue:,}"
        + (f"; {len(unequal):,} totals are wrong" if unequal else ""),
    )


def _worker_back(run: DemoRun) -> Check:
    kill = run.kill
    dead = [name for name, alive in run.alive.items() if not alive]
    held = not dead and kill.took_over_after is not None and kill.back_after is not None
    detail = f"{' and '.join(run.alive)} live" if not dead else f"not alive at the end: {', '.join(dead)}"
    return Check("The kill was survived", held, detail)


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
            f"{kill.redelivered:,} orders it had decided but not announced were announced from the ledger."
        )
    else:
        lines.append("No order was between its decision and its announcement at that moment.")
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


NEXT: Final = (
    ("order-worker demo --keep", "leaves servers and workers up, to look around"),
    ("order-worker --help", "every command, each with an example"),
    ("README.md", "What is guaranteed, Run it, Watch it; ARCHITECTURE.md: how it works"),
)


def print_next(console: Console) -> None:
    """Where to look next."""
    console.rule(Text("Where to look next", style="bold"), align="left")
    table = Table.grid(padding=(0, 2, 0, 1))
    for what, why in NEXT:
        table.add_row(Text(what, style="cyan"), Text(why, style="bright_black"))
    console.print(Padding(table, (1, 0)))


def print_kept(
    console: Console,
    *,
    kafka: str,
    database: str,
    workers: Mapping[str, str],
    exports: Mapping[str, str],
    is_given: bool,
) -> None:
    """What is still running and how to use it. Lines to copy are never wrapped."""
    console.rule(Text("Still running", style="bold"), align="left")
    table = Table.grid(padding=(0, 2, 0, 1))
    table.add_row("Kafka", Text(kafka, style="cyan"))
    table.add_row("PostgreSQL", Text(database, style="cyan"))
    for name, url in workers.items():
        table.add_row(name, Text(f"{url}/docs   {url}/metrics   {url}/readyz", style="cyan"))
    console.print(Padding(table, (1, 0)))
    console.print(Text(" In another terminal" + (", beside your two URLs:" if is_given else ":")))
    for name, value in exports.items():
        console.print(Text(f"export {name}={shlex.quote(value)}", style="cyan"), soft_wrap=True)
    console.print(Text("order-worker place --random 1000 --duplicates 0.02", style="cyan"), soft_wrap=True)
    console.print(Padding(Text("Ctrl-C stops it all and leaves nothing behind.", style="bold"), (1, 1)))
