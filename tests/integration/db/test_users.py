"""Users on real PostgreSQL: what each function does, and how it says that it cannot."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from db import catalog
from db.engine import session_factory
from db.errors import (
    AlreadyExistsError,
    NotFoundError,
    SequenceBehindError,
    StillReferencedError,
)
from db.models import User
from tests.support.little_shop import (
    ANN,
    BOB,
    EMPTY,
    Call,
    CallWith,
    Counting,
    content,
    new_category,
    new_product,
    new_user,
    refusal,
    somebody_waits_for,
    with_value,
)

pytestmark = pytest.mark.usefixtures("little_shop")


async def test_a_new_user_is_readable_without_another_query(
    session: AsyncSession, count_statements: Counting
):
    with count_statements() as sent:
        user = await catalog.create_user(session, "cy@example.org", "Cy")
        shown = (user.email, user.full_name)
        assert user.created_at.tzinfo is not None
    assert len(sent) == 1
    await session.commit()
    assert shown == (user.email, user.full_name) == ("cy@example.org", "Cy")
    assert await catalog.get_user_by_id(session, user.id) is user


async def test_a_sequence_behind_the_ids_is_named_with_what_helps(session: AsyncSession):
    """As after rows were copied with their ids. It was `user with id None exists already`."""
    await session.execute(text("SELECT setval(pg_get_serial_sequence('users', 'id'), 1, false)"))
    with pytest.raises(SequenceBehindError, match="the next id of users is taken: ") as behind:
        await catalog.create_user(session, "cy@example.org", "Cy")
    await session.execute(text(str(behind.value).partition(": ")[2]))
    assert await catalog.create_user(session, "cy@example.org", "Cy")
    await session.execute(text("SELECT setval(pg_get_serial_sequence('users', 'id'), 9223372036854775807)"))
    with pytest.raises(DBAPIError, match="reached maximum value of sequence"):
        await catalog.create_user(session, "dee@example.org", "Dee")


@pytest.mark.parametrize(
    "text_given",
    ["".join(chr(0x4E00 + i * 7) for i in range(666)), "x" * 2_000, " padded "],
    ids=["incompressible", "repeated", "padded"],
)
async def test_the_longest_text_fits_the_index_and_comes_back_as_it_was(
    session: AsyncSession, engine: AsyncEngine, text_given: str
):
    user = await new_user(session, text_given, text_given)
    category = await new_category(session, text_given)
    product = await new_product(session, name=text_given)
    await session.commit()
    async with session_factory(engine)() as other:
        assert (await catalog.get_user_by_email(other, text_given)).id == user.id
        assert (await catalog.get_category_with_products(other, category.id)).name == text_given
        assert (await catalog.get_product_by_id(other, product.id)).name == text_given


TAKEN: dict[str, tuple[str, str, str, Call]] = {
    "create_user": ("user", "email", "bob@example.org", lambda s: new_user(s, "bob@example.org")),
    "update_user": (
        "user",
        "email",
        "bob@example.org",
        lambda s: catalog.update_user(s, ANN, email="bob@example.org", full_name="Anna"),
    ),
    "create_category": ("category", "name", "Lamps", lambda s: new_category(s, "Lamps")),
    "update_category": (
        "category",
        "name",
        "Lamps",
        lambda s: catalog.update_category(s, EMPTY, name="Lamps"),
    ),
}


@pytest.mark.parametrize(("what", "field", "value", "call"), TAKEN.values(), ids=TAKEN)
async def test_an_email_or_name_that_is_taken_is_refused_and_the_transaction_continues(
    session: AsyncSession, engine: AsyncEngine, what: str, field: str, value: str, call: Call
):
    error = await refusal(session, engine, call, AlreadyExistsError)
    assert (error.what, error.field, error.value) == (what, field, value)
    assert error.constraint in {"uq_users_email", "uq_categories_name"}
    assert str(error) == f"{what} with {field} '{value}' exists already ({error.constraint})"


async def test_what_the_caller_added_before_fails_in_its_own_name(session: AsyncSession):
    """It was `user with email 'new@example.org' exists already`, in a session that took nothing any more."""
    session.add(User(email="ann@example.org", full_name="By hand"))
    with pytest.raises(IntegrityError, match="uq_users_email"):
        await new_user(session)


async def test_an_email_taken_earlier_in_the_same_transaction_is_refused(
    session: AsyncSession, engine: AsyncEngine
):
    await new_user(session, "same")
    error = await refusal(session, engine, with_value(new_user, "same"), AlreadyExistsError)
    assert "user with email 'same' exists already" in str(error)


async def test_a_user_whose_new_email_is_taken_still_shows_the_old_one(
    session: AsyncSession, engine: AsyncEngine
):
    ann = await catalog.get_user_by_id(session, ANN)
    await refusal(session, engine, TAKEN["update_user"][-1], AlreadyExistsError)
    assert (ann.email, ann.full_name) == ("ann@example.org", "Ann")


@pytest.mark.parametrize("create", [new_user, new_category])
@pytest.mark.parametrize("first_commits", [True, False], ids=["committed", "rolled-back"])
async def test_of_two_who_create_the_same_the_second_waits_for_the_first(
    session: AsyncSession, engine: AsyncEngine, create: CallWith, first_commits: bool
):
    async with session_factory(engine)() as second:
        await create(session, "same")
        creating = asyncio.ensure_future(create(second, "same"))
        await somebody_waits_for(session, engine)
        assert not creating.done()
        if first_commits:
            await session.commit()
            with pytest.raises(AlreadyExistsError, match="'same' exists already"):
                await creating
        else:
            await session.rollback()
            await creating
        await create(second, "another")
        await second.commit()
    created = await session.scalars(text("SELECT email FROM users UNION ALL SELECT name FROM categories"))
    assert {"same", "another"} < set(created)


async def test_an_email_is_found_and_taken_in_upper_and_lower_case(
    session: AsyncSession, engine: AsyncEngine
):
    for written in ("ANN@example.org", "Ann@Example.Org", "ann@example.org"):
        assert (await catalog.get_user_by_email(session, written)).id == ANN
    calls: list[Call] = [
        lambda s: new_user(s, "ANN@example.org"),
        lambda s: catalog.update_user(s, BOB, email="ANN@example.org"),
    ]
    for call in calls:
        error = await refusal(session, engine, call, AlreadyExistsError)
        assert (error.what, error.field, error.value) == ("user", "email", "ANN@example.org")
        assert error.constraint == "ix_users_email_lower"
    missing = await refusal(session, engine, lambda s: catalog.get_user_by_email(s, "Ann@x"), NotFoundError)
    assert str(missing) == "there is no user with email 'Ann@x'"


async def test_an_email_is_kept_as_it_was_written_and_may_change_its_case(session: AsyncSession):
    user = await new_user(session, "Cy@Example.org")
    await session.commit()
    assert (await catalog.get_user_by_email(session, "cy@example.org")).email == "Cy@Example.org"
    assert (await catalog.update_user(session, user.id, email="CY@example.org")).email == "CY@example.org"
    await session.commit()


async def test_a_user_is_found_by_email_in_one_statement_and_by_the_index(
    session: AsyncSession, count_statements: Counting
):
    with count_statements() as sent:
        await catalog.get_user_by_email(session, "ANN@example.org")
    assert len(sent) == 1
    await session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = await session.scalars(text("EXPLAIN SELECT * FROM users WHERE lower(email) = lower('x'::varchar)"))
    assert "ix_users_email_lower" in "".join(plan)


@pytest.mark.parametrize(
    "changes", [{}, {"email": "a@new.org"}, {"full_name": "Anna"}, {"email": "a@new.org", "full_name": "A"}]
)
async def test_an_update_changes_what_is_given_and_what_was_loaded_shows_it(
    session: AsyncSession, engine: AsyncEngine, changes: dict[str, str]
):
    ann = await catalog.get_user_by_id(session, ANN)
    assert await catalog.update_user(session, ANN, **changes) is ann
    await session.commit()
    expected = {"email": "ann@example.org", "full_name": "Ann"} | changes
    assert {"email": ann.email, "full_name": ann.full_name} == expected
    async with session_factory(engine)() as other:
        stored = await content(other)
    assert [(u.email, u.full_name) for u in stored["users"]] == [
        (expected["email"], expected["full_name"]),
        ("bob@example.org", "Bob"),
    ]


async def test_a_user_may_be_updated_to_the_email_it_has(session: AsyncSession):
    updated = await catalog.update_user(session, ANN, email="ann@example.org", full_name="Anna")
    assert (updated.email, updated.full_name) == ("ann@example.org", "Anna")


async def test_a_deleted_user_is_not_found_and_its_email_is_free(session: AsyncSession):
    await catalog.get_user_by_id(session, BOB)
    await catalog.delete_user(session, BOB)
    with pytest.raises(NotFoundError):
        await catalog.get_user_by_id(session, BOB)
    assert (await new_user(session, "bob@example.org")).id != BOB
    await session.commit()


async def test_a_user_with_orders_is_not_deleted(session: AsyncSession, engine: AsyncEngine):
    ann = await catalog.get_user_by_id(session, ANN)
    error = await refusal(session, engine, lambda s: catalog.delete_user(s, ANN), StillReferencedError)
    assert str(error) == "user 1 cannot be deleted: 2 orders need it"
    assert (error.what, error.id, error.orders) == ("user", ANN, 2)
    assert ann.email == "ann@example.org"
    assert await catalog.get_user_by_id(session, ANN) is ann
