"""Where a replay moves each partition to: from what an operator asks for, and what there is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.errors import CommandError, UsageError
from worker.kafka.offset_mark import has_decided, is_workers_mark
from worker.kafka.offsets import Bounds
from worker.kafka.published import is_offset_lost
from worker.pipeline.resume import is_cut


class To(Enum):
    """What to go to, by the options of Kafka's own `kafka-consumer-groups --reset-offsets`."""

    EARLIEST = "--to-earliest"
    LATEST = "--to-latest"
    OFFSET = "--to-offset"
    SHIFT = "--shift-by"
    TIME = "--to-datetime"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go. `number` is the offset, or the shift from the committed one; `time` is aware UTC."""

    to: To
    number: int = 0
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A partition, from the offset that is committed to the one that workers are to continue at.

    `log_end`: behind its last record, committed or not. `committed` may lie beyond it.
    """

    partition: TopicPartition
    bounds: Bounds
    log_end: int
    committed: int
    target: int

    @property
    def name(self) -> str:
        """As messages name the partition."""
        return f"{self.partition.topic}-{self.partition.partition}"

    @property
    def beyond(self) -> int:
        """How far the committed offset lies beyond the end: the log was cut, or recreated."""
        return max(0, self.committed - self.log_end)

    @property
    def deleted(self) -> int:
        """How many offsets were deleted before the group came to them."""
        return max(0, self.bounds.first - self.committed)

    @property
    def replayed(self) -> tuple[int, int]:
        """The offsets that come again, and are there to be read."""
        return self.target, max(self.target, min(self.committed, self.bounds.end))

    @property
    def skipped(self) -> tuple[int, int]:
        """The offsets that never come, of those that are still there."""
        # Beyond the log's end: it is unknown which of its records were read.
        start = self.bounds.first if self.beyond else max(self.committed, self.bounds.first)
        return start, max(start, self.target)


def reached_to(
    partition: TopicPartition, commit: OffsetAndMetadata | None, pending: PendingBatch | None, log_end: int
) -> int | None:
    """The offset that the group's workers came to; None: the group has decided nothing here.

    If the log ends before `pending` of PostgreSQL, that is the offset, whatever Kafka reports. Otherwise, if
    Kafka has forgotten what was committed, a move would count as an operator's and hide that: raises
    CommandError.
    """
    committed = None if commit is None else commit.offset
    if pending is None:
        return committed if has_decided(commit) else None
    if commit is not None and not is_workers_mark(commit.metadata):
        return committed
    if is_cut(pending, log_end):
        return max(committed or 0, pending.pending_to)
    if not is_offset_lost(committed, pending):
        return committed
    raise CommandError(
        f"Kafka reports {'no offset' if committed is None else f'the offset {committed}'} of the group in"
        f" {partition.topic}-{partition.partition}, and its workers came to {pending.published_to} at least;"
        " nothing was changed; start them once, which find out what is true, stop them, and try again"
    )


def moves(
    target: Target,
    bounds: Mapping[TopicPartition, Bounds],
    log_ends: Mapping[TopicPartition, int],
    committed: Mapping[TopicPartition, int],
    at_time: Mapping[TopicPartition, int],
) -> list[Move]:
    """One for each partition that has a committed offset, which may stay where it is.

    `log_ends`: where each log ends, with what is not committed. `at_time`: the first record of each partition
    that is not older than the target's time. A beginning (the earliest, a time) never moves a partition
    forward over a record: where the group has not come that far yet, it comes there by itself. Raises
    UsageError where an offset leads out of what a partition holds, and names the partition and what it holds.
    """
    for partition, offset in committed.items():
        _require_nothing_hidden(partition, bounds[partition], log_ends[partition], offset)
    goals = {p: _goal(target, p, bounds[p], committed[p], at_time) for p in sorted(committed)}
    return [Move(p, bounds[p], log_ends[p], committed[p], goal) for p, goal in goals.items()]


def _goal(
    target: Target,
    partition: TopicPartition,
    bounds: Bounds,
    committed: int,
    at_time: Mapping[TopicPartition, int],
) -> int:
    match target.to:
        case To.EARLIEST:
            return bounds.first
        case To.TIME:
            return max(bounds.first, min(at_time[partition], committed))
        case To.LATEST:
            return bounds.end
        case To.OFFSET:
            return _within(target, partition, bounds, target.number, "")
        case To.SHIFT:
            return _within(
                target, partition, bounds, committed + target.number, f", and {committed} is committed"
            )


def _within(target: Target, partition: TopicPartition, bounds: Bounds, goal: int, further: str) -> int:
    if bounds.first <= goal <= bounds.end:
        return goal
    gone = ""
    if goal < bounds.first:
        gone = f"; retention has removed the {bounds.first} before"
    raise UsageError(
        f"{target.to.value} {target.number}: {partition.topic}-{partition.partition} holds offsets"
        f" {bounds.first} to {bounds.end}{further}{gone}; nothing was changed"
    )


def _require_nothing_hidden(partition: TopicPartition, bounds: Bounds, log_end: int, committed: int) -> None:
    if bounds.end < committed <= log_end:
        raise CommandError(
            f"an open transaction hides {partition.topic}-{partition.partition} from offset {bounds.end} on,"
            f" and {committed} is committed: nothing was changed; end it (`kafka-transactions.sh"
            " find-hanging`, then `abort`) and run this again"
        )


def require_records(target: Target, planned: Sequence[Move]) -> None:
    """There is something to move, or a CommandError says why not."""
    if any(move.target != move.committed for move in planned):
        return
    if target.to in (To.OFFSET, To.SHIFT, To.LATEST):
        raise CommandError(f"nothing to replay: {target.to.value} is where the group is")
    what = "no record that the group has come to lies there"
    if target.to is To.TIME:
        assert target.time is not None
        what = f"the group has come to no record since {target.time.isoformat()}"
    raise CommandError(f"nothing to replay: {what}")


def remark(target: Target, move: Move) -> str:
    """What an operator should know of a partition, if anything."""
    first, committed = move.bounds.first, move.committed
    if move.beyond:
        return (
            f"committed {committed:,} lies {move.beyond:,} beyond the end {move.log_end:,}:"
            " the log was cut or recreated"
        )
    if move.deleted:
        return f"{move.deleted:,} deleted before they were decided, from {committed:,} on"
    if move.target > committed:
        return f"forward from {committed:,} to {move.target:,}; what it skips is done with"
    if move.target == first > 0 and target.to in (To.EARLIEST, To.TIME):
        return f"{first:,} before removed by retention"
    return ""
