"""Where a replay moves each partition to."""

from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from db.worker.positions import PendingBatch
from worker.errors import CommandError, UsageError
from worker.kafka.offsets import Bounds
from worker.operations.replay.plan import Target, To, moves, reached_to, remark, require_records

ONE, TWO = TopicPartition("orders", 1), TopicPartition("orders", 2)
BOUNDS = {ONE: Bounds(10, 100), TWO: Bounds(0, 50)}
LOG_ENDS = {ONE: 110, TWO: 50}  # ten of the first are hidden by an open transaction
COMMITTED = {ONE: 80, TWO: 50}
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def commit_of(offset: int, metadata: str = "order-worker") -> OffsetAndMetadata:
    return OffsetAndMetadata(offset, metadata)


def goals(target: Target, committed=COMMITTED, at_time=None):
    return [move.target for move in moves(target, BOUNDS, LOG_ENDS, committed, at_time or {})]


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
def test_a_beginning_is_the_first_record_also_if_retention_overtook_the_group(target: Target):
    (move,) = moves(target, BOUNDS, LOG_ENDS, {ONE: 3}, {ONE: 40})
    assert (move.target, move.deleted, move.skipped) == (10, 7, (10, 10)), "no record is skipped"
    assert remark(target, move) == "7 deleted before they were decided, from 3 on"
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


def test_what_an_open_transaction_hides_is_not_taken_for_the_end():
    with pytest.raises(CommandError, match="hides orders-1 from offset 100 on, and 101 is committed"):
        goals(Target(To.EARLIEST), {ONE: 101})


@pytest.mark.parametrize(("target", "goal"), [(Target(To.EARLIEST), 10), (Target(To.OFFSET, 30), 30)])
def test_a_group_beyond_the_end_of_the_log_goes_back_and_skips_nothing(target: Target, goal: int):
    (move,) = moves(target, BOUNDS, LOG_ENDS, {ONE: 1_000}, {})
    assert (move.target, move.beyond) == (goal, 890)
    assert move.replayed == (goal, 100), "all that can be read"
    assert move.skipped == (10, goal), "whatever came since the log was cut may lie there"
    assert remark(target, move) == (
        "committed 1,000 lies 890 beyond the end 110: the log was cut or recreated"
    )


PENDING_BATCH = PendingBatch(40, 50, 0, None)


@pytest.mark.parametrize(
    ("commit", "pending", "reached"),
    [
        (None, None, None),
        (commit_of(40), None, 40),
        (commit_of(3, "order-worker 0"), None, None),  # an idle worker, behind markers
        (commit_of(3, ""), None, 3),
        (commit_of(50), PENDING_BATCH, 50),
        (commit_of(30, ""), PENDING_BATCH, 30),  # an operator moved it back
        (commit_of(52, "order-worker 50"), PENDING_BATCH, 52),
    ],
)
def test_a_group_came_as_far_as_kafka_reports(
    commit: OffsetAndMetadata | None, pending: PendingBatch | None, reached: int | None
):
    assert reached_to(ONE, commit, pending, log_end=60) == reached


@pytest.mark.parametrize("commit", [None, commit_of(30)])
def test_an_offset_that_kafka_has_forgotten_is_refused_unless_the_log_ends_before_it(
    commit: OffsetAndMetadata | None,
):
    with pytest.raises(CommandError, match="its workers came to 40 at least; nothing was changed"):
        reached_to(ONE, commit, PENDING_BATCH, log_end=50)
    assert reached_to(ONE, commit, PENDING_BATCH, log_end=49) == 50


def test_where_the_log_was_truncated_an_operators_offset_is_still_used():
    assert reached_to(ONE, commit_of(30, ""), PENDING_BATCH, log_end=20) == 30
    assert reached_to(ONE, commit_of(70), PENDING_BATCH, log_end=20) == 70


def test_what_comes_again_and_what_is_skipped():
    back, forth = moves(Target(To.OFFSET, 20), BOUNDS, LOG_ENDS, {ONE: 80, TWO: 5}, {})
    assert (back.replayed, back.skipped) == ((20, 80), (80, 80))
    assert (forth.replayed, forth.skipped) == ((20, 20), (5, 20))
    (overtaken,) = moves(Target(To.LATEST), BOUNDS, LOG_ENDS, {ONE: 3}, {})
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
        require_records(target, moves(target, BOUNDS, LOG_ENDS, COMMITTED, {ONE: 80, TWO: 50}))


def test_retention_is_mentioned_where_it_limits_what_comes_again():
    limited, whole = moves(Target(To.EARLIEST), BOUNDS, LOG_ENDS, COMMITTED, {})
    assert remark(Target(To.EARLIEST), limited) == "10 before removed by retention"
    assert remark(Target(To.EARLIEST), whole) == ""
    assert remark(Target(To.OFFSET, 10), limited) == ""
