"""Orders that PostgreSQL refuses, and what shows that the tables do not refuse every order."""

from contracts.events import DeadLetterCode
from contracts.fields import over_total_text
from worker.core.decode import Invalid
from worker.core.triage import Arrival, Record
from worker.failures import OverTotalError, describe


class RefusedOrders:
    """Whether another order was confirmed since one was refused. For one waiting order a partition."""

    def __init__(self) -> None:
        self._confirmations = 0
        self._refused: dict[tuple[str, int], tuple[int, int]] = {}
        """by topic and partition: the offset, and how many confirmations there were before"""

    def another_is_confirmed(self) -> None:
        """In a transaction that is committed."""
        self._confirmations += 1

    def has_refuted(self, record: Record) -> bool:
        """Whether an order was confirmed after this one had been refused: the tables do take orders."""
        offset, before = self._refused.get((record.topic, record.partition), (None, 0))
        return offset == record.offset and before < self._confirmations

    def add(self, record: Record) -> None:
        """This order is refused, and will come again."""
        place = record.topic, record.partition
        if self._refused.get(place, (None,))[0] != record.offset:
            self._refused[place] = record.offset, self._confirmations


def letter_of(arrival: Arrival, failure: Exception) -> Invalid:
    """Why the order is a dead letter."""
    if isinstance(failure, OverTotalError):
        text = over_total_text(failure.total_cents[arrival.order.key])
        return Invalid(DeadLetterCode.INVALID_ORDER, text, "items")
    return Invalid(DeadLetterCode.DATA_ERROR, describe(failure), "")
