"""What is made of looks at a group: lag, rates, and when nothing will wait."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.worker.skips import SkippedSpan
from worker.operations.lag.measure import (
    NO_LEADER,
    NO_SKIPS,
    GroupLag,
    Look,
    MemberName,
    PartitionSnapshot,
    lag_of,
    measure,
    without_leader,
)
from worker.operations.skip.sentences import Skips, sentence

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def place(committed: int | None, end: int, **fields: Any) -> PartitionSnapshot:
    next_record = 0 if committed is None else committed
    known = {"first": 0, "end": end, "committed": committed, "next_record": next_record, "hidden": 0}
    return PartitionSnapshot(**known | {"owner": None} | fields)


def measured(*looks: dict[int, PartitionSnapshot], seconds: float = 1.0, skips: Skips = NO_SKIPS) -> GroupLag:
    taken = [Look(n * seconds, NOW, (), places) for n, places in enumerate(looks)]
    return measure("group", "orders", taken, skips)


def test_lag_counts_from_the_next_record_and_not_from_a_marker_before_it():
    assert lag_of(place(5, 8)) == 3
    assert lag_of(place(5, 8, next_record=6)) == 2
    assert lag_of(place(5, 6, next_record=6)) == 0


def test_a_group_that_never_committed_has_everything_before_it():
    found = measured({0: place(None, 7, first=3), 1: place(None, 0)})
    assert (found.lag, found.never_committed) == (4, True)
    assert found.partitions[0].remarks == ("nothing committed yet",)
    assert found.partitions[1].remarks == ()


def test_a_partition_without_leader_has_no_lag_and_the_others_have_theirs():
    looks = {0: place(1, 5), 1: without_leader(3, "member")}, {0: place(3, 5), 1: without_leader(3, "member")}
    found = measured(*looks)
    assert [(row.end, row.lag, row.remarks) for row in found.partitions] == [
        (5, 2, ()),
        (None, None, (NO_LEADER,)),
    ]
    assert (found.lag, found.partitions[1].pace) == (None, None)


def test_one_look_has_no_rates():
    found = measured({0: place(1, 5)})
    assert (found.pace, found.partitions[0].pace) == (None, None)


def test_time_to_drain_is_the_lag_over_what_is_decided_beyond_what_arrives():
    found = measured({0: place(0, 100), 1: place(0, 0)}, {0: place(60, 120), 1: place(0, 0)}, seconds=2.0)
    pace = found.partitions[0].pace
    assert pace
    assert (pace.decided_per_second, pace.arriving_per_second, pace.seconds_to_drain) == (30, 10, 3)
    assert found.pace == pace
    assert found.partitions[1].pace
    assert found.partitions[1].pace.seconds_to_drain == 0


@pytest.mark.parametrize("decided", [0, 5, 10, -5])
def test_a_lag_that_does_not_fall_never_drains(decided: int):
    found = measured({0: place(50, 100)}, {0: place(50 + decided, 110)})
    assert found.pace
    assert found.pace.seconds_to_drain is None


def test_a_first_commit_counts_from_the_first_record_there_is():
    found = measured({0: place(None, 100, first=40)}, {0: place(60, 100, first=40)})
    assert found.pace
    assert found.pace.decided_per_second == 20


def test_what_is_odd_about_a_partition_is_said():
    deleted = measured({0: place(2, 9, first=5)})
    assert deleted.lag == 4
    assert deleted.partitions[0].remarks == (
        "offsets 2 to 4 were deleted before they were decided, up to 3 records",
    )
    assert "2 offsets behind a transaction" in measured({0: place(9, 9, hidden=2)}).partitions[0].remarks[0]


def test_what_a_worker_has_recorded_as_deleted_is_said_once():
    recorded = SkippedSpan(0, 2, 5, "group", "retention", NOW, "deleted")
    (row,) = measured({0: place(2, 9, first=5)}, skips=Skips([recorded])).partitions
    assert row.remarks == (sentence(recorded),)
    (row,) = measured({0: place(2, 9, first=6)}, skips=Skips([recorded])).partitions
    assert len(row.remarks) == 2, "it has grown since"


def test_an_offset_beyond_the_end_has_no_lag_and_names_the_command():
    found = measured({0: place(9, 2), 1: place(0, 7)}, {0: place(9, 4), 1: place(3, 7)})
    row = found.partitions[0]
    assert (row.lag, row.pace, found.lag, found.pace) == (None, None, None, None)
    assert "committed at 9, 5 offsets beyond the end" in row.remarks[0]
    assert "`order-worker replay --topic orders:0 --to-earliest`" in row.remarks[0]


def test_an_offset_behind_an_open_transaction_is_not_beyond_the_end():
    found = measured({0: place(9, 4, hidden=5)})
    assert (found.lag, found.hidden, found.partitions[0].hidden) == (0, 5, 5)


def test_a_partition_whose_owner_is_no_worker_is_named():
    members = (MemberName("s", "console-consumer", "h"), MemberName("m", "order-worker-1.0.0@a", "h"))
    look = Look(0.0, NOW, members, {0: place(1, 1, owner="s"), 1: place(1, 1, owner="m")})
    theirs, ours = measure("group", "orders", [look]).partitions
    assert "console-consumer) is no worker" in theirs.remarks[0]
    assert ours.remarks == ()


def test_partitions_that_nobody_owns_are_known_where_the_group_has_members():
    looks = [Look(0.0, NOW, (MemberName("m", "c", "h"),), {0: place(1, 1, owner="m"), 1: place(1, 1)})]
    assert measure("group", "orders", looks).unowned == (1,)
    assert measured({0: place(1, 1)}).unowned == ()


def test_skips_are_with_their_partition_and_so_is_why_they_are_not_known():
    spans = [SkippedSpan(1, n, n + 1, "ada", "checksum", NOW + timedelta(hours=n)) for n in range(5)]
    found = measured({0: place(1, 1), 1: place(1, 1)}, skips=Skips(spans))
    assert (found.partitions[0].skips, found.partitions[1].skips) == ((), tuple(spans))
    assert found.partitions[1].remarks == (
        *(sentence(span) for span in spans[2:]),
        "2 earlier spans were skipped or deleted as well: --json lists them",
    )
    assert measured({0: place(1, 1)}, skips=Skips(trouble="away")).skips_trouble == "away"


def test_a_lag_of_a_second_or_less_is_only_on_its_way():
    found = measured({0: place(100, 140), 1: place(0, 10)}, {0: place(200, 240), 1: place(0, 10)})
    paces = [row.pace for row in found.partitions]
    assert [pace and (pace.keeps_up, pace.seconds_to_drain) for pace in paces] == [
        (True, None),
        (False, None),
    ]
