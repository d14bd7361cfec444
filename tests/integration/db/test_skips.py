"""What PostgreSQL remembers of the spans of the input that no worker decides."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db.worker.skips import SkipKind, SkippedSpan, add_skip, list_skips


async def record(
    session: AsyncSession,
    partition: int = 3,
    from_offset: int = 10,
    to_offset: int = 12,
    topic: str = "placed",
    requested_by: str = "ada",
    note: str = "checksum",
    kind: SkipKind = "skipped",
) -> bool:
    return await add_skip(
        session, topic, partition, from_offset, to_offset, requested_by=requested_by, note=note, kind=kind
    )


async def spans(session: AsyncSession) -> list[tuple[int, int, int]]:
    return [(s.partition, s.from_offset, s.to_offset) for s in await list_skips(session, "placed")]


async def test_a_topic_without_skips_has_none(session: AsyncSession):
    assert await list_skips(session, "placed") == []


async def test_a_skip_is_found_with_who_when_and_why(session: AsyncSession):
    assert await record(session)
    (found,) = await list_skips(session, "placed")
    assert found == SkippedSpan(3, 10, 12, "ada", "checksum", found.requested_at, "skipped")
    assert abs(found.requested_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_skips_come_by_partition_and_offset_and_of_one_partition_if_asked(session: AsyncSession):
    for place in ((3, 20, 21), (1, 30, 40), (3, 10, 12)):
        await record(session, *place)
    assert await spans(session) == [(1, 30, 40), (3, 10, 12), (3, 20, 21)]
    assert [skip.from_offset for skip in await list_skips(session, "placed", 3)] == [10, 20]


async def test_topics_keep_apart(session: AsyncSession):
    await record(session, topic="another")
    assert await spans(session) == []


async def test_the_same_skip_twice_is_one_and_stays_who_was_first(session: AsyncSession):
    assert await record(session)
    assert not await record(session, to_offset=99, requested_by="bob", note="me too")
    (found,) = await list_skips(session, "placed")
    assert (found.to_offset, found.requested_by, found.note) == (12, "ada", "checksum")


async def test_the_same_deleted_span_twice_is_one(session: AsyncSession):
    assert await record(session, kind="deleted")
    assert not await record(session, kind="deleted")
    assert await spans(session) == [(3, 10, 12)]


async def test_a_deleted_span_that_has_grown_is_recorded_up_to_its_new_end(session: AsyncSession):
    await record(session, kind="deleted", to_offset=20)
    assert await record(session, kind="deleted", to_offset=30, note="grown")
    assert not await record(session, kind="deleted", to_offset=25)
    (found,) = await list_skips(session, "placed")
    assert (found.to_offset, found.note) == (30, "grown")


async def test_a_span_may_be_skipped_and_later_deleted_as_well(session: AsyncSession):
    await record(session, kind="skipped")
    await record(session, kind="deleted")
    assert [skip.kind for skip in await list_skips(session, "placed")] == ["deleted", "skipped"]


async def test_an_empty_span_and_an_unknown_kind_are_refused(session: AsyncSession):
    for wrong in ({"to_offset": 10}, {"kind": "forgotten"}):
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await record(session, **wrong)
