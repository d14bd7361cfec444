"""The output of `ledger restore`: one document for scripts, one screen for people."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from db.reconciliation.restoration import DifferingRow, Shortage
from worker.operations import screen
from worker.operations.restore.restore import Restoration, WaitingPartition
from worker.settings import Settings

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class MissingReport:
    """Outcomes of one kind that are not in the ledger."""

    outcome: str
    orders: int
    first_decided_at: datetime
    last_decided_at: datetime
    input_record_gone: int
    order_there: int


@dataclass(frozen=True, slots=True)
class RestoredPartition:
    """A partition whose workers wait; `then` says what becomes of it."""

    partition: int
    known_to: int | None
    committed: int
    unaccounted: int
    first_unaccounted: int | None
    moved: bool
    then: str


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """One restoration, rehearsed or done."""

    executed: bool
    refused: bool
    complete: bool
    with_orders: bool
    group_id: str
    topic: str
    start: datetime | None
    records: int
    records_in_ledger: int
    records_missing: int
    records_foreign: int
    cut: list[str]
    missing: list[MissingReport]
    orders_missing: int
    products_sold: int
    pieces_sold: int
    shortages: list[Shortage]
    users_gone: list[int]
    discrepancies: int
    differing: list[DifferingRow]  # the first 1,000
    partitions: list[RestoredPartition]
    outcomes_written: int
    orders_written: int
    seconds: float
    next_command: str


def report(settings: Settings, found: Restoration) -> RestoreReport:
    """The report of a restoration."""
    partitions = [_partition(settings, found, one) for one in found.waiting]
    executed = found.written is not None
    return RestoreReport(
        executed=executed,
        refused=found.is_refused,
        complete=executed and all(one.moved for one in partitions),
        with_orders=found.asked.orders,
        group_id=settings.group_id,
        topic=settings.order_placed_topic,
        start=found.asked.start,
        records=found.read.records,
        records_in_ledger=found.read.in_ledger,
        records_missing=found.read.missing,
        records_foreign=found.read.foreign,
        cut=found.read.cut,
        missing=[
            MissingReport(
                outcome=one.outcome,
                orders=one.orders,
                first_decided_at=one.first_decided_at,
                last_decided_at=one.last_decided_at,
                input_record_gone=one.orders - one.with_source,
                order_there=one.with_order,
            )
            for one in found.missing.values()
        ],
        orders_missing=found.missing_orders,
        products_sold=found.sold[0],
        pieces_sold=found.sold[1],
        shortages=found.shortages,
        users_gone=found.users_gone,
        discrepancies=found.differing_count,
        differing=found.differing,
        partitions=partitions,
        outcomes_written=found.written.outcomes if found.written else 0,
        orders_written=found.written.orders if found.written else 0,
        seconds=round(found.seconds, 3),
        next_command="order-worker reconcile" if executed else _command(found),
    )


def document(found: RestoreReport) -> dict[str, Any]:
    """For scripts."""
    short = [{**s._asdict(), "lacks": s.sold - (s.stock or 0)} for s in found.shortages]
    return {**asdict(found), "shortages": short, "differing": [d._asdict() for d in found.differing]}


def failure(found: RestoreReport, *, execute: bool) -> str | None:
    """Why what was asked for is not done; None: it is, or was not asked for."""
    if not execute or found.complete:
        return None
    if found.refused:
        return f"nothing was changed: {_against(found)}"
    left = ", ".join(f"{found.topic}-{p.partition} ({p.then})" for p in found.partitions if not p.moved)
    return f"all that was found is written, and the workers of all partitions wait for {left}"


def show(console: Console, found: RestoreReport) -> None:
    """For a person: what is missing, what stands against writing it, which partitions continue, what next."""
    console.print(Text(_title(found), style="bold"))
    console.print()
    for line in _read(found):
        console.print(Text(line))
    if found.missing:
        console.print()
        _show_missing(console, found)
    if found.shortages:
        console.print()
        _show_shortages(console, found)
    if found.discrepancies:
        console.print()
        _show_differing(console, found)
    if found.partitions:
        console.print()
        head = ("partition", "PostgreSQL knows up to", "committed", "then")
        rows = [(p.partition, p.known_to, p.committed, p.then) for p in found.partitions]
        console.print(screen.table(head, rows, numbers=head[:3]))
    console.print()
    for line in _next(found):
        # A command is copied: the terminal may fold it, and we may not break it.
        console.print(Text(line), soft_wrap=True)


def _command(found: Restoration) -> str:
    words = ["ledger", "restore"]
    if found.asked.start:
        words += ["--from", found.asked.start.isoformat().replace("+00:00", "Z")]
    words += ["--orders" if found.asked.orders else "--ledger-only"]
    return screen.command_line(*words)


def _partition(settings: Settings, found: Restoration, one: WaitingPartition) -> RestoredPartition:
    behind = one.behind
    return RestoredPartition(
        partition=behind.partition,
        known_to=behind.known,
        committed=behind.committed,
        unaccounted=one.unaccounted,
        first_unaccounted=one.first_unaccounted,
        moved=bool(one.moved),
        then=_then(settings, found, one),
    )


def _then(settings: Settings, found: Restoration, one: WaitingPartition) -> str:
    if one.unaccounted:
        place = f"{settings.order_placed_topic}:{one.behind.partition}"
        where = "before --from, or nowhere" if found.asked.start else "nowhere"
        return (
            f"the outcomes of {one.unaccounted:,} committed records are {where} in the topics; to have them"
            " decided again, stop the workers and run"
            f" `order-worker replay --topic {place} --to-offset {one.first_unaccounted} --execute`"
        )
    if one.moved is None:
        return "waits on" if found.is_refused else "would be whole"
    return "is whole" if one.moved else "has moved meanwhile: run this again"


def _title(found: RestoreReport) -> str:
    if found.executed:
        return f"Restoration of the ledger for the group {found.group_id}."
    return f"Rehearsal of the ledger's restoration for the group {found.group_id}: nothing was changed."


def _read(found: RestoreReport) -> Iterator[str]:
    since = f" published since {screen.shown(found.start)}" if found.start else ""
    yield (
        f"{found.records:,} outcomes{since} read in {found.seconds:.1f} s: {found.records_in_ledger:,} of"
        f" orders in the ledger, {found.records_missing:,} missing there"
    )
    if found.records_foreign:
        yield f"{found.records_foreign:,} records that no worker wrote are left out."
    if found.cut:
        yield f"Deleted by retention, and not to be restored: earlier outcomes in {', '.join(found.cut)}."


def _show_missing(console: Console, found: RestoreReport) -> None:
    head = ("missing", "orders", "first decided", "last decided", "input record gone", "order is there")
    rows = [
        (m.outcome, m.orders, m.first_decided_at, m.last_decided_at, m.input_record_gone, m.order_there)
        for m in found.missing
    ]
    console.print(screen.table(head, rows, numbers=("orders", "input record gone", "order is there")))
    if any(m.input_record_gone for m in found.missing):
        console.print(
            Text(
                "Where the input record is gone, the fingerprint is made up: the same order again is a"
                " duplicate if it was confirmed and names no prices, else a dead letter (order_id_conflict)."
            )
        )


def _show_shortages(console: Console, found: RestoreReport) -> None:
    head = ("product", "sold by these orders", "in stock", "lacks")
    rows = [(str(s.product_id), s.sold, s.stock, s.sold - (s.stock or 0)) for s in found.shortages[:_SHOWN]]
    console.print(screen.table(head, rows, numbers=head))
    if (more := len(found.shortages) - _SHOWN) > 0:
        console.print(Text(f"… and {more:,} products more (all with --json)"))


def _show_differing(console: Console, found: RestoreReport) -> None:
    head = ("left as it is: published at", "order", "because")
    rows = [(f"{d.topic}-{d.partition}@{d.offset}", d.order_id, d.what) for d in found.differing[:_SHOWN]]
    console.print(screen.table(head, rows))
    if (more := found.discrepancies - len(rows)) > 0:
        console.print(Text(f"… and {more:,} more (1,000 with --json)"))


def _next(found: RestoreReport) -> Iterator[str]:
    yield from _about_orders(found)
    if found.executed:
        yield (
            f"{found.outcomes_written:,} ledger rows and {found.orders_written:,} orders were written."
            f" See that nothing is missing: {found.next_command}"
        )
        return
    if found.refused:
        yield f"With --execute it would be refused: {_against(found)}"
    elif not found.missing and not found.partitions:
        yield "Nothing is missing, and no partition waits: there is nothing to restore."
        return
    yield f"To do it: {found.next_command}"


def _about_orders(found: RestoreReport) -> Iterator[str]:
    if not found.orders_missing or (found.executed and found.with_orders):
        return
    if found.with_orders:
        yield (
            f"{found.orders_missing:,} orders are written as pending, and {found.pieces_sold:,} pieces of"
            f" {found.products_sold:,} products taken from the stock. What the shop did with these orders"
            " afterwards is in no topic."
        )
        return
    yield (
        f"{found.orders_missing:,} confirmed orders are in no row of `orders`, and {found.pieces_sold:,}"
        " pieces that they sold are still in stock: workers would sell them again. With --orders they are"
        " written as well; a later run takes an order that the ledger has for one that the shop deleted."
    )


def _against(found: RestoreReport) -> str:
    reasons = []
    if short := [s for s in found.shortages if s.stock is not None]:
        named = ", ".join(f"{s.product_id} lacks {s.sold - (s.stock or 0):,}" for s in short[:_SHOWN])
        more = f" and {len(short) - _SHOWN:,} more" if len(short) > _SHOWN else ""
        reasons.append(f"product {named}{more}: put into stock what was received since the backup")
    if gone := [str(s.product_id) for s in found.shortages if s.stock is None]:
        reasons.append(f"{_named('product', gone)} gone: create or import them again")
    if found.users_gone:
        reasons.append(
            f"{_named('user', list(map(str, found.users_gone)))} gone: create or import them again"
        )
    return "; ".join(reasons) + "; or write no orders (--ledger-only)"


def _named(noun: str, ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    one = len(ids) == 1
    return f"{noun}{'' if one else 's'} {', '.join(ids[:_SHOWN])}{more} {'is' if one else 'are'}"
