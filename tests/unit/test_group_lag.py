"""What is made of looks at a group: lag, rates, and when nothing will wait."""

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.operations.group_lag import GroupLag, Look, Place, lag_of, measure

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def place(committed: int | None, end: int, **fields: Any) -> Place:
    next_record = 0 if committed is None else committed
    return Place(**{"first": 0, "end": end, "committed": committed, "next_record": next_record, "hidden": 0,
                    "owner": None, **fields})  # fmt: skip


def measured(*looks: dict[int, Place], seconds: float = 1.0) -> GroupLag:
    taken = [Look(n * seconds, NOW, (), places) for n, places in enumerate(looks)]
    return measure("group", "orders", taken)


def test_lag_counts_from_the_next_record_and_not_from_a_marker_before_it():
    assert lag_of(place(5, 8)) == 3
    assert lag_of(place(5, 8, next_record=6)) == 2
    assert lag_of(place(5, 6, next_record=6)) == 0


def test_a_group_that_never_committed_has_everything_before_it():
    found = measured({0: place(None, 7, first=3), 1: place(None, 0)})
    assert (found.lag, found.never_committed) == (4, True)
    assert found.partitions[0].remarks == ("nothing committed yet",)
    assert found.partitions[1].remarks == ()


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
def test_a_lag_that_grows_or_stands_never_drains(decided: int):
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
    assert "3 offsets were deleted before they were decided" in deleted.partitions[0].remarks
    assert "is the topic a new one?" in measured({0: place(9, 2)}).partitions[0].remarks[0]
    assert "2 offsets behind a transaction" in measured({0: place(9, 9, hidden=2)}).partitions[0].remarks[0]


def test_a_lag_of_a_second_or_less_is_only_on_its_way():
    found = measured({0: place(100, 140), 1: place(0, 10)}, {0: place(200, 240), 1: place(0, 10)})
    paces = [row.pace for row in found.partitions]
    assert [pace and (pace.keeps_up, pace.seconds_to_drain) for pace in paces] == [
        (True, None),
        (False, None),
    ]
