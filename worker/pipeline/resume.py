"""Decides where a worker resumes a partition that it takes over, by the state of Kafka and PostgreSQL. Pure.

The two may disagree: Kafka may lose commits, PostgreSQL may be restored from a backup, the log may be
truncated, recreated, or shortened by retention. Each case has one answer here, and `worker.pipeline.takeover`
acts on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.kafka.offset_mark import is_unmarked, is_workers_mark, pending_when_committed


@dataclass(frozen=True, slots=True)
class Evidence:
    """The state of one partition.

    `first` and `end`: the offsets of the log. `is_known_log`: the last decided record is still the same, or
    deleted along with those before it; only checked if `pending` is known.
    """

    committed: OffsetAndMetadata | None
    pending: PendingBatch | None
    first: int
    end: int
    is_known_log: bool = True

    @property
    def offset(self) -> int | None:
        return None if self.committed is None else self.committed.offset

    @property
    def was_moved(self) -> bool:
        """Whether another client than a worker committed the offset."""
        return self.committed is not None and not is_workers_mark(self.committed.metadata)

    @property
    def is_unmarked(self) -> bool:
        """Whether neither a worker nor `order-worker replay` committed the offset."""
        return self.committed is not None and is_unmarked(self.committed.metadata)


class Case(Enum):
    """What a take-over has to do."""

    COMMITTED = auto()  # continue at the committed offset
    LOST_COMMIT = auto()  # Kafka may have lost a commit: the outcome topics show how far the group came
    MOVED_ON = auto()  # a client that is no worker moved the group past what is published: go back there
    OTHER_LOG = auto()  # the log was truncated or recreated: read it from the start, publish nothing again


def case_of(evidence: Evidence) -> Case:
    """Which case the evidence is."""
    offset, pending = evidence.offset, evidence.pending
    if offset is not None and offset > evidence.end:
        return Case.OTHER_LOG
    if pending is None:
        return Case.COMMITTED
    if not evidence.is_known_log:
        return Case.OTHER_LOG
    if evidence.is_unmarked and offset is not None and offset > pending.published_to:
        return Case.MOVED_ON
    if not evidence.was_moved and (offset is None or offset < pending.pending_to):
        return Case.LOST_COMMIT
    return Case.COMMITTED


def may_lie_in_log(pending: PendingBatch, first: int, end: int) -> bool:
    """Whether the last decided record can be read: it is neither deleted nor after the log's end."""
    return first < pending.pending_to <= end


def is_cut(pending: PendingBatch, end: int) -> bool:
    """Whether the log ends before its last decided record."""
    return pending.pending_to > end


def is_all_deleted(evidence: Evidence) -> bool:
    """Whether of the latest batch no record is left that could be published from once more."""
    return evidence.pending is not None and evidence.pending.pending_to <= evidence.first


def is_past_markers(evidence: Evidence) -> bool:
    """Whether an idle worker has committed the offset, after the batch that the pending one follows.

    Only offsets with nothing to decide lie between the two.
    """
    committed, pending = evidence.committed, evidence.pending
    if committed is None or pending is None or not is_workers_mark(committed.metadata):
        return False
    known = pending_when_committed(committed.offset, committed.metadata)
    return bool(known == pending.published_to < committed.offset)


def deleted_before_decided(evidence: Evidence, resume_at: int) -> tuple[int, int] | None:
    """The offsets that retention deleted before their records were decided; None: there are none."""
    decided_to = evidence.pending.published_to if evidence.pending else 0
    start = max(resume_at, decided_to)
    return (start, evidence.first) if start < evidence.first else None


def database_lost(
    topic: str,
    commits: Mapping[TopicPartition, OffsetAndMetadata | None],
    pending: Mapping[int, PendingBatch],
) -> str | None:
    """The message if PostgreSQL has less than Kafka has committed (restored from a backup?); else None.

    All partitions of the topic are checked, because the lost orders took stock: with the backup's stock,
    orders of other partitions would be confirmed that cannot be delivered. `commits` has to be read before
    `pending`, which runs ahead of it.
    """
    lost = []
    for partition, commit in sorted(commits.items()):
        if commit is None or not is_workers_mark(commit.metadata):
            continue
        known = pending[partition.partition].pending_to if partition.partition in pending else 0
        expected = pending_when_committed(commit.offset, commit.metadata)
        if expected > known:
            lost.append(f"{topic}-{partition.partition} ({known}, not {expected})")
    if not lost:
        return None
    return (
        f"PostgreSQL knows less than was decided, of {', '.join(lost)}: is it restored from a backup?"
        " Bring its rows back with `order-worker ledger restore`"
    )


def decided_by_another_group(
    partition: TopicPartition, evidence: Evidence, others: Sequence[str], group_id: str
) -> str | None:
    """The message if this group is new and others have decided the partition; else None.

    `others`: the group that came furthest first. Continuing from an earlier one would publish outcomes again.
    """
    if evidence.committed is not None or evidence.pending is not None or not others:
        return None
    return (
        f"{partition.topic}-{partition.partition} was decided by the group {', '.join(others)}, and"
        f" {group_id} is new: all its outcomes would be published again. Take its offsets over with"
        f" `order-worker replay --from-group {others[0]}`, or set ORDER_WORKER_GROUP_ID back"
    )
