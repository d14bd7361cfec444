"""Gets, changes or deletes one row by its id; errors name the row."""

from typing import Final, TypeVar

from sqlalchemy import Select, delete, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import ReturningUpdate

from db import values
from db.constraints import is_restricted
from db.errors import InvalidValueError, LockedError, NotFoundError, StillReferencedError
from db.models import Category, Product, User
from db.stock import lock_alone

Entity = TypeVar("Entity", User, Category, Product)


def identity_of(session: AsyncSession, category: Category) -> int:
    """The id of a category of this session, also where it is expired and reading it would need a query."""
    shown: object = category
    if isinstance(category, Category):
        state = inspect(category)
        if category in session and state.identity is not None:
            return int(state.identity[0])
        shown = state.dict.get("name")
    raise InvalidValueError("category", shown, "must be an object that this session has loaded or created")


async def get_row(session: AsyncSession, model: type[Entity], what: str, row_id: int) -> Entity:
    """The row, or NotFoundError that says `what` was meant."""
    values.row_id(what, row_id)
    row = await session.get(model, row_id)
    if row is None:
        raise NotFoundError(what, "id", row_id)
    return row


async def updated_row(
    session: AsyncSession, statement: ReturningUpdate[Entity], what: str, row_id: int
) -> Entity:
    """The row as an UPDATE … RETURNING left it, or NotFoundError."""
    row: Entity | None = await session.scalar(statement)
    if row is None:
        raise NotFoundError(what, "id", row_id)
    return row


async def require_alone(session: AsyncSession, model: type[Entity], what: str, row_id: int) -> None:
    """As `stock.lock_alone`, or NotFoundError."""
    if not await lock_alone(session, model, what, row_id):
        raise NotFoundError(what, "id", row_id)


async def delete_row(
    session: AsyncSession, model: type[Entity], what: str, row_id: int, references: Select[int]
) -> None:
    """Remove the row. Raises NotFoundError, StillReferencedError with the number that `references` counts
    (of a category products, else orders), or LockedError.
    """
    values.row_id(what, row_id)
    # Asked first: what others refer to is refused without any lock, as a rule.
    await _require_unreferenced(session, what, row_id, references)
    await require_alone(session, model, what, row_id)
    try:
        async with session.begin_nested():
            await session.execute(delete(model).where(model.id == row_id))
    except DBAPIError as error:
        if not is_restricted(error):
            raise
        await _require_unreferenced(session, what, row_id, references)
        # By what this transaction does not see, in REPEATABLE READ. Run again, it does.
        raise LockedError(what, row_id) from error


async def _require_unreferenced(
    session: AsyncSession, what: str, row_id: int, references: Select[int]
) -> None:
    number = await session.scalar(references) or 0
    if number:
        raise StillReferencedError(what, row_id, **{_COUNTED.get(what, "orders"): number})


_COUNTED: Final = {"category": "products"}
