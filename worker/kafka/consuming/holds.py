"""Placeholders in a fetcher's buffer: a partition that has one is not fetched."""

from asyncio import Task
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from worker.kafka.consuming.raw_batch import RawBatch


class Hold:
    """Placeholder for a partition's records in a fetcher's buffer: the partition is not fetched."""

    def calculate_backoff(self) -> float:
        """No other partition waits for this one."""
        return 0.0


@dataclass(slots=True)
class Pause(Hold):
    """The partition is not fetched before a point in time."""

    until: float
    """monotonic seconds"""


@dataclass(slots=True, eq=False)
class Reread(Hold):
    """The records from `offset` on could not be unpacked, and are read raw."""

    offset: int
    due: float = 0.0
    """monotonic seconds: when to read again at the earliest"""
    tries: int = 0
    task: "Task[None] | None" = None
    found: RawBatch | None = None
    taken: int = 0
    """how many records of `found` were returned"""

    def take(self, found: RawBatch, room: int) -> list[ConsumerRecord]:
        """The next records of those found; moves `offset` past them."""
        records = list(found.records[self.taken : self.taken + room])
        self.taken += len(records)
        self.offset = found.next_offset if self.is_taken(found) else records[-1].offset + 1
        return records

    def is_taken(self, found: RawBatch) -> bool:
        """Whether everything found was returned."""
        return self.taken >= len(found.records)
