"""What PostgreSQL remembers of how far a partition is published."""

from sqlalchemy.ext.asyncio import AsyncSession

from db.positions import Acknowledged, Begun, Turn, Witness, begin, take_turn

PLACE = ("placed", 3)
FIRST, SECOND, THIRD = (
    Witness("confirmed", time_ms, b"\xff\x00", 2, time_ms // 1_000) for time_ms in (11_000, 22_000, 33_000)
)


def begun(
    published_to: int = 10,
    begun_to: int = 20,
    witness: Witness | None = None,
    acknowledged: Acknowledged | None = None,
) -> Begun:
    return Begun(published_to, begun_to, 1_000, witness, acknowledged)


async def found_after(session: AsyncSession, *batches: Begun) -> Begun | None:
    """What a new owner finds when the one before has begun these."""
    turn = (await take_turn(session, "group", *PLACE)).number
    for one in batches:
        assert await begin(session, "group", {PLACE: (turn, one)}) == {PLACE}
    return (await take_turn(session, "group", *PLACE)).begun


async def test_the_first_owner_of_a_partition_finds_nothing(session: AsyncSession):
    assert await take_turn(session, "group", *PLACE) == Turn(1, None)


async def test_a_new_owner_learns_what_the_one_before_began_last(session: AsyncSession):
    assert await found_after(session, begun(10, 20, FIRST)) == begun(10, 20, FIRST)


async def test_and_the_batch_that_was_acknowledged_before_it(session: AsyncSession):
    found = await found_after(session, begun(0, 10, FIRST), begun(10, 20, SECOND), begun(20, 30, THIRD))
    assert found == begun(20, 30, THIRD, Acknowledged(10, SECOND))


async def test_the_same_batch_begun_once_more_leaves_the_one_before_it_what_it_was(session: AsyncSession):
    found = await found_after(session, begun(10, 20, FIRST), begun(20, 30, SECOND), begun(20, 25, THIRD))
    assert found == begun(20, 25, THIRD, Acknowledged(10, FIRST))


async def test_a_batch_with_nothing_to_publish_is_acknowledged_without_a_witness(session: AsyncSession):
    found = await found_after(session, begun(10, 20), begun(20, 30, SECOND))
    assert found == begun(20, 30, SECOND, Acknowledged(10, None))


async def test_a_batch_somewhere_else_does_not_follow_on_the_one_before(session: AsyncSession):
    assert await found_after(session, begun(10, 20, FIRST), begun(50, 60, SECOND)) == begun(50, 60, SECOND)


async def test_an_owner_before_can_begin_nothing_any_more(session: AsyncSession):
    old = (await take_turn(session, "group", *PLACE)).number
    new = (await take_turn(session, "group", *PLACE)).number
    assert await begin(session, "group", {PLACE: (new, begun(20, 30))}) == {PLACE}
    assert await begin(session, "group", {PLACE: (old, begun(10, 20))}) == set()
    assert (await take_turn(session, "group", *PLACE)).begun == begun(20, 30)


async def test_several_partitions_begin_at_once_and_what_publishes_nothing_has_no_witness(
    session: AsyncSession,
):
    outcome, letter = Witness("confirmed", 3_000, b"outcome"), Witness("dead", 4_000, b"letter")
    batches = {
        ("placed", partition): (
            (await take_turn(session, "group", "placed", partition)).number,
            begun(partition, 100, witness),
        )
        for partition, witness in enumerate([outcome, letter, None])
    }
    assert await begin(session, "group", batches) == set(batches)
    for place, (turn, one) in batches.items():
        assert await take_turn(session, "group", *place) == Turn(turn + 1, one)


async def test_groups_keep_apart(session: AsyncSession):
    turn = (await take_turn(session, "group", *PLACE)).number
    await begin(session, "group", {PLACE: (turn, begun())})
    assert await take_turn(session, "another", *PLACE) == Turn(1, None)


async def test_an_owner_begins_nothing_on_top_of_the_row_of_a_backup(session: AsyncSession):
    turn = (await take_turn(session, "group", *PLACE)).number
    assert await begin(session, "group", {PLACE: (turn, begun(0, 10))}, {PLACE: None}) == {PLACE}
    assert await begin(session, "group", {PLACE: (turn, begun(20, 30))}, {PLACE: 20}) == set()
    assert await begin(session, "group", {PLACE: (turn, begun(10, 20))}, {PLACE: None}) == set()
    assert await begin(session, "group", {PLACE: (turn, begun(10, 20))}, {PLACE: 10}) == {PLACE}
