"""Transactions that PostgreSQL ended are run again, with `run_in_transaction`; other errors come out."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db.bulk.orders import lock_user_ids
from db.catalog import delete_user, get_user_by_id, update_user
from db.engine import session_factory
from db.errors import InvalidValueError, LockedError, StillReferencedError
from db.orders import create_order
from db.transactions import run_in_transaction
from tests.support.order_stories import in_a_transaction, line


async def test_two_that_meet_in_a_deadlock_both_end_well_where_they_are_run_again(engine: AsyncEngine):
    meet = asyncio.Barrier(2)
    tried = {1: 0, 2: 0}

    async def change_both(session: AsyncSession, first: int) -> None:
        tried[first] += 1
        await update_user(session, first, full_name="Changed")
        if tried[first] == 1:
            await meet.wait()  # each has a row that the other one wants
        await update_user(session, 3 - first, full_name="Changed")

    sessions = session_factory(engine)
    await asyncio.gather(
        run_in_transaction(sessions, lambda session: change_both(session, 1)),
        run_in_transaction(sessions, lambda session: change_both(session, 2)),
    )
    assert sum(tried.values()) == 3, "one of them was ended, and run again"


async def test_a_serialization_failure_is_run_again_in_a_new_session(engine: AsyncEngine):
    serializable = session_factory(engine.execution_options(isolation_level="REPEATABLE READ"))
    seen: list[AsyncSession] = []

    async def work(session: AsyncSession) -> str:
        seen.append(session)
        user = await get_user_by_id(session, 1)
        if len(seen) == 1:
            await in_a_transaction(engine, lambda other: update_user(other, 1, full_name="Theirs"))
        await update_user(session, 1, full_name=f"{user.full_name} and ours")
        return user.full_name

    assert await run_in_transaction(serializable, work) == "Theirs and ours"
    assert len(set(map(id, seen))) == 2


async def test_a_user_whose_order_the_transaction_does_not_see_is_deleted_by_no_try(engine: AsyncEngine):
    """It was PostgreSQL's own error, of a foreign key that a count of the user's orders denied."""
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await get_user_by_id(session, 7)  # from here on it sees what is committed by now
        if tries == 1:
            await in_a_transaction(engine, lambda other: create_order(other, 7, [line(1)]))
        await delete_user(session, 7)

    repeatable = session_factory(engine.execution_options(isolation_level="REPEATABLE READ"))
    with pytest.raises(StillReferencedError, match="user 7 cannot be deleted: 1 order needs it"):
        await run_in_transaction(repeatable, work)
    assert tries == 2


async def test_what_is_in_use_is_tried_so_many_times_and_then_the_error_comes_out(engine: AsyncEngine):
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await create_order(session, 1, [line(1)])
        await delete_user(session, 7)

    async with session_factory(engine)() as user_of_it:
        await lock_user_ids(user_of_it, [7])
        with pytest.raises(LockedError):
            await run_in_transaction(session_factory(engine), work, tries=3)
    assert tries == 3
    async with session_factory(engine)() as session:
        assert await session.scalar(text("SELECT count(*) FROM orders")) == 0, "nothing of any try"
    await run_in_transaction(session_factory(engine), work, tries=1)


@pytest.mark.parametrize(
    ("statement", "error"),
    [("SELECT 1 / 0", DBAPIError), ("SELECT pg_terminate_backend(pg_backend_pid())", DBAPIError)],
    ids=["bad", "connection lost"],
)
async def test_another_error_comes_out_at_once(engine: AsyncEngine, statement: str, error: type[Exception]):
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await session.execute(text(statement))

    with pytest.raises(error):
        await run_in_transaction(session_factory(engine), work)
    assert tries == 1


@pytest.mark.parametrize("tries", [0, -1, 101, True, "3", 2.0, None])
async def test_a_number_of_tries_that_there_cannot_be_is_refused(engine: AsyncEngine, tries: Any):
    async def work(_session: AsyncSession) -> None:
        raise AssertionError("not called")

    with pytest.raises(InvalidValueError, match="tries must be an integer from 1 to 100"):
        await run_in_transaction(session_factory(engine), work, tries=tries)
