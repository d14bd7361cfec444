"""Where a replay moves each partition to."""

from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition

from worker.errors import CommandError, UsageError
from worker.operations.offsets import Bounds
from worker.operations.replay_plan import Target, To, moves, remark, require_records

ONE, TWO = TopicPartition("orders", 1), TopicPartition("orders", 2)
BOUNDS = {ONE: Bounds(10, 100), TWO: Bounds(0, 50)}
COMMITTED = {ONE: 80, TWO: 50}
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def goals(target: Target, committed=COMMITTED, at_time=None):
    return [move.target for move in moves(target, BOUNDS, committed, at_time or {})]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target(To.EARLIEST), [10, 0]),
        (Target(To.LATEST), [100, 50]),
        (Target(To.OFFSET, 20), [20, 20]),
        (Target(To.SHIFT, -50), [30, 0]),
        (Target(To.SHIFT, 0), [80, 50]),
    ],
)
def test_the_options_mean_what_they_mean_in_kafkas_own_tool(target: Target, expected: list[int]):
    assert goals(target) == expected


def test_a_time_is_where_its_first_record_is_and_never_ahead_of_the_group():
    assert goals(Target(To.TIME, time=NOON), at_time={ONE: 40, TWO: 50}) == [40, 50]
    # Behind the time there are records that the group has not come to: they come by themselves.
    assert goals(Target(To.TIME, time=NOON), at_time={ONE: 100, TWO: 50}) == [80, 50]


@pytest.mark.parametrize("target", [Target(To.EARLIEST), Target(To.TIME, time=NOON)])
def test_a_beginning_never_moves_a_group_forward_that_retention_has_overtaken(target: Target):
    (move,) = moves(target, BOUNDS, {ONE: 3}, {ONE: 10})
    assert move.target == 3
    assert remark(target, move) == "7 removed by retention, never read"
    with pytest.raises(CommandError, match=r"retention has removed records .* never came to: 7 of orders-1"):
        require_records(target, [move])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            Target(To.OFFSET, 5),
            "--to-offset 5: orders-1 holds offsets 10 to 100; retention has removed the 10",
        ),
        (Target(To.OFFSET, 60), "--to-offset 60: orders-2 holds offsets 0 to 50; nothing was changed"),
        (Target(To.SHIFT, 21), "--shift-by 21: orders-1 holds offsets 10 to 100, and 80 is committed"),
        (Target(To.SHIFT, -71), "retention has removed the 10 before"),
    ],
)
def test_an_offset_that_is_not_there_is_refused_with_what_is(target: Target, said: str):
    with pytest.raises(UsageError, match=said):
        goals(target)


def test_a_group_beyond_the_end_of_its_topic_is_refused():
    with pytest.raises(CommandError, match="101 lies beyond the end of orders-1, 100"):
        goals(Target(To.EARLIEST), {ONE: 101})


def test_what_comes_again_and_what_is_skipped():
    back, forth = moves(Target(To.OFFSET, 20), BOUNDS, {ONE: 80, TWO: 5}, {})
    assert (back.replayed, back.skipped) == ((20, 80), (80, 80))
    assert (forth.replayed, forth.skipped) == ((20, 20), (5, 20))
    (overtaken,) = moves(Target(To.LATEST), BOUNDS, {ONE: 3}, {})
    assert overtaken.skipped == (10, 100), "what retention has removed cannot be read"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(To.SHIFT, 0), "nothing to replay: --shift-by is where the group is"),
        (Target(To.TIME, time=NOON), "no record since 2026-11-23T12:00:00"),
    ],
)
def test_nothing_to_move_is_refused(target: Target, said: str):
    with pytest.raises(CommandError, match=said):
        require_records(target, moves(target, BOUNDS, COMMITTED, {ONE: 80, TWO: 50}))


def test_retention_is_mentioned_where_it_limits_what_comes_again():
    limited, whole = moves(Target(To.EARLIEST), BOUNDS, COMMITTED, {})
    assert remark(Target(To.EARLIEST), limited) == "10 before removed by retention"
    assert remark(Target(To.EARLIEST), whole) == ""
    assert remark(Target(To.OFFSET, 10), limited) == ""
