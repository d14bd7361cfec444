"""Recognises the records of one order, and chooses the offsets that are read. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition

from worker.core.decode import Decoded, decode_former
from worker.kafka.consuming.reading import Spans
from worker.kafka.offsets import Bounds
from worker.operations.explain.order_facts import Unread


@dataclass(frozen=True, slots=True)
class OrderRecords:
    """Knows the records of one order."""

    order_id: UUID
    outcome_topics: frozenset[str]
    max_bytes: int

    def is_one(self, record: ConsumerRecord) -> bool:
        """An outcome by key or subject; any other by the order it holds, else by the id in it anywhere."""
        if record.topic in self.outcome_topics:
            id_text = str(self.order_id).encode()
            return record.key == id_text or ("ce_subject", id_text) in map(tuple, record.headers)
        if not self._names_it(record):
            return False
        decoded = decode_former(record.value, self.max_bytes, record.headers)
        return not isinstance(decoded, Decoded) or decoded.order.order_id == self.order_id

    def _names_it(self, record: ConsumerRecord) -> bool:
        lower = str(self.order_id).encode()
        texts = [record.value, record.key, *(value for _, value in record.headers)]
        return any(text and (lower in text or lower.upper() in text) for text in texts)


def first_of(spans: Spans, limit: int) -> Spans:
    """The beginnings of the spans: all together at most `limit` offsets."""
    each = _each(spans, limit)
    return {p: (start, min(end, start + each)) for p, (start, end) in spans.items()}


def last_of(spans: Spans, limit: int) -> Spans:
    """The ends of the spans: all together at most `limit` offsets."""
    each = _each(spans, limit)
    return {p: (max(start, end - each), end) for p, (start, end) in spans.items()}


def _each(spans: Spans, limit: int) -> int:
    return max(1, limit // max(1, sum(start < end for start, end in spans.values())))


def unread(bounds: Mapping[TopicPartition, Bounds], read: Iterable[Spans]) -> tuple[Unread, ...]:
    """What is in the partitions beside the spans, which may touch or overlap."""
    gaps = []
    for partition, bound in sorted(bounds.items()):
        start = bound.first
        for span_start, span_end in sorted(spans[partition] for spans in read if partition in spans):
            if start < min(span_start, bound.end):
                gaps.append(Unread(partition.topic, partition.partition, start, span_start))
            start = max(start, span_end)
        if start < bound.end:
            gaps.append(Unread(partition.topic, partition.partition, start, bound.end))
    return tuple(gaps)


def homes(partitions: Sequence[TopicPartition], source: int) -> list[TopicPartition]:
    """Where an outcome of that input partition may lie: where it goes now, and went with fewer partitions."""
    numbers = dict.fromkeys(source % count for count in range(len(partitions), 0, -1))
    return [partitions[number] for number in numbers]


def places(
    offsets: Iterable[tuple[TopicPartition, int]], bounds: Mapping[TopicPartition, Bounds]
) -> list[Spans]:
    """Each of the offsets that is still there, as a span of its own: what lies between them may be long."""
    return [
        {partition: (offset, offset + 1)}
        for partition, offset in offsets
        if partition in bounds and bounds[partition].first <= offset < bounds[partition].end
    ]
