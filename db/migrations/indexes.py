"""Indexes that are built and dropped while others read and write their table.

A revision that uses these sets `is_concurrent = True` and does nothing else: it is no transaction.
"""

from collections.abc import Sequence
from typing import Final

from alembic import op
from sqlalchemy import TextClause, text

_IS_VALID: Final = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def create_concurrently(
    name: str, table: str, columns: Sequence[str | TextClause], *, unique: bool = False
) -> None:
    """Build an index, unless it is there. What an interrupted build has left is dropped first.

    A unique index that rows violate raises IntegrityError, and leaves nothing behind but that.
    """
    with op.get_context().autocommit_block():
        if not op.get_context().as_sql and op.get_bind().scalar(_IS_VALID, {"name": name}) is False:
            op.drop_index(name, table, postgresql_concurrently=True)
        op.create_index(name, table, columns, unique=unique, postgresql_concurrently=True, if_not_exists=True)


def drop_concurrently(name: str, table: str) -> None:
    """Drop an index, if it is there."""
    with op.get_context().autocommit_block():
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
