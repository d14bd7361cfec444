"""A consumer's own record of its partitions' positions, next to aiokafka's. Sends no request."""

import logging

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.records import names
from worker.observability.events import Event, about, places

log = logging.getLogger(__name__)


class Places:
    """The positions of all partitions of one assignment, and what is wrong with some."""

    def __init__(self, accepting: bool) -> None:
        """`accepting`: the records of a poll count as handed over when `accept` is called, not before."""
        self._accepting = accepting
        # Where the last poll began in each partition that it returned records of, until they are accepted.
        self.offered: dict[TopicPartition, int] = {}
        self.unreadable: dict[TopicPartition, UnreadableSpan] = {}
        self.out_of_range: dict[TopicPartition, int] = {}
        self.refused: dict[TopicPartition, str] = {}
        self._left_at: dict[TopicPartition, int] = {}  # by the last poll or seek

    def clear(self) -> None:
        """The assignment is another one."""
        for known in (self.offered, self._left_at, self.unreadable, self.out_of_range, self.refused):
            known.clear()

    def accept(self) -> set[TopicPartition]:
        """Forget the records that were not accepted; returns their partitions."""
        accepted = set(self.offered)
        self.offered.clear()
        return accepted

    def not_accepted(self) -> dict[TopicPartition, int]:
        """By partition, the first offset of the records that a poll returned and nobody accepted."""
        if self.offered:
            said = about(Event.POSITION_RESTORED, partitions=places(self.offered))
            at = names(self.offered)
            log.warning("a poll's records were not handed over: read again from %s", at, extra=said)
        return dict(self.offered)

    def moved_from(self, partition: TopicPartition, position: int | None) -> int | None:
        """If something has moved the partition since the last poll or seek, the offset where that left it."""
        left_at = self._left_at.get(partition)
        if left_at is None or position is None or position == left_at:
            return None
        log.error(
            "%s-%d is at offset %d, but was left at %d: reading from the latter",
            *(partition.topic, partition.partition, position, left_at),
            extra=about(Event.POSITION_RESTORED, partition, offset=left_at),
        )
        return left_at

    def left(self, partition: TopicPartition, began: int, position: int, *, has_records: bool) -> None:
        """A poll found the partition at `began`, and left it at `position`."""
        if self._accepting:
            self._left_at[partition] = position
            if has_records:
                self.offered[partition] = began
        if self.unreadable:
            span = self.unreadable.get(partition)
            if span is not None and position > span.first:
                del self.unreadable[partition]

    def sought(self, partition: TopicPartition, offset: int | None) -> None:
        """The partition was set to `offset` (None: to one that Kafka names)."""
        self.offered.pop(partition, None)
        self.out_of_range.pop(partition, None)
        self._left_at.pop(partition, None)
        if offset is not None and self._accepting:
            self._left_at[partition] = offset
        span = self.unreadable.get(partition)
        if span is not None and (offset is None or offset > span.first):
            del self.unreadable[partition]

    def answered(self, partition: TopicPartition, error: str) -> None:
        """A broker answered a fetch; `error` is its name, or empty."""
        if not error:
            self.refused.pop(partition, None)
        elif error != OffsetOutOfRangeError.__name__:
            self.refused[partition] = error
