"""Records and batches that Kafka stores and a client cannot unpack. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition


@dataclass
class UnreadableRecord(ConsumerRecord):  # type: ignore[misc]
    """A record that clients refuse to unpack and that was read raw: key, value and offset are correct.

    Names of headers are decoded with `backslashreplace`; headers after a broken one are missing.
    """

    why: str
    """what is wrong with it, as a clause"""


@dataclass(frozen=True, slots=True)
class UnreadableSpan:
    """The offsets `first` up to, not including, `end`, that cannot be unpacked."""

    partition: TopicPartition
    first: int
    end: int
    why: str
    """what is wrong with them, as a clause"""

    def __str__(self) -> str:
        place = f"{self.partition.topic}-{self.partition.partition}"
        return f"{place} from offset {self.first} up to {self.end - 1} cannot be unpacked ({self.why})"


# Each place counts once, however often it is read. Beyond this number the count is not exact.
_PLACES_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True)
class UnreadableCount:
    """How many records of one partition cannot be unpacked, the offset of the first, and its reason.

    `read_raw`: how many of them have a readable key and value.
    """

    topic: str
    partition: int
    first_offset: int
    records: int
    why: str
    read_raw: bool

    def __str__(self) -> str:
        noun = "record" if self.records == 1 else "records"
        place = f"{self.topic}-{self.partition} from offset {self.first_offset}"
        return f"{self.records:,} {noun} of {place} cannot be unpacked ({self.why})"


class Unreadables:
    """What a reader could not unpack, including records that it read raw."""

    def __init__(self) -> None:
        self._counts: dict[tuple[TopicPartition, bool], UnreadableCount] = {}
        self._places: set[tuple[TopicPartition, int]] = set()

    def add_span(self, span: UnreadableSpan) -> None:
        self._add(span.partition, span.first, span.end - span.first, span.why, read_raw=False)

    def add_records(self, records: Iterable[ConsumerRecord]) -> None:
        """Those of the records that were read raw."""
        for record in records:
            if type(record) is UnreadableRecord:
                partition = TopicPartition(record.topic, record.partition)
                self._add(partition, record.offset, 1, record.why, read_raw=True)

    def counts(self) -> list[UnreadableCount]:
        """By topic and partition."""
        return [self._counts[key] for key in sorted(self._counts)]

    def _add(self, partition: TopicPartition, first: int, records: int, why: str, *, read_raw: bool) -> None:
        if (partition, first) in self._places:
            return
        if len(self._places) < _PLACES_REMEMBERED:
            self._places.add((partition, first))
        key = partition, read_raw
        known = self._counts.get(key)
        if known is None:
            self._counts[key] = UnreadableCount(
                partition.topic, partition.partition, first, records, why, read_raw
            )
            return
        is_first = first < known.first_offset
        self._counts[key] = replace(
            known,
            records=known.records + records,
            first_offset=first if is_first else known.first_offset,
            why=why if is_first else known.why,
        )


def joined(*met: Unreadables) -> list[UnreadableCount]:
    """What several readers of different partitions met."""
    return sorted((c for one in met for c in one.counts()), key=lambda c: (c.topic, c.partition, c.read_raw))
