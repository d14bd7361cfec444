"""Counts the statements of a block of code, to find listings that send one for each row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


class Statements(list[str]):
    """Every statement sent, in order; BEGIN, COMMIT and savepoints are none."""


@contextmanager
def counted(engine: AsyncEngine) -> Iterator[Statements]:
    """The statements that the engine's connections send inside the block."""
    sent = Statements()

    def record(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK TO")):
            sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)
