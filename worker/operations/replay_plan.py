"""Where a replay moves each partition to: from what an operator asks for, and what there is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from aiokafka import TopicPartition

from worker.errors import CommandError, UsageError
from worker.operations.offsets import Bounds


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
    """A partition, from the offset that is committed to the one that workers are to go on at."""

    partition: TopicPartition
    bounds: Bounds
    committed: int
    target: int

    @property
    def name(self) -> str:
        """As messages name the partition."""
        return f"{self.partition.topic}-{self.partition.partition}"

    @property
    def replayed(self) -> tuple[int, int]:
        """The offsets that come again."""
        return self.target, max(self.target, self.committed)

    @property
    def skipped(self) -> tuple[int, int]:
        """The offsets that never come, of those that are still there."""
        start = max(self.committed, self.bounds.first)
        return start, max(start, self.target)


def moves(
    target: Target,
    bounds: Mapping[TopicPartition, Bounds],
    committed: Mapping[TopicPartition, int],
    at_time: Mapping[TopicPartition, int],
) -> list[Move]:
    """One for each partition that has a committed offset, which may stay where it is.

    `at_time`: the first record of each partition that is not older than the target's time. A beginning (the
    earliest, a time) never moves a partition forward: where the group has not come that far yet, it comes
    there by itself. Raises UsageError where an offset leads out of what a partition holds, and names the
    partition and what it holds.
    """
    for partition, offset in committed.items():
        _require_the_same_topic(partition, bounds[partition], offset)
    goals = {p: _goal(target, p, bounds[p], committed[p], at_time) for p in sorted(committed)}
    return [Move(p, bounds[p], committed[p], goal) for p, goal in goals.items()]


def _goal(
    target: Target,
    partition: TopicPartition,
    bounds: Bounds,
    committed: int,
    at_time: Mapping[TopicPartition, int],
) -> int:
    match target.to:
        case To.EARLIEST:
            return min(bounds.first, committed)
        case To.TIME:
            return min(at_time[partition], committed)
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


def _require_the_same_topic(partition: TopicPartition, bounds: Bounds, committed: int) -> None:
    if committed > bounds.end:
        raise CommandError(
            f"the group's offset {committed} lies beyond the end of {partition.topic}-{partition.partition},"
            f" {bounds.end}: is it a new topic of the same name, or does a transaction hang there?"
            " nothing was changed; start the workers once, which find out"
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
    raise CommandError(f"nothing to replay: {what}{_expired(planned)}")


def _expired(planned: Sequence[Move]) -> str:
    gone = [move for move in planned if move.committed < move.bounds.first]
    named = ", ".join(f"{m.bounds.first - m.committed} of {m.name}" for m in gone)
    return f"; retention has removed records that the group never came to: {named}" if gone else ""


def remark(target: Target, move: Move) -> str:
    """What an operator should know of a partition, if anything."""
    first, committed = move.bounds.first, move.committed
    if move.target > committed:
        return f"forward from {committed:,} to {move.target:,}; what it skips is done with"
    if committed < first:
        return f"{first - committed:,} removed by retention, never read"
    if move.target == first > 0 and target.to in (To.EARLIEST, To.TIME):
        return f"{first:,} before removed by retention"
    return ""
