"""The output of `replay`: one document for scripts, one screen for people."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.text import Text

from contracts.events import DeadLetterCode
from worker.core.results import Fate
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.kafka.group import Member
from worker.kafka.offsets import TopicSelection
from worker.operations import screen
from worker.operations.replay.plan import Target, To, remark
from worker.operations.replay.rehearsal import ProductChange, RehearsalTally
from worker.operations.replay.replay import ReplayRun
from worker.settings import Settings

_PRODUCTS_SHOWN: Final = 10
_CONFLICT: Final = DeadLetterCode.ORDER_ID_CONFLICT.value


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """A partition: where the group is and goes, and what of it comes again."""

    partition: int
    first: int
    end: int
    committed: int
    target: int
    records: int
    undecided: int
    beyond_end: int  # how far the committed offset lies beyond the log's end
    deleted: int  # offsets that were deleted before the group came to them
    remark: str


@dataclass(frozen=True, slots=True)
class ProductReport:
    """`contested`: who gets the last of it depends on which partition workers read first."""

    product_id: int
    stock: int
    taken: int
    left: int
    orders_short_of_it: int
    contested: bool


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """One replay, rehearsed or done. Every record is in exactly one of the classes."""

    executed: bool
    group_id: str
    topic: str
    partitions: list[PartitionReport]
    records: int
    seconds: float  # that the rehearsal took
    decided: int  # skipped
    decided_by_outcome: dict[str, int]
    duplicates: int
    would_confirm: int
    would_reject: int
    reasons: dict[str, int]
    conflicts: int  # dead letters that are written again, as the poison's are
    poison: int
    poison_by_code: dict[str, int]
    products: list[ProductReport]
    running_members: list[Member]
    next_command: str
    unreadable: list[UnreadableCount] = field(default_factory=list)


def report(settings: Settings, selected: TopicSelection, replay: ReplayRun) -> ReplayReport:
    """The report of a replay."""
    total = _sum(list(replay.tallies.values()))
    fates, letters = total.fates, total.dead_letters
    return ReplayReport(
        executed=replay.executed,
        group_id=settings.group_id,
        topic=selected.topic,
        partitions=list(_partitions(replay)),
        records=fates.total(),
        seconds=round(replay.seconds, 3),
        decided=fates[Fate.SILENCED],
        decided_by_outcome=dict(total.outcomes.most_common()),
        duplicates=fates[Fate.DUPLICATE],
        would_confirm=fates[Fate.CONFIRMED],
        would_reject=fates[Fate.REJECTED],
        reasons=dict(total.reasons.most_common()),
        conflicts=letters[_CONFLICT],
        poison=letters.total() - letters[_CONFLICT],
        poison_by_code={code: n for code, n in letters.most_common() if code != _CONFLICT},
        products=[_product(change) for change in replay.products],
        running_members=[] if replay.executed else replay.members,
        next_command="order-worker run" if replay.executed else _command(selected, replay.target),
        unreadable=replay.unreadable,
    )


def _sum(tallies: Sequence[RehearsalTally]) -> RehearsalTally:
    def total(counters: Iterator[Counter]) -> Counter:  # type: ignore[type-arg]
        return sum(counters, Counter())

    return RehearsalTally(
        total(t.fates for t in tallies),
        total(t.outcomes for t in tallies),
        total(t.reasons for t in tallies),
        total(t.dead_letters for t in tallies),
    )


def _partitions(replay: ReplayRun) -> Iterator[PartitionReport]:
    for move in replay.moves:
        fates = replay.tallies.get(move.partition, RehearsalTally()).fates
        yield PartitionReport(
            partition=move.partition.partition,
            first=move.bounds.first,
            end=move.bounds.end,
            committed=move.committed,
            target=move.target,
            records=fates.total(),
            undecided=fates[Fate.CONFIRMED] + fates[Fate.REJECTED],
            beyond_end=move.beyond,
            deleted=move.deleted,
            remark=remark(replay.target, move),
        )


def _product(change: ProductChange) -> ProductReport:
    return ProductReport(
        change.product_id,
        change.stock,
        change.taken,
        change.stock - change.taken,
        change.refused,
        change.contested,
    )


def _command(selected: TopicSelection, target: Target) -> str:
    """What does what was rehearsed. A duration has become a time: later it would be another one."""
    time = target.time.isoformat().replace("+00:00", "Z") if target.time else ""
    value = {To.OFFSET: str(target.number), To.SHIFT: str(target.number), To.TIME: time}
    words = ["replay", target.to.value]
    if target.to in value:
        words.append(value[target.to])
    if selected.numbers:
        words += ["--topic", f"{selected.topic}:{','.join(map(str, selected.numbers))}"]
    return screen.command_line(*words)


def show(console: Console, found: ReplayReport) -> None:
    """For a person: where from, what becomes of each record, what it does to the stock, what to do next."""
    console.print(Text(_title(found), style="bold"))
    console.print()
    head = ("partition", "from", "to", "records", "undecided", "remark")
    rows = [(p.partition, *_from_to(p), p.records, p.undecided, p.remark) for p in found.partitions]
    used = len(head) - (not any(p.remark for p in found.partitions))
    console.print(screen.table(head[:used], (row[:used] for row in rows), numbers=head[:5]))
    console.print()
    if found.records:
        columns = ("what comes again", "records", "why")
        console.print(screen.table(columns, _classes(found), numbers=("records",)))
        rate = found.records / max(found.seconds, 1e-9)
        console.print(Text(f"{found.records:,} records rehearsed in {found.seconds:.1f} s ({rate:,.0f}/s)"))
    for count in found.unreadable:
        console.print(Text(screen.shown(f"{count}.")))
    if found.products:
        console.print()
        _show_products(console, found.products)
    console.print()
    for line in _next(found):
        # A command is copied: the terminal may fold it, and we may not break it.
        console.print(Text(line), soft_wrap=True)


def _title(found: ReplayReport) -> str:
    where = f"{found.topic} for the group {found.group_id}"
    if found.executed:
        return f"Replay of {where}: the group is moved."
    return f"Rehearsal of {where}: nothing was changed."


def _from_to(of: PartitionReport) -> tuple[int | None, int | None]:
    return (of.target, min(of.committed, of.end)) if of.target < of.committed else (None, None)


def _classes(found: ReplayReport) -> list[tuple[str, int, str]]:
    return [
        ("decided already: skipped", found.decided, _counts(found.decided_by_outcome)),
        ("duplicate: skipped", found.duplicates, ""),
        ("undecided: confirmed", found.would_confirm, ""),
        ("undecided: rejected", found.would_reject, _counts(found.reasons)),
        ("conflict: dead letter again", found.conflicts, ""),
        ("poison: dead letter again", found.poison, _counts(found.poison_by_code)),
    ]


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in of.items())


def _show_products(console: Console, products: Sequence[ProductReport]) -> None:
    head = ("product", "stock now", "taken", "left", "orders short of it")
    rows = [
        (str(p.product_id), p.stock, p.taken, p.left, p.orders_short_of_it)
        for p in products[:_PRODUCTS_SHOWN]
    ]
    console.print(screen.table(head, rows, numbers=head))
    if (more := len(products) - _PRODUCTS_SHOWN) > 0:
        console.print(Text(f"… and {more:,} products more (all with --json)"))
    if contested := [str(p.product_id) for p in products if p.contested]:
        named = ", ".join(contested[:_PRODUCTS_SHOWN]) + (" …" if len(contested) > _PRODUCTS_SHOWN else "")
        console.print(
            Text(
                f"Not certain for product {named}: orders of several partitions want more than there is."
                " The rehearsal reads one partition after the other, workers read them side by side."
            )
        )


def _next(found: ReplayReport) -> Iterator[str]:
    if found.executed:
        undecided = found.would_confirm + found.would_reject
        yield f"Now start the workers: {found.next_command}"
        if found.records:
            yield (
                f"They skip {found.decided + found.duplicates:,} records and decide"
                f" {undecided:,}; watch order_worker_orders_silenced_total at /metrics."
            )
        return
    if found.running_members:
        names = ", ".join(f"{m.client_id} at {m.host.lstrip('/')}" for m in found.running_members)
        yield f"The group is running ({names}): stop its workers first."
    yield f"To do it: {found.next_command}"
