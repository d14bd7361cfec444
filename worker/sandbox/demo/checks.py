"""What a demo promises, checked against what was placed, stored and published. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from contracts.envelope import event_id
from contracts.events import OrderPlaced
from worker.sandbox.demo.evidence import DemoEvidence
from worker.sandbox.demo.feed import PlacedRecord
from worker.sandbox.demo.retailer import Retailer
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


def checks(run: DemoRun) -> list[Check]:
    """Every promise of the worker that can be seen from outside."""
    return [
        _everything_read(run),
        _one_fate_each(run),
        _decided_once(run),
        _published_once(run),
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


def _published_once(run: DemoRun) -> Check:
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
    stocks = run.evidence.stocks
    wrong = [s.product_id for s in stocks if s.received - s.sold != s.stock or s.stock < 0]
    sold = sum(stock.sold for stock in stocks)
    return Check(
        "Stock is conserved",
        not wrong,
        f"received − sold = stock for {len(stocks) - len(wrong):,} of {len(stocks):,} products,"
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
