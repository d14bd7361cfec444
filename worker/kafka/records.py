"""The records of a poll, by partition: grouped, cut into batches, joined again. Pure."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from aiokafka import ConsumerRecord, TopicPartition

Records = dict[TopicPartition, list[ConsumerRecord]]


def by_partition(records: Sequence[ConsumerRecord]) -> Records:
    """Each partition's records, in their order."""
    grouped: Records = {}
    # A poll has few runs of many records.
    for (topic, partition), run in groupby(records, attrgetter("topic", "partition")):
        grouped.setdefault(TopicPartition(topic, partition), []).extend(run)
    return grouped


def cut(batch: Records, max_bytes: int) -> tuple[Records, Records]:
    """The first records of the batch with at most `max_bytes` of values, at least one; and the rest.

    Each partition's records keep their order. An order's objects take some 13 times the bytes of its JSON, so
    the bound on a batch's memory is in bytes, not in records.
    """
    if sum(len(record.value or b"") for records in batch.values() for record in records) <= max_bytes:
        return batch, {}
    first: Records = {}
    rest: Records = {}
    size = 0
    for partition, records in batch.items():
        for record in records:
            size += len(record.value or b"")
            part = first if not first or (size <= max_bytes and not rest) else rest
            part.setdefault(partition, []).append(record)
    return first, rest


def estimate_fit(records: Sequence[ConsumerRecord], max_records: int, max_bytes: int) -> int:
    """How many records of the average size of these have at most `max_bytes` of values.

    At least one, at most `max_records`.
    """
    size = sum(len(record.value or b"") for record in records)
    return max(1, min(max_records, max_bytes * len(records) // size)) if size else max_records


def joined(first: Records, rest: Records) -> Records:
    """The inverse of `cut`."""
    return {p: first.get(p, []) + rest.get(p, []) for p in [*first, *(p for p in rest if p not in first)]}


def before(batch: Records, partition: TopicPartition, offset: int) -> Records:
    """The records without those of that partition from the offset on."""
    left = [record for record in batch[partition] if record.offset < offset]
    others = {p: records for p, records in batch.items() if p != partition}
    return {**others, partition: left} if left else others


def firsts(batch: Records) -> dict[TopicPartition, int | None]:
    """The offset of each partition's first record."""
    return {p: records[0].offset for p, records in batch.items()}


def names(firsts: Mapping[TopicPartition, int | None]) -> str:
    """As the log names them: each partition, at its first offset where that is known."""
    return ", ".join(
        f"{p.topic}-{p.partition}" + ("" if first is None else f"@{first}") for p, first in firsts.items()
    )
