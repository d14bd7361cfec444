"""Many rows as parameters of one statement: an array for each column, whatever the number of rows."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, column, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

ColumnTypes = Mapping[str, type[TypeEngine[Any]]]


def array_rows(name: str, columns: ColumnTypes) -> TableValuedAlias:
    """A table called `name` in the statement; the parameter of each column is `each_COLUMN`, a list."""
    return (
        func.unnest(*(bindparam(f"each_{each}", type_=ARRAY(kind)) for each, kind in columns.items()))
        .table_valued(*(column(each, kind) for each, kind in columns.items()))
        .render_derived(name=name)
    )
