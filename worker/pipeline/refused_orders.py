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
_REMEMBERED: Final = 1_000


class RefusedOrders:
    """Remembers which orders PostgreSQL refused, and what was confirmed: proof that it takes other orders."""

    def __init__(self) -> None:
        self._confirmations = 0
        self._confirmed_last: Arrival | None = None
        self._refused: dict[tuple[str, int, int], int] = {}
        """by topic, partition and offset, how many confirmations there were before"""

    def saw(self, arrivals: Iterable[Arrival], results: Iterable[RecordResult]) -> None:
        """These are committed."""
        for arrival, one in zip(arrivals, results, strict=True):
            if one.fate is Fate.CONFIRMED:
                self._confirmations += 1
                self._confirmed_last = arrival
                return

    def has_refuted(self, record: Record) -> bool:
        """Whether an order was confirmed after this one had been refused: the tables do take orders."""
        place = record.topic, record.partition, record.offset
        return self._refused.get(place, self._confirmations) < self._confirmations

    def add(self, record: Record) -> None:
        """This order is refused, and will come again."""
        if len(self._refused) == _REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._refused.setdefault((record.topic, record.partition, record.offset), self._confirmations)

    def sentinels(self, refused: Arrival, batch: Sequence[Arrival]) -> list[Arrival]:
        """Other orders to try: the last one that was confirmed, under another id, and some of the batch."""
        others = [a for a in batch if a is not refused]
        some = random.sample(others, min(len(others), MAX_SENTINELS))
        if last := self._confirmed_last:
            some.insert(0, last._replace(order=last.order._replace(key=str(uuid4()))))
        return some


def letter_of(arrival: Arrival, failure: Exception) -> Invalid:
    """Why the order is a dead letter."""
    if isinstance(failure, OverTotalError):
        text = over_total_text(failure.total_cents[arrival.order.key])
        return Invalid(DeadLetterCode.INVALID_ORDER, text, "items")
    return Invalid(DeadLetterCode.DATA_ERROR, describe(failure), "")
