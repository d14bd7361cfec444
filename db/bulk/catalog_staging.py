"""Stages the rows of catalogue files by COPY, and finds what is wrong with them.

One import is one transaction of the caller: `stage` every file, check them with the `find_` functions, then
`db.bulk.catalog_plan` and `db.bulk.catalog_import`. The staged rows are temporary and end with the
transaction.
"""

import errno
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    MetaData,
    Numeric,
    Table,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import KeyedColumnElement

from db.engine import raw_connection
from db.models import Category, Product, User

LINE: Final = "line"
ID: Final = "id"


@dataclass(frozen=True, slots=True)
class Part:
    """One table of the catalogue: where its rows are staged, and what is to become of each (`planned`).

    `unique` is the column that is unique beside id; a new row needs all of `required`.
    """

    name: str
    target: Table
    staged: Table
    planned: Table
    required: tuple[str, ...]
    unique: str | None


@dataclass(frozen=True, slots=True)
class Staged:
    """The rows of one file, and how many. `columns`: those the file has, id first."""

    part: Part
    columns: tuple[str, ...]
    count: int

    @property
    def unique(self) -> str | None:
        """The unique column, if the file has it."""
        return self.part.unique if self.part.unique in self.columns else None


@dataclass(frozen=True, slots=True)
class Repeated:
    """One value on two lines of one file."""

    value: int | str
    line: int
    first_line: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A unique value that a row outside the import, `owner_id`, has already."""

    value: str
    line: int
    owner_id: int


@dataclass(frozen=True, slots=True)
class UnknownCategory:
    """A product of a category that is neither stored nor part of the import."""

    line: int
    category_id: int


def _temporary(name: str, *columns: Column[object]) -> Table:
    return Table(name, MetaData(), *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")


def _part(
    target: FromClause, *required: str, optional: tuple[str, ...] = (), unique: str | None = None
) -> Part:
    assert isinstance(target, Table)
    names = (ID, *required, *optional)
    staged = _temporary(
        f"imported_{target.name}",
        Column(LINE, BigInteger),
        *(Column(name, target.columns[name].type) for name in names),
    )
    planned = _temporary(
        f"planned_{target.name}",
        Column(ID, BigInteger),
        Column(LINE, BigInteger),
        Column("is_new", Boolean),
        # Of products alone; the stock that a new one has now is 0.
        Column("stock", BigInteger),
        Column("stock_change", BigInteger),
        Column("price", Numeric(10, 2)),
        Column("new_price", Numeric(10, 2)),
    )
    return Part(target.name, target, staged, planned, required, unique)


USERS: Final = _part(User.__table__, "email", "full_name", unique="email")
CATEGORIES: Final = _part(Category.__table__, "name", optional=("description",), unique="name")
PRODUCTS: Final = _part(
    Product.__table__, "name", "price", "stock_quantity", "category_id", optional=("description",)
)


async def stage(
    session: AsyncSession, part: Part, columns: Sequence[str], rows: AsyncIterable[tuple[object, ...]]
) -> Staged:
    """COPY the rows, each (line, *columns), into a table of this transaction; `columns` begins with id.

    Whatever `rows` raises comes out as it is and leaves the transaction to be rolled back. Memory
    stays constant: rows go out as they come in.
    """
    await session.execute(CreateTable(part.staged))
    count = 0
    async with raw_connection(session) as connection:

        async def while_connected() -> AsyncIterator[tuple[object, ...]]:
            nonlocal count
            async for row in rows:
                # asyncpg would continue to write the whole file into the closed socket.
                if connection.is_closed():
                    raise ConnectionResetError(errno.ECONNRESET, "the connection to PostgreSQL was lost")
                yield row
                count += 1

        await connection.copy_records_to_table(
            part.staged.name, columns=(LINE, *columns), records=while_connected()
        )
    await analyze(session, part.staged)
    return Staged(part, tuple(columns), count)


async def analyze(session: AsyncSession, table: Table) -> None:
    """Analyze a temporary table: autovacuum never does, and the planner would assume a small one."""
    async with raw_connection(session) as connection:
        await connection.execute(f"ANALYZE {table.name}")


def compared(column: KeyedColumnElement[str]) -> ColumnElement[str]:
    """What is unique of the column: of an e-mail, upper and lower case are one."""
    return func.lower(column) if column.key == USERS.unique else column


async def find_repeated(session: AsyncSession, part: Part, column: str) -> Repeated | None:
    """The first line whose value of `column` stands on an earlier line too."""
    line, value, key = part.staged.c[LINE], part.staged.c[column], compared(part.staged.c[column])
    # Hashed in one pass; a window function would sort the whole file, to find nothing as a rule.
    repeated = (
        select(key.label("key"), func.min(line).label("first_line"))
        .group_by(key)
        .having(func.count() > 1)
        .subquery()
    )
    row = (
        await session.execute(
            select(value, line, repeated.c.first_line)
            .join(repeated, repeated.c.key == key)
            .where(line > repeated.c.first_line)
            .order_by(line)
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else Repeated(*row)


async def find_taken(session: AsyncSession, part: Part) -> Taken | None:
    """The first line whose unique value belongs to a stored row that this import does not change.

    A row that the import gives another value is no obstacle, so two users may swap their emails.
    """
    assert part.unique is not None
    staged, target, other = part.staged, part.target, part.staged.alias()
    row = (
        await session.execute(
            select(staged.c[part.unique], staged.c[LINE], target.c[ID])
            .join(target, compared(target.c[part.unique]) == compared(staged.c[part.unique]))
            .where(target.c[ID] != staged.c[ID], ~exists().where(other.c[ID] == target.c[ID]))
            .order_by(staged.c[LINE])
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else Taken(*row)


async def find_unknown_category(session: AsyncSession, *, with_categories: bool) -> UnknownCategory | None:
    """The first staged product whose category is not stored. `with_categories`: nor staged."""
    staged = PRODUCTS.staged
    tables = [CATEGORIES.target, *([CATEGORIES.staged] if with_categories else [])]
    known = [exists().where(table.c[ID] == staged.c.category_id) for table in tables]
    row = (
        await session.execute(
            select(staged.c[LINE], staged.c.category_id).where(~or_(*known)).order_by(staged.c[LINE]).limit(1)
        )
    ).one_or_none()
    return None if row is None else UnknownCategory(*row)
