"""Who has the lease of a partition, as its row says."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db.worker.leases import (
    NOBODY,
    Epoch,
    Holder,
    find_holders,
    hold_epoch,
    release,
    start_epoch,
    take,
)
from db.worker.positions import PendingBatch, record_pending

pytestmark = pytest.mark.guarantee_2

PLACE = ("placed", 3)


async def holder(session: AsyncSession) -> Holder:
    return (await find_holders(session, "group", "placed", [3]))[3]


async def taken(session: AsyncSession, by: str) -> Epoch:
    epoch = await take(session, "group", *PLACE, await holder(session), by)
    assert epoch is not None
    return epoch


async def begin(session: AsyncSession, epoch: int, published_to: int, pending_to: int) -> bool:
    pending = PendingBatch(published_to, pending_to, 1_000, None)
    return await record_pending(session, "group", {PLACE: (epoch, pending)}) == {PLACE}


async def test_nobody_has_the_lease_of_a_partition_that_was_never_taken(session: AsyncSession):
    assert await holder(session) == NOBODY
    assert await taken(session, "one") == Epoch(1, None)
    assert await holder(session) == Holder(1, "one")


@pytest.mark.parametrize("seen", [NOBODY, Holder(1, "another"), Holder(2, "one"), Holder(1, None)])
async def test_a_lease_is_not_taken_from_another_owner_than_was_seen(session: AsyncSession, seen: Holder):
    await taken(session, "one")
    assert await take(session, "group", *PLACE, seen, "late") is None
    assert await holder(session) == Holder(1, "one")


async def test_the_owner_before_can_begin_nothing_and_release_nothing(session: AsyncSession):
    old, new = await taken(session, "one"), await taken(session, "another")
    assert not await begin(session, old.number, 0, 10)
    await release(session, "group", "placed", {3: old.number})
    assert await holder(session) == Holder(new.number, "another")
    assert await begin(session, new.number, 0, 10)


async def test_a_lease_that_is_released_names_nobody_and_keeps_what_was_begun(session: AsyncSession):
    first = await taken(session, "one")
    await begin(session, first.number, 0, 10)
    await release(session, "group", "placed", {3: first.number, 4: 7})
    assert await holder(session) == Holder(first.number, None)
    second = await taken(session, "another")
    assert second.number == first.number + 1
    assert second.pending
    assert (second.pending.pending_to, second.pending.published_by) == (10, "one")


async def test_each_batch_names_by_whom_it_is_published(session: AsyncSession):
    await begin(session, (await taken(session, "one")).number, 0, 10)
    await begin(session, (await taken(session, "another")).number, 10, 20)
    found = (await taken(session, "third")).pending
    assert found
    assert found.acknowledged
    assert (found.acknowledged.published_by, found.published_by) == ("one", "another")


async def test_an_epoch_that_an_operator_starts_leaves_the_owner_to_be_fenced(session: AsyncSession):
    old = await taken(session, "one")
    assert (await start_epoch(session, "group", *PLACE)).number == old.number + 1
    assert await holder(session) == Holder(old.number + 1, "one")
    assert not await begin(session, old.number, 0, 10)


async def test_an_epoch_is_held_by_its_owner_alone(session: AsyncSession):
    old, new = await taken(session, "one"), await taken(session, "another")
    assert not await hold_epoch(session, "group", *PLACE, old.number)
    assert await hold_epoch(session, "group", *PLACE, new.number)
