"""What one consumer group takes over of another, partition by partition. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.errors import CommandError
from worker.kafka.offset_mark import has_decided, is_workers_mark
from worker.pipeline.resume import database_lost


class Stage(Enum):
    """How far a partition's takeover has come."""

    NOTHING = "the old group has decided nothing"
    AHEAD = "to be taken over"
    DONE = "taken over"


@dataclass(frozen=True, slots=True)
class PartitionStanding:
    """How far a group is in a partition, according to Kafka (`commit`) and PostgreSQL (`pending`)."""

    commit: OffsetAndMetadata | None
    pending: PendingBatch | None

    @property
    def has_decided(self) -> bool:
        return self.pending is not None or has_decided(self.commit)

    @property
    def offset(self) -> int | None:
        return None if self.commit is None else self.commit.offset


@dataclass(frozen=True, slots=True)
class Handover:
    """One partition, as both groups stand in it. `end`: behind the last committed record."""

    partition: TopicPartition
    old: PartitionStanding
    new: PartitionStanding
    end: int

    @property
    def name(self) -> str:
        """As messages name the partition."""
        return f"{self.partition.topic}-{self.partition.partition}"

    @property
    def new_decided_to(self) -> int:
        return self.new.pending.pending_to if self.new.pending else 0

    @property
    def stage(self) -> Stage | None:
        """None: the new group has gone a way of its own, and cannot take anything over."""
        old, new = self.old, self.new
        if not old.has_decided:
            return Stage.NOTHING
        if not has_decided(new.commit) and (new.pending is None or new.pending == old.pending):
            # The row is copied before the offset is committed: killed between them, it is done once more.
            return Stage.AHEAD
        if new.pending is None:
            return (
                Stage.AHEAD if new.commit == old.commit and old.pending is not None else _if_equal(old, new)
            )
        is_as_far = old.pending is None or new.pending.pending_to >= old.pending.pending_to
        return Stage.DONE if is_as_far else None

    @property
    def remark(self) -> str:
        """Where Kafka and PostgreSQL differ about the old group."""
        commit, pending = self.old.commit, self.old.pending
        if pending is None:
            return ""
        if commit is None:
            return f"Kafka has forgotten the offset; its workers came to {pending.published_to:,} at least"
        if not is_workers_mark(commit.metadata):
            return f"an operator moved it to {commit.offset:,}; its workers came to {pending.pending_to:,}"
        if commit.offset < pending.published_to:
            return f"Kafka has lost a commit; its workers came to {pending.published_to:,} at least"
        return ""


def _if_equal(old: PartitionStanding, new: PartitionStanding) -> Stage | None:
    return Stage.DONE if new.commit == old.commit else None


def require_possible(old_group: str, new_group: str, handovers: Sequence[Handover]) -> None:
    """There is something to take over, and nothing stands against it, or a CommandError says what does."""
    if all(one.stage is Stage.NOTHING for one in handovers):
        names = ", ".join(one.name for one in handovers)
        raise CommandError(
            f"the group {old_group} has committed nothing in {names}: is that its name, and the topic's?"
            " nothing was changed"
        )
    apart = [one for one in handovers if one.stage is None]
    if apart:
        ways = ", ".join(f"{one.name} ({_way(one.new)}, {old_group}: {_way(one.old)})" for one in apart)
        raise CommandError(
            f"the group {new_group} has an offset of its own in {ways}; nothing was changed: set"
            " ORDER_WORKER_GROUP_ID to a name that no group has had, or delete its offsets"
            " (`kafka-consumer-groups.sh --delete-offsets`) if no worker of it has ever run"
        )
    _require_known(handovers)


def require_furthest(
    old_group: str, handovers: Sequence[Handover], others: Mapping[int, Mapping[str, int]]
) -> None:
    """No other group came further than this one, or a CommandError names it: its outcomes would come again.

    `others`: by partition, up to where all groups but the new one have decided it, from PostgreSQL.
    """
    ahead = [
        (one, other, to)
        for one in handovers
        for other, to in others.get(one.partition.partition, {}).items()
        if other != old_group
        and to > max(one.old.pending.pending_to if one.old.pending else 0, one.new_decided_to)
    ]
    if ahead:
        ways = ", ".join(f"{other} has decided {one.name} to {to:,}" for one, other, to in ahead)
        raise CommandError(
            f"{ways}, which is further than {old_group}: its outcomes would be published again; nothing was"
            f" changed: take over the last one of them, `order-worker replay --from-group {ahead[0][1]}`"
        )


def _require_known(handovers: Sequence[Handover]) -> None:
    commits = {one.partition: one.old.commit for one in handovers}
    pending = {one.partition.partition: one.old.pending for one in handovers if one.old.pending}
    if lost := database_lost(handovers[0].partition.topic, commits, pending):
        raise CommandError(f"{lost}; nothing was changed")


def _way(of: PartitionStanding) -> str:
    if of.pending is None:
        return f"offset {of.offset}"
    return f"offset {of.offset}, decided to {of.pending.pending_to}"
