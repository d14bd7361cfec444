"""Orders that PostgreSQL refuses, and what shows that the tables do not refuse every order."""

import random
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

from contracts.events import DeadLetterCode
from contracts.fields import over_total_text
from worker.core.decode import Invalid
from worker.core.results import Fate, RecordResult
from worker.core.triage import Arrival, Record
from worker.error_texts import describe
from worker.failures import OverTotalError

# How many other orders of the batch, picked at random, are tried to see whether the database refuses every
# order. One that would be confirmed is enough; if these are refused too, the next attempt tries others.
MAX_SENTINELS: Final = 5
# At most so many orders of a batch become dead letters; the next ones of their partition are read again. Each
# takes four transactions or more, for which the other partitions wait: 8,000 would outlast a rebalance.
MAX_LETTERS: Final = 50
# An order that is refused so often, with others confirmed in between, is at fault. Twice would be too few: a
# constraint that is added, dropped and added again may refuse it both times.
MIN_REFUSALS: Final = 3
_REMEMBERED: Final = 1_000


class RefusedOrders:
    """Remembers which orders PostgreSQL refused, and what was confirmed: proof that it takes other orders."""

    def __init__(self) -> None:
        self._confirmations = 0
        self._confirmed_last: Arrival | None = None
        self._refused: dict[tuple[str, int, int], tuple[int, int]] = {}
        """by topic, partition and offset: how often, and how many confirmations there were last time"""

    def saw(self, arrivals: Iterable[Arrival], results: Iterable[RecordResult]) -> None:
        """These are committed."""
        for arrival, one in zip(arrivals, results, strict=True):
            if one.fate is Fate.CONFIRMED:
                self._confirmations += 1
                self._confirmed_last = arrival
                return

    def is_at_fault(self, record: Record) -> bool:
        """Whether this refusal is its third, and orders were confirmed between each two of them."""
        times, before = self._refused.get(_place(record), (0, 0))
        return times >= MIN_REFUSALS - 1 and before < self._confirmations

    def add(self, record: Record) -> None:
        """This order is refused, and will come again."""
        times, before = self._refused.pop(_place(record), (0, -1))
        if len(self._refused) == _REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._refused[_place(record)] = times + (before < self._confirmations), self._confirmations

    def sentinels(self, refused: Arrival, batch: Sequence[Arrival]) -> list[Arrival]:
        """Other orders to try: the last one that was confirmed, under another id, and some of the batch."""
        others = [a for a in batch if a is not refused]
        some = random.sample(others, min(len(others), MAX_SENTINELS))
        if last := self._confirmed_last:
            some.insert(0, last._replace(order=last.order._replace(key=str(uuid4()))))
        return some


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def letter_of(arrival: Arrival, failure: Exception) -> Invalid:
    """Why the order is a dead letter."""
    if isinstance(failure, OverTotalError):
        text = over_total_text(failure.total_cents[arrival.order.key])
        return Invalid(DeadLetterCode.INVALID_ORDER, text, "items")
    return Invalid(DeadLetterCode.DATA_ERROR, describe(failure), "")
