"""Users, categories and products, written in bulk: staged by COPY, checked in SQL, upserted by id.

One import is one transaction of the caller: `stage` every part, look for what is wrong with the
`find_` functions, then `write_staged`. Nothing is visible to anybody else before the commit, and
the staged rows are gone after it.
"""

import errno
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Executable,
    FromClause,
    MetaData,
    Select,
    Table,
    Text,
    Uuid,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import KeyedColumnElement

from db.engine import raw_connection
from db.models import Category, Product, User
from db.stock import acquire_stock_lock

_LINE: Final = "line"
_ID: Final = "id"


@dataclass(frozen=True, slots=True)
class Part:
    """One table of the catalogue, where its rows are staged, and the column that is unique beside id."""

    name: str
    target: Table
    staged: Table
    unique: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns an import sets, id first."""
        return tuple(c.name for c in self.staged.columns if c.name != _LINE)


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


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows were added and how many differed from what was stored."""

    added: int
    changed: int


def _part(target: FromClause, *columns: str, unique: str | None = None) -> Part:
    assert isinstance(target, Table)
    staged = Table(
        f"imported_{target.name}",
        MetaData(),
        Column(_LINE, BigInteger),
        *(Column(name, target.columns[name].type) for name in (_ID, *columns)),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    return Part(target.name, target, staged, unique)


USERS: Final = _part(User.__table__, "email", "full_name", unique="email")
CATEGORIES: Final = _part(Category.__table__, "name", "description", unique="name")
PRODUCTS: Final = _part(Product.__table__, "name", "description", "price", "stock_quantity", "category_id")
PARTS: Final = (USERS, CATEGORIES, PRODUCTS)  # in the order of their foreign keys


async def stage(session: AsyncSession, part: Part, rows: AsyncIterable[tuple[object, ...]]) -> None:
    """COPY the rows, each (line, *part.columns), into a table of this transaction.

    Whatever `rows` raises comes out as it is and leaves the transaction to be rolled back. Memory
    stays constant: rows go out as they come in.
    """
    await session.execute(CreateTable(part.staged))
    async with raw_connection(session) as connection:

        async def while_connected() -> AsyncIterator[tuple[object, ...]]:
            async for row in rows:
                # asyncpg would go on to write the whole file into the closed socket.
                if connection.is_closed():
                    raise ConnectionResetError(errno.ECONNRESET, "the connection to PostgreSQL was lost")
                yield row

        await connection.copy_records_to_table(
            part.staged.name, columns=(_LINE, *part.columns), records=while_connected()
        )
        # Autovacuum never sees a temporary table: without this the planner takes it for a small one.
        await connection.execute(f"ANALYZE {part.staged.name}")


async def find_repeated(session: AsyncSession, part: Part, column: str) -> Repeated | None:
    """The first line whose value of `column` stands on an earlier line too."""
    line, value, key = part.staged.c[_LINE], part.staged.c[column], _compared(part.staged.c[column])
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
            select(staged.c[part.unique], staged.c[_LINE], target.c[_ID])
            .join(target, _compared(target.c[part.unique]) == _compared(staged.c[part.unique]))
            .where(target.c[_ID] != staged.c[_ID], ~exists().where(other.c[_ID] == target.c[_ID]))
            .order_by(staged.c[_LINE])
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else Taken(*row)


async def find_unknown_category(session: AsyncSession) -> UnknownCategory | None:
    """The first staged product whose category is not stored. Write the categories first."""
    staged, stored = PRODUCTS.staged, CATEGORIES.target
    row = (
        await session.execute(
            select(staged.c[_LINE], staged.c.category_id)
            .where(~exists().where(stored.c[_ID] == staged.c.category_id))
            .order_by(staged.c[_LINE])
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else UnknownCategory(*row)


async def write_staged(session: AsyncSession, part: Part) -> Written:
    """Upsert the staged rows by id, in the order of their ids, and move the id sequence past them.

    Rows that are stored already as they should be are neither written nor locked. `received_quantity`
    moves by as much as `stock_quantity` does, read under the lock of the upsert, so that received −
    sold in orders not cancelled = stock stays true whatever is sold meanwhile.
    """
    if part.unique is not None:
        await session.execute(_release(part, part.unique))
    if part is PRODUCTS:
        # Workers queue here before they take stock. Rows met in another order could deadlock instead.
        await acquire_stock_lock(session)
    added, changed = (await session.execute(_upsert(part))).one()
    await session.execute(_MOVE_SEQUENCE, {"table": part.name, "largest": await _largest_id(session, part)})
    return Written(added, changed)


async def list_user_ids(session: AsyncSession, limit: int) -> Sequence[int]:
    """The ids of the first `limit` users by id."""
    return (await session.scalars(select(User.id).order_by(User.id).limit(limit))).all()


async def list_prices(session: AsyncSession, limit: int) -> Sequence[tuple[int, Decimal]]:
    """Id and price of the first `limit` products by id."""
    rows = await session.execute(select(Product.id, Product.price).order_by(Product.id).limit(limit))
    return [(product_id, price) for product_id, price in rows]


# Never backwards: ids below the largest imported one may have been given out already.
_MOVE_SEQUENCE: Final = text(
    "SELECT setval(sequence, CAST(:largest AS bigint))"
    " FROM CAST(pg_get_serial_sequence(:table, 'id') AS regclass) AS sequence"
    " WHERE CAST(:largest AS bigint) > coalesce(pg_sequence_last_value(sequence), 0)"
)


def _compared(column: KeyedColumnElement[Any]) -> ColumnElement[Any]:
    """What is unique of the column: of an e-mail, upper and lower case are one."""
    return func.lower(column) if column.key == USERS.unique else column


async def _largest_id(session: AsyncSession, part: Part) -> int:
    return (await session.scalar(select(func.coalesce(func.max(part.staged.c[_ID]), 0)))) or 0


def _differing(part: Part) -> Select[Any]:
    """The staged rows that are not stored yet, or not like this."""
    staged, target = part.staged, part.target
    differences = [target.c[name].is_distinct_from(staged.c[name]) for name in part.columns[1:]]
    return (
        select(*(staged.c[name] for name in part.columns))
        .select_from(staged.outerjoin(target, target.c[_ID] == staged.c[_ID]))
        .where(or_(target.c[_ID].is_(None), *differences))
    )


def _upsert(part: Part) -> Executable:
    rows = _differing(part).order_by(part.staged.c[_ID])
    names = list(part.columns)
    if part is PRODUCTS:
        rows, names = rows.add_columns(part.staged.c.stock_quantity), [*names, "received_quantity"]
    statement = insert(part.target).from_select(names, rows, include_defaults=False)
    values: dict[str, Any] = {name: statement.excluded[name] for name in part.columns[1:]}
    if part is PRODUCTS:
        stored: KeyedColumnElement[int] = part.target.c.received_quantity
        values["received_quantity"] = (
            stored + statement.excluded.stock_quantity - part.target.c.stock_quantity
        )
    # xmax is 0 in a row that was inserted and the updating transaction in one that was there.
    written = (
        statement.on_conflict_do_update(index_elements=[_ID], set_=values)
        .returning(literal_column("xmax = 0").label("added"))
        .cte("written")
    )
    return select(func.count().filter(written.c.added), func.count().filter(~written.c.added)).select_from(
        written
    )


def _release(part: Part, unique: str) -> Any:
    """Rows that give up a unique value to another row of the import let go of it first.

    A unique index is checked row by row: without this, swapping two emails fails halfway.
    """
    target, own, taker = part.target, part.staged, part.staged.alias()
    giving_up = (
        select(target.c[_ID])
        .join(own, own.c[_ID] == target.c[_ID])
        .join(taker, _compared(taker.c[unique]) == _compared(target.c[unique]))
        .where(_compared(own.c[unique]) != _compared(target.c[unique]))
        .order_by(target.c[_ID])
        .with_for_update(of=target)
    )
    placeholder = cast(cast(func.gen_random_uuid(), Uuid), Text)
    return update(target).where(target.c[_ID].in_(giving_up)).values({unique: placeholder})
