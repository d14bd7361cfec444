"""Where a worker goes on in a partition that it takes over, from what Kafka and PostgreSQL say of it. Pure.

They may disagree: Kafka may lose commits, PostgreSQL may be that of a backup, the log may be cut, made anew,
or shortened by retention. Each case has one answer here, and `worker.pipeline.takeover` acts on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.kafka.offset_mark import is_workers_mark, may_be_a_strangers, pending_when_committed


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one partition.

    `first` and `end`: the offsets of the log. `is_known_log`: the last record that was decided is still what
    it was, or deleted along with those before it; only asked where `pending` is known.
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
    def by_operator(self) -> bool:
        return self.committed is not None and not is_workers_mark(self.committed.metadata)

    @property
    def may_be_a_strangers(self) -> bool:
        return self.committed is not None and may_be_a_strangers(self.committed.metadata)


class Case(Enum):
    """What a take-over has to do."""

    COMMITTED = auto()  # go on at the committed offset
    LOST_COMMIT = auto()  # Kafka may have lost a commit: the outcome topics tell how far the group came
    MOVED_ON = auto()  # somebody who is no worker moved the group past what is published: go on behind that
    OTHER_LOG = auto()  # the log was cut or made anew: read it from its first record, publish nothing again


def case_of(evidence: Evidence) -> Case:
    """The one case that the evidence makes."""
    offset, pending = evidence.offset, evidence.pending
    if offset is not None and offset > evidence.end:
        return Case.OTHER_LOG
    if pending is None:
        return Case.COMMITTED
    if not evidence.is_known_log:
        return Case.OTHER_LOG
    if evidence.may_be_a_strangers and offset is not None and offset > pending.published_to:
        return Case.MOVED_ON
    if not evidence.by_operator and (offset is None or offset < pending.pending_to):
        return Case.LOST_COMMIT
    return Case.COMMITTED


def may_lie_in_log(pending: PendingBatch, first: int, end: int) -> bool:
    """Whether the last record that was decided can be looked at: it is neither deleted nor behind the end."""
    return first < pending.pending_to <= end


def is_cut(pending: PendingBatch, end: int) -> bool:
    """Whether the log ends before what was decided of it."""
    return pending.pending_to > end


def is_all_deleted(evidence: Evidence) -> bool:
    """Whether of the latest batch no record is left that could be published from once more."""
    return evidence.pending is not None and evidence.pending.pending_to <= evidence.first


def deleted_before_decided(evidence: Evidence, resume_at: int) -> tuple[int, int] | None:
    """The offsets that retention deleted before anybody decided what lay there; None: there are none."""
    decided_to = evidence.pending.published_to if evidence.pending else 0
    start = max(resume_at, decided_to)
    return (start, evidence.first) if start < evidence.first else None


def database_lost(
    topic: str,
    commits: Mapping[TopicPartition, OffsetAndMetadata | None],
    pending: Mapping[int, PendingBatch],
) -> str | None:
    """What to say where PostgreSQL knows less than Kafka has committed: it is that of a backup. Else None.

    Asked of all partitions of the topic, because the orders that are lost held stock: decided on top of what
    the backup has, orders of another partition would be confirmed that cannot be served. `commits` has to be
    older than `pending`, which runs ahead of it.
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
    """What to say where this group is new and others have decided the partition. Else None.

    `others`: the one that came furthest first. To go on from an earlier one would publish outcomes again.
    """
    if evidence.committed is not None or evidence.pending is not None or not others:
        return None
    return (
        f"{partition.topic}-{partition.partition} was decided by the group {', '.join(others)}, and"
        f" {group_id} is new: all its outcomes would be published again. Take its offsets over with"
        f" `order-worker replay --from-group {others[0]}`, or set ORDER_WORKER_GROUP_ID back"
    )
