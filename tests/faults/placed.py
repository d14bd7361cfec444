"""What a run has written to the input, by partition and offset, and the result that each record must have.

Beside the workload, a fault may place orders of its own, and make some of these unreadable or delete them:
they are doomed, and may be decided or not. All others have to be.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from tests.faults.workload import Record

Letter = tuple[str | None, ...]
"""partition, offset and code of a dead letter's record"""


@dataclass
class Placed:
    """The input as the run wrote it."""

    ends: Counter[int] = field(default_factory=Counter)
    """where each partition's log ends"""
    letters: Counter[Letter] = field(default_factory=Counter)
    """the dead letters there have to be"""
    orders: dict[UUID, bytes] = field(default_factory=dict)
    """beside those of the workload"""
    doomed: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    """those of them that may stay undecided, with partition and offset"""
    is_cut: bool = False
    """a log was rewound: dead letters of before may be written again"""
    _extra: dict[tuple[int, int], UUID] = field(default_factory=dict)
    _turns: dict[tuple[int, int, UUID], int] = field(default_factory=dict)
    _count: int = 0

    def add(self, records: Iterable[Record], *, extra: bool = False) -> None:
        """They were written, in this order. `extra`: beside the workload."""
        for record in records:
            place = record.partition, self.ends[record.partition]
            self._count += 1
            if record.order_id is not None:
                self._turns[(*place, record.order_id)] = self._count
            if record.code is not None:
                self.letters[str(place[0]), str(place[1]), record.code] += 1
            if extra and record.order_id is not None:
                assert record.value is not None
                self.orders[record.order_id] = record.value
                self._extra[place] = record.order_id
            self.ends[record.partition] += 1

    def doom(self, partition: int, offsets: range) -> None:
        """These records are unreadable from now on. Each is an order that is not of the workload."""
        for offset in offsets:
            self.doomed[self._extra[partition, offset]] = partition, offset

    def cut(self, partition: int, end: int) -> None:
        """The partition's log ends here now; what lay after was decided before."""
        self.ends[partition] = end
        self.is_cut = True

    def turn(self, partition: int, offset: int, order_id: UUID) -> int:
        """When the order was written there, as a number that grows from record to record; -1: it never was.

        Offsets are no such number: those of a log that was rewound come again.
        """
        return self._turns.get((partition, offset, order_id), -1)

    def doomed_at(self) -> Mapping[tuple[int, int], UUID]:
        return {place: order_id for order_id, place in self.doomed.items()}
