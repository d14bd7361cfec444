"""Help that is whole on a narrow terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def long_words_folded() -> Iterator[None]:
    """Where help is asked for: typer cuts words longer than their column, and has no setting for that."""
    if len(sys.argv) > 2 and not {"-h", "--help"} & set(sys.argv):
        yield  # rich would be loaded for nothing
        return
    from rich.table import Table

    add_row = Table.add_row

    def add_folding_row(table: Table, *cells: Any, **options: Any) -> None:
        add_row(table, *cells, **options)
        for column in table.columns:
            column.overflow = "fold"

    Table.add_row = add_folding_row  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Table.add_row = add_row  # type: ignore[method-assign]
