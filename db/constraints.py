"""Turns constraint violations into errors of `db.errors`, without ending the caller's transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.engine import require_transaction
from db.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotFoundError,
    SequenceBehindError,
    ShopError,
    Value,
)
from db.models import Base


@asynccontextmanager
async def translated(session: AsyncSession, **values: Value) -> AsyncIterator[None]:
    """Raise constraint violations in the block as a ShopError; the caller's transaction stays usable.

    `values` are the fields being written, to be named in the message. Flush inside.
    Raises NoTransactionError.
    """
    await require_transaction(session)
    await session.flush()  # what the caller changed before: its errors are no errors of `values`
    try:
        # In a savepoint: without one, PostgreSQL would take no further statement of this transaction.
        async with session.begin_nested():
            yield
    except DBAPIError as error:
        translation = _translation(error, values)
        if translation is None:
            raise
        raise translation from error


def is_restricted(error: DBAPIError) -> bool:
    """Whether a row could not be deleted because others refer to it."""
    # ON DELETE RESTRICT has a code of its own since PostgreSQL 18; before, it had that of a missing row.
    return sqlstate(error) in {"23001", "23503"}


# The words for what a table holds one of.
_NAMES: Final = {
    "users": "user",
    "categories": "category",
    "products": "product",
    "orders": "order",
    "order_items": "order item",
}


_TABLES: Final = {what: table for table, what in _NAMES.items()}
_SEQUENCE_AT_ITS_END: Final = "2200H"  # its message names the sequence


def _unique_fields() -> dict[str, tuple[str, str]]:
    """What and field of every key, by the name of its constraint."""
    fields = {}
    for table in Base.metadata.tables.values():
        if table.name in _NAMES:
            keys: list[UniqueConstraint | PrimaryKeyConstraint | Index] = [table.primary_key]
            keys += [c for c in table.constraints if isinstance(c, UniqueConstraint)]
            keys += [index for index in table.indexes if index.unique]
            for key in keys:
                fields[str(key.name)] = (_NAMES[table.name], next(iter(key.columns)).name)
    return fields


def _references() -> dict[str, tuple[str, str]]:
    """What each foreign key refers to, and the column that does, by the name of its constraint."""
    return {
        str(key.name): (_NAMES[key.referred_table.name], key.column_keys[0])
        for table in Base.metadata.tables.values()
        for key in table.constraints
        if isinstance(key, ForeignKeyConstraint)
    }


_UNIQUE: Final = _unique_fields()
_REFERENCES: Final = _references()


def _translation(error: DBAPIError, values: Mapping[str, Value]) -> ShopError | None:
    """None: no fault of the input."""
    state = sqlstate(error)
    constraint = getattr(error.driver_exception, "constraint_name", None) or ""
    if state == "23505" and constraint in _UNIQUE:
        what, field = _UNIQUE[constraint]
        if field == "id" and field not in values:
            return SequenceBehindError(_TABLES[what])
        return AlreadyExistsError(what, field, values.get(field), constraint)
    if state == "23503" and constraint in _REFERENCES:
        what, field = _REFERENCES[constraint]
        return NotFoundError(what, "id", values.get(field))
    if state[:2] in {"22", "23"} and state != _SEQUENCE_AT_ITS_END:
        column = getattr(error.driver_exception, "column_name", None) or constraint or ", ".join(values)
        return InvalidValueError(column, values.get(column), f"is refused ({error.driver_exception})")
    return None


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's code of the error, or nothing."""
    return getattr(error.driver_exception, "sqlstate", None) or ""
