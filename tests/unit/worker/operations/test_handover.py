"""What a group takes over of another, by what Kafka and PostgreSQL know of both."""

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.errors import CommandError
from worker.kafka.offset_mark import MARK, idle_mark
from worker.operations.replay.handover import (
    Handover,
    PartitionStanding,
    Stage,
    require_furthest,
    require_possible,
)


def standing(offset: int | None = None, decided_to: int | None = None, mark: str = MARK) -> PartitionStanding:
    commit = None if offset is None else OffsetAndMetadata(offset, mark)
    return PartitionStanding(
        commit, None if decided_to is None else PendingBatch(decided_to - 10, decided_to, 0, None)
    )


def handover(old: PartitionStanding, new: PartitionStanding, partition: int = 0) -> Handover:
    return Handover(TopicPartition("orders", partition), old, new, end=100)


NOTHING, OLD = standing(), standing(50, 50)
IDLE = standing(3, mark=idle_mark(None))  # behind markers; nothing was decided


@pytest.mark.parametrize(
    ("old", "new", "stage"),
    [
        (NOTHING, NOTHING, Stage.NOTHING),
        (NOTHING, standing(10, 10), Stage.NOTHING),
        (IDLE, NOTHING, Stage.NOTHING),
        (OLD, IDLE, Stage.AHEAD),
        (OLD, NOTHING, Stage.AHEAD),
        (standing(50), NOTHING, Stage.AHEAD),
        (standing(None, 50), NOTHING, Stage.AHEAD),
        (OLD, standing(None, 50), Stage.AHEAD),  # killed between the copy and the commit
        (standing(20, 50, mark=""), standing(20, mark=""), Stage.AHEAD),  # killed before the copy
        (OLD, OLD, Stage.DONE),
        (OLD, standing(80, 80), Stage.DONE),
        (OLD, standing(None, 80), Stage.DONE),
        (standing(50), standing(50), Stage.DONE),
        (OLD, standing(60), None),
        (OLD, standing(20), None),
        (OLD, standing(20, 20), None),
        (standing(50), standing(20), None),
    ],
)
def test_each_partition_is_at_one_stage(old: PartitionStanding, new: PartitionStanding, stage: Stage | None):
    assert handover(old, new).stage is stage


@pytest.mark.parametrize(
    ("old", "remark"),
    [
        (OLD, ""),
        (standing(40, 50), ""),  # the latest batch is not committed
        (standing(50), ""),
        (standing(None, 50), "Kafka has forgotten the offset; its workers came to 40 at least"),
        (standing(30, 50), "Kafka has lost a commit; its workers came to 40 at least"),
        (standing(5, 50, mark=""), "an operator moved it to 5; its workers came to 50"),
    ],
)
def test_where_kafka_and_postgresql_differ_it_is_said(old: PartitionStanding, remark: str):
    assert handover(old, NOTHING).remark == remark


def test_each_obstacle_is_named():
    with pytest.raises(CommandError, match="the group a has committed nothing in orders-0, orders-1"):
        require_possible("a", "b", [handover(NOTHING, NOTHING), handover(NOTHING, OLD, 1)])
    with pytest.raises(CommandError, match=r"orders-1 \(offset 7, a: offset 50, decided to 50\)"):
        require_possible("a", "b", [handover(OLD, NOTHING), handover(OLD, standing(7), 1)])
    with pytest.raises(CommandError, match=r"orders-0 \(40, not 50\): is it restored from a backup"):
        require_possible("a", "b", [handover(standing(50, 40), NOTHING)])
    require_possible("a", "b", [handover(OLD, NOTHING), handover(NOTHING, NOTHING, 1)])


def test_a_group_that_was_overtaken_by_another_is_not_the_one_to_take_over():
    with pytest.raises(CommandError, match=r"b has decided orders-0 to 60.*replay --from-group b`"):
        require_furthest("a", [handover(OLD, NOTHING)], {0: {"b": 60, "a": 50}})
    require_furthest("a", [handover(OLD, NOTHING)], {0: {"a": 50, "b": 50}})
    # Run again once the new group has continued from the one that came furthest.
    require_furthest("a", [handover(OLD, standing(70, 70))], {0: {"b": 60, "a": 50}})
