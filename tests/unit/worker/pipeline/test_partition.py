"""The rules of one partition, as a table: what is admitted, dropped, asked for again and remembered."""

from typing import Any

import pytest
from aiokafka import TopicPartition

from db.worker.positions import PendingBatch
from tests.support.builders import record
from worker.kafka.producing.lease import Lease
from worker.pipeline.partition import Ownership, Partition, Partitions

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]

PLACED = TopicPartition("order-placed", 0)
NO_PRODUCER: Any = None


def ownership(published_to: int | None = 10, **known: Any) -> Ownership:
    return Ownership(Lease(PLACED, 1, NO_PRODUCER, {}, {}), published_to=published_to, **known)


def offsets(records: list[Any]) -> list[int]:
    return [one.offset for one in records]


def records(*at: int) -> list[Any]:
    return [record(b"", offset=offset) for offset in at]


@pytest.mark.parametrize(
    ("published_to", "decided_to", "at_hand", "left"),
    [
        (None, None, [3, 4], [3, 4]),
        (10, None, [10, 11], [10, 11]),
        (10, None, [8, 9, 10], [10]),
        (10, None, [8, 9], []),
        (10, 12, [10, 11, 12], [12]),
        (None, 12, [11, 12], [12]),
    ],
)
def test_what_is_decided_or_being_published_is_dropped_when_it_comes_again(
    published_to: int | None, decided_to: int | None, at_hand: list[int], left: list[int]
):
    owned = ownership(published_to, decided_to=decided_to)
    assert offsets(owned.undecided(records(*at_hand))) == left


@pytest.mark.parametrize(
    ("published_to", "pending_to", "is_all_published"),
    [(None, None, True), (10, None, True), (10, 10, True), (12, 10, True), (9, 10, False), (None, 10, False)],
)
def test_all_is_published_where_nothing_that_was_begun_is_left(
    published_to: int | None, pending_to: int | None, is_all_published: bool
):
    assert ownership(published_to, pending_to=pending_to).is_all_published is is_all_published


@pytest.mark.parametrize(
    ("published_to", "is_new", "left"),
    [(10, True, [10, 11]), (None, True, [10, 11]), (11, True, []), (11, False, [11]), (9, True, [])],
)
def test_just_taken_over_only_the_records_it_continues_at_are_admitted(
    published_to: int | None, is_new: bool, left: list[int]
):
    partition = Partition()
    partition.take(ownership(published_to))
    assert offsets(partition.admit(records(10, 11), is_new=is_new)) == left


def test_nothing_is_admitted_that_nobody_owns():
    partition = Partition()
    partition.take(ownership())
    partition.drop()
    assert partition.admit(records(10), is_new=False) == []


@pytest.mark.parametrize(("first", "missing"), [(12, 10), (10, None), (9, None)])
def test_records_read_before_a_failure_are_not_taken_for_those_that_failed(first: int, missing: int | None):
    partition = Partition(rewound_to=10)
    assert partition.missing_before(first) == missing
    assert partition.missing_before(first) is None, "asked for once: they may have been deleted"


@pytest.mark.parametrize(("rewound_to", "missing"), [(10, None), (14, 14)])
def test_what_was_skipped_is_not_asked_for_again(rewound_to: int, missing: int | None):
    partition = Partition(rewound_to=rewound_to)
    partition.take(ownership(10))
    partition.skipped(13)
    assert partition.missing_before(20) == missing
    assert partition.ownership
    assert partition.ownership.published_to == 13


@pytest.mark.parametrize(("rewound_to", "to"), [(None, 10), (8, 8), (12, 10)])
def test_it_is_rewound_to_the_earlier_of_two_failures(rewound_to: int | None, to: int):
    assert Partition(rewound_to=rewound_to).rewind(10) == to


def test_what_begins_follows_on_what_is_published():
    assert ownership(10).pending(records(10, 11), None) == PendingBatch(
        10, 12, records(11)[0].timestamp, None
    )
    assert ownership(None).pending(records(3), None).published_to == 3


def test_a_batch_behind_markers_follows_on_the_batch_before_them():
    owned = ownership(10)
    owned.decided(12)
    owned.published(12)
    owned.skipped(15)
    owned.skipped(17)
    assert owned.published_to == 17
    assert owned.pending(records(17), None).published_to == 12
    owned.decided(18)
    assert owned.skipped_from is None


def test_skipped_offsets_before_any_batch_leave_nothing_to_follow_on():
    owned = ownership(10)
    owned.skipped(12)
    assert owned.pending(records(12), None).published_to == 12


def test_failures_in_a_row_are_counted_of_the_worst():
    partitions, other = Partitions(), TopicPartition("order-placed", 1)
    assert [partitions.failed([PLACED]) for _ in range(3)] == [0, 1, 2]
    assert partitions.failed([PLACED, other]) == 3
    assert partitions[other].failures == 4


def test_what_is_taken_lacks_no_records_any_more():
    partitions = Partitions()
    partitions[PLACED].lacks_records = True
    assert partitions.lacking_records() == {PLACED}
    partitions[PLACED].take(ownership(None))
    assert partitions.lacking_records() == set()
    assert partitions.published_to() == {}
    partitions[PLACED].take(ownership(10))
    assert partitions.published_to() == {PLACED: 10}
    partitions.forget(PLACED)
    assert partitions.owned() == {}
