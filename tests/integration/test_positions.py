"""What PostgreSQL remembers of how far a partition is announced."""

from sqlalchemy.ext.asyncio import AsyncSession

from db.positions import Begun, Turn, Witness, begin, take_turn

PLACE = ("placed", 3)


def begun(announced_to: int = 10, begun_to: int = 20, witness: Witness | None = None) -> Begun:
    return Begun(announced_to, begun_to, last_timestamp_ms=1_000, witness=witness)


async def test_the_first_owner_of_a_partition_finds_nothing(session: AsyncSession):
    assert await take_turn(session, "group", *PLACE) == Turn(1, None)


async def test_a_new_owner_learns_what_the_one_before_began_last(session: AsyncSession):
    seen = begun(20, 30, Witness("confirmed", 22_000, b"\xff\x00"))
    turn = (await take_turn(session, "group", *PLACE)).number
    for one in (begun(), seen):
        assert await begin(session, "group", {PLACE: (turn, one)}) == {PLACE}
    assert await take_turn(session, "group", *PLACE) == Turn(turn + 1, seen)


async def test_an_owner_before_can_begin_nothing_any_more(session: AsyncSession):
    old = (await take_turn(session, "group", *PLACE)).number
    new = (await take_turn(session, "group", *PLACE)).number
    assert await begin(session, "group", {PLACE: (new, begun(20, 30))}) == {PLACE}
    assert await begin(session, "group", {PLACE: (old, begun(10, 20))}) == set()
    assert (await take_turn(session, "group", *PLACE)).begun == begun(20, 30)


async def test_several_partitions_begin_at_once_and_what_announces_nothing_has_no_witness(
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
