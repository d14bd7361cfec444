"""Users: added, found, changed and removed one at a time. `db.catalog` has them all, and says the rules."""

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db import values
from db.constraints import translated
from db.entities import delete_row, get_row, require_alone, updated_row
from db.errors import NotFoundError
from db.models import Order, User


async def create_user(session: AsyncSession, email: str, full_name: str) -> User:
    """Add a user. Raises AlreadyExistsError when the e-mail is taken, in upper or lower case."""
    user = User(email=values.email("email", email), full_name=values.filled_text("full_name", full_name))
    async with translated(session, email=email):
        session.add(user)
        await session.flush()
    return user


async def get_user_by_id(session: AsyncSession, user_id: int) -> User:
    """The user, or NotFoundError."""
    return await get_row(session, User, "user", user_id)


async def get_user_by_email(session: AsyncSession, email: str) -> User:
    """The user with this e-mail, in upper or lower case, or NotFoundError."""
    wanted = func.lower(values.text("email", email))  # PostgreSQL's, as in the index: Python's differs
    user = await session.scalar(select(User).where(func.lower(User.email) == wanted))
    if user is None:
        raise NotFoundError("user", "email", email)
    return user


async def list_users(
    session: AsyncSession, skip: int = 0, limit: int = 100, *, after: int | None = None
) -> Sequence[User]:
    """A page of users by id; `after` is the id of the last user of the page before."""
    values.page(skip, limit, after)
    query = select(User).order_by(User.id).offset(skip).limit(limit)
    if after is not None:
        query = query.where(User.id > values.integer("after", after, 0, values.MAX_ID))
    return (await session.scalars(query)).all()


async def update_user(
    session: AsyncSession, user_id: int, *, email: str | None = None, full_name: str | None = None
) -> User:
    """Change what is given and nothing else.

    Raises NotFoundError, AlreadyExistsError for the e-mail (upper and lower case are one), or LockedError.
    """
    changes = {}
    if email is not None:
        changes["email"] = values.email("email", email)
    if full_name is not None:
        changes["full_name"] = values.filled_text("full_name", full_name)
    if not changes:
        return await get_user_by_id(session, user_id)
    values.row_id("user", user_id)
    if email is not None:
        await require_alone(session, User, "user", user_id)
    statement = update(User).where(User.id == user_id).values(changes).returning(User)
    async with translated(session, **changes):
        return await updated_row(session, statement, "user", user_id)


async def delete_user(session: AsyncSession, user_id: int) -> None:
    """Remove a user. Raises NotFoundError, StillReferencedError when the user has orders, or LockedError."""
    await delete_row(session, User, "user", user_id, select(func.count()).where(Order.user_id == user_id))


async def list_user_ids(session: AsyncSession, limit: int) -> Sequence[int]:
    """The ids of the first `limit` users by id."""
    values.integer("limit", limit, 1, values.MAX_ID)
    return (await session.scalars(select(User.id).order_by(User.id).limit(limit))).all()
