"""The newest records of a topic, read backwards in steps: few, and not many bytes."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition

from worker.kafka.consuming.reading import Spans, TopicReader, portions
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.kafka.offsets import Bounds, TopicSelection, bounds_of, partitions_of

_FIRST_STEP: Final = 16  # offsets of a partition; every other one may be the mark of a transaction
_STEPS_GROW: Final = 4


@dataclass(frozen=True, slots=True)
class Tail:
    """`records` by time, the newest first. `read_from`: of each partition all from that offset on are there.

    `cut`: partitions that have older ones. `looked_at`: of a page, how many records were read for it.
    """

    records: tuple[ConsumerRecord, ...]
    read_from: Mapping[int, int]
    cut: frozenset[int]
    unreadable: tuple[UnreadableCount, ...] = ()
    looked_at: int = 0


async def read_tail(consumer: TopicReader, topic: str, at_most: int, max_bytes: int) -> Tail:
    """About `at_most` of the newest records, fewer where they are large. `consumer` reads committed ones."""
    bounds = await bounds_of(consumer, await partitions_of(consumer, TopicSelection(topic)))
    edges = {p: bound.end for p, bound in bounds.items()}
    records: list[ConsumerRecord] = []
    room, step = max_bytes, _FIRST_STEP
    while len(records) < at_most and room > 0 and (spans := _before(edges, bounds, step)):
        found = await _some(consumer, spans, room)
        records += found
        room -= sum(map(size_of, found))
        if room > 0:
            edges |= {p: start for p, (start, _) in spans.items()}
        step = max(_FIRST_STEP, min(step * _STEPS_GROW, (at_most - len(records)) // len(spans)))
    records.sort(key=lambda r: (r.timestamp, r.partition, r.offset), reverse=True)
    cut = frozenset(p.partition for p, edge in edges.items() if edge > bounds[p].first)
    read_from = {p.partition: edge for p, edge in edges.items()}
    return Tail(tuple(records), read_from, cut, tuple(consumer.met.counts()))


async def read_page(
    consumer: TopicReader,
    topic: str,
    before: Mapping[int, int] | None,
    takes: Callable[[ConsumerRecord], bool],
    *,
    at_most: int,
    look_at: int,
    max_bytes: int,
) -> Tail:
    """About `at_most` records that `takes` accepts, the newest before those offsets; None: before the end.

    Reads about `look_at` records and `max_bytes`, in whole steps: the next page, before `read_from` of the
    partitions in `cut`, neither misses nor repeats a record. Partitions that `before` lacks are not read.
    """
    bounds = await bounds_of(consumer, await partitions_of(consumer, TopicSelection(topic)))
    edges = {p: _edge(bound, p, before) for p, bound in bounds.items()}
    records: list[ConsumerRecord] = []
    looked, used, step = 0, 0, 1
    while len(records) < at_most and looked < look_at and used < max_bytes:
        spans = _before(edges, bounds, step)
        if not spans:
            break
        async with aclosing(portions(consumer, spans)) as reading:
            async for _, some in reading:
                looked += len(some)
                used += sum(map(size_of, some))
                records += filter(takes, some)
        edges |= {p: start for p, (start, _) in spans.items()}
        # As many more as fit, or as it takes for those that are wanted, if the older ones are alike.
        fit = (max_bytes - used) * looked // max(1, used) if looked else look_at
        lacking = (at_most - len(records)) * looked // max(1, len(records)) if looked else look_at
        most = min(fit, lacking, look_at - looked) // len(spans)
        step = max(1, min(step * 2 * _STEPS_GROW, most))
    records.sort(key=lambda r: (r.timestamp, r.partition, r.offset), reverse=True)
    cut = frozenset(p.partition for p, edge in edges.items() if edge > bounds[p].first)
    read_from = {p.partition: edge for p, edge in edges.items()}
    return Tail(tuple(records), read_from, cut, tuple(consumer.met.counts()), looked)


def _edge(bound: Bounds, partition: TopicPartition, before: Mapping[int, int] | None) -> int:
    if before is None:
        return bound.end
    return min(bound.end, max(bound.first, before.get(partition.partition, bound.first)))


def _before(
    edges: Mapping[TopicPartition, int], bounds: Mapping[TopicPartition, Bounds], step: int
) -> dict[TopicPartition, tuple[int, int]]:
    return {
        p: (max(bounds[p].first, edge - step), edge) for p, edge in edges.items() if edge > bounds[p].first
    }


async def _some(consumer: TopicReader, spans: Spans, max_bytes: int) -> list[ConsumerRecord]:
    """The records of the spans, up to a total size."""
    found: list[ConsumerRecord] = []
    async with aclosing(portions(consumer, spans)) as reading:
        async for _, records in reading:
            for record in records:
                found.append(record)
                max_bytes -= size_of(record)
                if max_bytes <= 0:
                    return found
    return found


def size_of(record: ConsumerRecord) -> int:
    """Its bytes, about."""
    return len(record.value or b"") + sum(len(value or b"") for _, value in record.headers)
