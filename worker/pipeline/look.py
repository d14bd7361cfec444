"""Reads the state of partitions whose leases were just taken: from Kafka, PostgreSQL and the log."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition

from db.worker import positions
from db.worker.positions import PendingBatch
from worker.failures import WaitsForOperatorError
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.reading import TopicReader, reader, records
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.producing.lease import Leases, Taken
from worker.pipeline.resume import Evidence, database_lost, is_cut, may_lie_in_log

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Look:
    """`other_groups`: by partition number, up to where each other group has decided it."""

    evidence: Mapping[TopicPartition, Evidence]
    other_groups: Mapping[int, Mapping[str, int]]


async def look_at(
    held: Mapping[TopicPartition, Taken],
    all_partitions: Collection[TopicPartition],
    group: ConsumerGroup,
    leases: Leases,
) -> Look:
    """Ask Kafka and PostgreSQL once for all partitions. `all_partitions`: of the topic.

    Raises WaitsForOperatorError if PostgreSQL was restored from a backup, and what the servers raise.
    """
    partitions = sorted(held)
    # Of all partitions, and before PostgreSQL is read: other workers continue, and write to PostgreSQL first.
    commits = await leases.committed_offsets(sorted({*partitions, *all_partitions}))
    async with group.sessions() as session:
        pending = await positions.list_pending(session, group.id, group.topic)
        others = await positions.list_other_groups(session, group.id, group.topic)
    if lost := database_lost(group.topic, commits, pending):
        raise WaitsForOperatorError(lost)
    known = {p: one.pending for p, one in held.items() if one.pending}
    firsts, ends, found = await _look_at_logs(leases, partitions, known)
    evidence = {
        p: Evidence(
            commits[p],
            held[p].pending,
            firsts[p],
            ends[p],
            found.get(p, not (p in known and is_cut(known[p], ends[p]))),
        )
        for p in partitions
    }
    return Look(evidence, others)


async def _look_at_logs(
    leases: Leases, partitions: Sequence[TopicPartition], known: Mapping[TopicPartition, PendingBatch]
) -> tuple[Offsets, Offsets, dict[TopicPartition, bool]]:
    """The first offset and the end of each log, and whether it still has the last decided record.

    The last is missing where that record cannot be read: it was deleted, or the log ends before it.
    """
    async with reader(leases.client_options, "read_uncommitted") as consumer:
        firsts = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        lasts = {p: last for p, last in known.items() if may_lie_in_log(last, firsts[p], ends[p])}
        return firsts, ends, await _known_logs(consumer, lasts)


async def _known_logs(
    consumer: TopicReader, lasts: Mapping[TopicPartition, PendingBatch]
) -> dict[TopicPartition, bool]:
    """Whether the last decided record of each partition is still the same record."""
    found = dict.fromkeys(lasts, False)

    def take_for_known(span: UnreadableSpan) -> None:
        # What cannot be unpacked by now is no sign of another log.
        found[span.partition] = True

    spans = {p: (b.pending_to - 1, b.pending_to) for p, b in lasts.items()}
    async for record in records(consumer, spans, take_for_known):
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = record.timestamp == lasts[partition].last_timestamp_ms
    return found
