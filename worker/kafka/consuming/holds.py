"""What stands in a fetcher's buffer instead of a partition's records, while it is not to be fetched."""

from asyncio import Task
from dataclasses import dataclass

from aiokafka import ConsumerRecord

from worker.kafka.consuming.raw_batch import RawBatch


class Hold:
    """Stands in a fetcher's buffer instead of records: its partition is not fetched."""

    def calculate_backoff(self) -> float:
        """Nothing of another partition waits for it."""
        return 0.0


@dataclass(slots=True)
class Pause(Hold):
    """Nothing is fetched before a time."""

    until: float
    """monotonic seconds"""


@dataclass(slots=True, eq=False)
class Reread(Hold):
    """What begins at `offset` could not be unpacked, and is read raw."""

    offset: int
    due: float = 0.0
    """monotonic seconds: not to be read again before"""
    tries: int = 0
    task: "Task[None] | None" = None
    found: RawBatch | None = None
    taken: int = 0
    """records of `found` that were handed out"""

    def take(self, found: RawBatch, room: int | None) -> list[ConsumerRecord]:
        """The next records of what was found, and `offset` behind them."""
        records = list(found.records[self.taken : None if room is None else self.taken + room])
        self.taken += len(records)
        self.offset = found.next_offset if self.is_taken(found) else records[-1].offset + 1
        return records

    def is_taken(self, found: RawBatch) -> bool:
        """Whether nothing of it is left."""
        return self.taken >= len(found.records)
