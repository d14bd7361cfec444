"""What PostgreSQL remembers of how far a partition is published."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db.worker.leases import Epoch, start_epoch
from db.worker.positions import Acknowledged, PendingBatch, Sentinel, record_pending

pytestmark = pytest.mark.guarantee_2

PLACE = ("placed", 3)
FIRST, SECOND, THIRD = (
    Sentinel("confirmed", time_ms, b"\xff\x00", 2, time_ms // 1_000) for time_ms in (11_000, 22_000, 33_000)
)


def pending(
    published_to: int = 10,
    pending_to: int = 20,
    sentinel: Sentinel | None = None,
    acknowledged: Acknowledged | None = None,
) -> PendingBatch:
    return PendingBatch(published_to, pending_to, 1_000, sentinel, acknowledged)


async def found_after(session: AsyncSession, *batches: PendingBatch) -> PendingBatch | None:
    """What a new owner finds when the previous one has begun these."""
    epoch = (await start_epoch(session, "group", *PLACE)).number
    for one in batches:
        assert await record_pending(session, "group", {PLACE: (epoch, one)}) == {PLACE}
    return (await start_epoch(session, "group", *PLACE)).pending


async def test_the_first_owner_of_a_partition_finds_nothing(session: AsyncSession):
    assert await start_epoch(session, "group", *PLACE) == Epoch(1, None)


async def test_a_new_owner_learns_what_the_previous_one_began_last(session: AsyncSession):
    assert await found_after(session, pending(10, 20, FIRST)) == pending(10, 20, FIRST)


async def test_and_the_batch_that_was_acknowledged_before_it(session: AsyncSession):
    found = await found_after(session, pending(0, 10, FIRST), pending(10, 20, SECOND), pending(20, 30, THIRD))
    assert found == pending(20, 30, THIRD, Acknowledged(10, SECOND))


async def test_the_same_batch_begun_once_more_keeps_the_previous_batch(session: AsyncSession):
    found = await found_after(
        session, pending(10, 20, FIRST), pending(20, 30, SECOND), pending(20, 25, THIRD)
    )
    assert found == pending(20, 25, THIRD, Acknowledged(10, FIRST))


async def test_a_batch_with_nothing_to_publish_is_acknowledged_without_a_sentinel(session: AsyncSession):
    found = await found_after(session, pending(10, 20), pending(20, 30, SECOND))
    assert found == pending(20, 30, SECOND, Acknowledged(10, None))


async def test_a_batch_somewhere_else_does_not_follow_on_the_previous_one(session: AsyncSession):
    assert await found_after(session, pending(10, 20, FIRST), pending(50, 60, SECOND)) == pending(
        50, 60, SECOND
    )


async def test_an_owner_before_can_begin_nothing_any_more(session: AsyncSession):
    old = (await start_epoch(session, "group", *PLACE)).number
    new = (await start_epoch(session, "group", *PLACE)).number
    assert await record_pending(session, "group", {PLACE: (new, pending(20, 30))}) == {PLACE}
    assert await record_pending(session, "group", {PLACE: (old, pending(10, 20))}) == set()
    assert (await start_epoch(session, "group", *PLACE)).pending == pending(20, 30)


async def test_several_partitions_begin_at_once_and_what_publishes_nothing_has_no_sentinel(
    session: AsyncSession,
):
    outcome, letter = Sentinel("confirmed", 3_000, b"outcome"), Sentinel("dead", 4_000, b"letter")
    batches = {
        ("placed", partition): (
            (await start_epoch(session, "group", "placed", partition)).number,
            pending(partition, 100, sentinel),
        )
        for partition, sentinel in enumerate([outcome, letter, None])
    }
    assert await record_pending(session, "group", batches) == set(batches)
    for place, (epoch, one) in batches.items():
        assert await start_epoch(session, "group", *place) == Epoch(epoch + 1, one)


async def test_groups_keep_apart(session: AsyncSession):
    epoch = (await start_epoch(session, "group", *PLACE)).number
    await record_pending(session, "group", {PLACE: (epoch, pending())})
    assert await start_epoch(session, "another", *PLACE) == Epoch(1, None)


async def test_an_owner_begins_nothing_on_top_of_the_row_of_a_backup(session: AsyncSession):
    epoch = (await start_epoch(session, "group", *PLACE)).number
    assert await record_pending(session, "group", {PLACE: (epoch, pending(0, 10))}, {PLACE: None}) == {PLACE}
    assert await record_pending(session, "group", {PLACE: (epoch, pending(20, 30))}, {PLACE: 20}) == set()
    assert await record_pending(session, "group", {PLACE: (epoch, pending(10, 20))}, {PLACE: None}) == set()
    assert await record_pending(session, "group", {PLACE: (epoch, pending(10, 20))}, {PLACE: 10}) == {PLACE}
