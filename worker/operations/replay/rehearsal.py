"""What workers would do with records that come again, without doing it. Pure.

Orders that the ledger does not know are decided by the worker's own rule, each against the stock that
the ones before it would have left, and count as decided for those that follow. All that is kept of them is
an id and a fingerprint.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from contracts.events import DeadLetterCode
from contracts.fields import MAX_TOTAL_CENTS
from db.bulk.rows import LedgerRow
from db.decision import BatchDecision, Confirmed, Decision, InsufficientStock, decide_batch
from db.statuses import SilentReplay
from db.stock import StockLevel
from worker.core.outcome import reason_codes
from worker.core.results import Fate, is_silenced
from worker.core.same_order import Known
from worker.core.triage import Arrival, Standing, triage

_CONFLICT: Final = (DeadLetterCode.ORDER_ID_CONFLICT.value,)
_ID_TAKEN: Final = (DeadLetterCode.ORDER_ID_TAKEN.value,)
_INVALID: Final = (DeadLetterCode.INVALID_ORDER.value,)


class RehearsalFindings(NamedTuple):
    """What the database holds now of all that the arrivals name."""

    known: Mapping[str, LedgerRow]  # by the order's key
    order_ids: AbstractSet[
        UUID
    ]  # of those unknown to the ledger: orders made by a shop, or whose row is gone
    users: AbstractSet[int]
    levels: Mapping[int, StockLevel]


class Rehearsed(NamedTuple):
    """What would become of one record, and why: reason codes, or that of its dead letter."""

    fate: Fate
    codes: tuple[str, ...] = ()
    outcome: str = ""  # of an order that is decided already


@dataclass(slots=True)
class ProductChange:
    """What the undecided orders would do to one product. `stock` is what it has now."""

    product_id: int
    stock: int
    taken: int = 0
    refused: int = 0  # orders that would find too little of it
    wanted: int = 0  # by all orders that nothing but stock stands against
    partitions: set[int] = field(default_factory=set)  # which these come from

    @property
    def contested(self) -> bool:
        """Whether who gets the last of it depends on which partition workers read first."""
        return self.wanted > self.stock and len(self.partitions) > 1


class _Decided(NamedTuple):
    """An order that the rehearsal decided: no record ever comes again within it."""

    sorted_fingerprint: bytes
    fingerprint: bytes = b""
    outcome: str = ""
    event: str = ""
    source_topic: str = ""
    source_partition: int = -1
    source_offset: int = -1


class Rehearsal:
    """Decides records in turn as `BatchProcessor` would, and remembers what they would have changed.

    `replays`: what is silent, by partition. What it does not know: constraints and triggers that somebody
    added to the tables, and what is sold or changed between this and the replay.
    """

    def __init__(self, replays: Mapping[int, Sequence[SilentReplay]]) -> None:
        self._replays = replays
        self._decided: dict[bytes, bytes] = {}
        self.products: dict[int, ProductChange] = {}
        self.last_decided_at: datetime | None = None  # of the orders that are silent

    def decide(self, arrivals: Sequence[Arrival], found: RehearsalFindings) -> list[Rehearsed]:
        """One result per arrival, in their order."""
        known: dict[str, Known] = {**self._decided_before(arrivals), **found.known}
        standings = triage(arrivals, known)
        new = [a for a, standing in zip(arrivals, standings, strict=True) if standing is Standing.NEW]
        decided = decide_batch([a.order for a in new], found.users, self._left(new, found.levels))
        refused = [_refusal(a, d, found.order_ids) for a, d in zip(new, decided.decisions, strict=True)]
        if any(refused):
            if len(arrivals) == 1:
                return [Rehearsed(Fate.DEAD_LETTER, refused[0])]
            # By halving, as a worker does: a refused order takes no stock, so a later one may get it.
            half = len(arrivals) // 2
            return self.decide(arrivals[:half], found) + self.decide(arrivals[half:], found)
        self._remember(new, decided, found.levels)
        decisions = iter(decided.decisions)
        return [
            _decided_now(next(decisions))
            if standing is Standing.NEW
            else self._decided_earlier(arrival, standing, found.known)
            for arrival, standing in zip(arrivals, standings, strict=True)
        ]

    def _decided_before(self, arrivals: Iterable[Arrival]) -> dict[str, Known]:
        if not self._decided:
            return {}
        orders = {a.order.key: a.order.order_id for a in arrivals}
        return {key: _Decided(seen) for key, i in orders.items() if (seen := self._decided.get(i.bytes))}

    def _left(self, new: Iterable[Arrival], levels: Mapping[int, StockLevel]) -> Mapping[int, StockLevel]:
        touched = {i.product_id for a in new for i in a.order.items} & self.products.keys()
        return {
            **levels,
            **{
                i: levels[i]._replace(quantity=levels[i].quantity - self.products[i].taken)
                for i in touched & levels.keys()
            },
        }

    def _remember(
        self, new: Sequence[Arrival], decided: BatchDecision, levels: Mapping[int, StockLevel]
    ) -> None:
        for arrival, decision in zip(new, decided.decisions, strict=True):
            self._decided[arrival.order.order_id.bytes] = arrival.order.sorted_fingerprint()
            self._count(arrival, decision, levels)
        for product_id, quantity in decided.taken.items():
            self.products[product_id].taken += quantity

    def _count(self, arrival: Arrival, decision: Decision, levels: Mapping[int, StockLevel]) -> None:
        refusals = () if isinstance(decision, Confirmed) else decision.refusals
        short = {refusal.product_id for refusal in refusals if isinstance(refusal, InsufficientStock)}
        contends = all(isinstance(refusal, InsufficientStock) for refusal in refusals)
        for item in arrival.order.items:
            if item.product_id not in levels:
                continue
            change = self._change(item.product_id, levels[item.product_id].quantity)
            if contends:
                change.wanted += item.quantity
                change.partitions.add(arrival.record.partition)
        for product_id in short:
            self.products[product_id].refused += 1

    def _change(self, product_id: int, stock: int) -> ProductChange:
        change = self.products.setdefault(product_id, ProductChange(product_id, stock))
        change.stock = stock
        return change

    def _decided_earlier(
        self, arrival: Arrival, standing: Standing, known: Mapping[str, LedgerRow]
    ) -> Rehearsed:
        if standing is Standing.CONFLICT:
            return Rehearsed(Fate.DEAD_LETTER, _CONFLICT)
        if standing is Standing.DUPLICATE:
            return Rehearsed(Fate.DUPLICATE)
        row, record = known[arrival.order.key], arrival.record
        silent = is_silenced(record.offset, row.decided_at, self._replays.get(record.partition, ()))
        if silent:
            self.last_decided_at = max(self.last_decided_at or row.decided_at, row.decided_at)
        return Rehearsed(Fate.SILENCED if silent else Fate.REDELIVERED, outcome=row.outcome)


def _refusal(arrival: Arrival, decision: Decision, order_ids: AbstractSet[UUID]) -> tuple[str, ...]:
    """Why the order that was decided so would be a dead letter; empty where it would not."""
    if not isinstance(decision, Confirmed):
        return ()
    if decision.total_cents > MAX_TOTAL_CENTS:
        return _INVALID
    return _ID_TAKEN if arrival.order.order_id in order_ids else ()


def _decided_now(decision: Decision) -> Rehearsed:
    fate = Fate.CONFIRMED if isinstance(decision, Confirmed) else Fate.REJECTED
    return Rehearsed(fate, reason_codes(decision))


@dataclass(slots=True)
class RehearsalTally:
    """How many records of each fate there are, and why."""

    fates: Counter[Fate] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)  # of what is decided already
    reasons: Counter[str] = field(default_factory=Counter)  # orders that would be rejected for it, too
    dead_letters: Counter[str] = field(default_factory=Counter)  # by code

    def add(self, results: Iterable[Rehearsed]) -> None:
        for fate, codes, outcome in results:
            self.fates[fate] += 1
            if fate is Fate.REJECTED:
                self.reasons.update(set(codes))
            elif fate is Fate.DEAD_LETTER:
                self.dead_letters.update(codes)
            elif outcome:
                self.outcomes[outcome] += 1
