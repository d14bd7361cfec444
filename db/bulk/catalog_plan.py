"""Plans an import of the staged rows (`db.bulk.catalog_staging`): which rows are added and changed.

The plan is a table of the transaction. A rehearsal reads it; `db.bulk.catalog_import` writes what it says.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, and_, case, false, func, insert, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateTable

from db.bulk.catalog_staging import ID, LINE, PRODUCTS, Part, Staged, analyze
from db.models import Product
from db.values import MAX_STOCK

STOCK: Final = "stock_quantity"


class StockMode(StrEnum):
    """What the quantity of the file does to the stock of a product that exists. A new one has it."""

    KEEP = "keep"  # nothing
    ADD = "add"  # it is added
    SET = "set"  # the stock becomes the same


@dataclass(frozen=True, slots=True)
class Planned:
    """How many rows are added and how many are changed: those that differ from what is stored."""

    added: int
    changed: int


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row whose id is not stored."""

    line: int
    row_id: int


@dataclass(frozen=True, slots=True)
class BadStock:
    """A product whose stock would be negative, or too large."""

    line: int
    product_id: int
    stock: int


@dataclass(frozen=True, slots=True)
class StockChange:
    """One product that exists, its stock before and after."""

    product_id: int
    name: str
    before: int
    after: int
    change: int


@dataclass(frozen=True, slots=True)
class StockTotal:
    """How many products that exist, and by how much their stock moves, all of them together."""

    products: int
    quantity: int


@dataclass(frozen=True, slots=True)
class PriceChange:
    """One product that exists, its price before and after."""

    product_id: int
    name: str
    before: Decimal
    after: Decimal


async def plan(session: AsyncSession, staged: Staged, mode: StockMode) -> Planned:
    """Work out what is to be written, into a table of this transaction, from what is committed now."""
    part = staged.part
    await session.execute(CreateTable(part.planned))
    columns = _planned_columns(staged, mode)
    rows = (
        select(*columns.values())
        .select_from(part.staged.outerjoin(part.target, part.target.c[ID] == part.staged.c[ID]))
        .where(or_(part.target.c[ID].is_(None), differs(staged, mode)))
    )
    await session.execute(insert(part.planned).from_select(list(columns), rows))
    await analyze(session, part.planned)
    is_new = part.planned.c.is_new
    counts = select(func.count().filter(is_new), func.count().filter(~is_new)).select_from(part.planned)
    return Planned(*(await session.execute(counts)).one())


async def find_new(session: AsyncSession, part: Part) -> NewRow | None:
    """The first line that adds a row."""
    planned = part.planned.c
    query = select(planned.line, planned.id).where(planned.is_new).order_by(planned.line).limit(1)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else NewRow(*row)


async def find_bad_stock(session: AsyncSession) -> BadStock | None:
    """The first line after which a stock would be negative, or larger than `MAX_STOCK`."""
    planned = PRODUCTS.planned.c
    stock = planned.stock + planned.stock_change
    query = (
        select(planned.line, planned.id, stock)
        .where(or_(stock < 0, stock > MAX_STOCK))
        .order_by(planned.line)
        .limit(1)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else BadStock(*row)


async def stock_total(session: AsyncSession, *, raised: bool) -> StockTotal:
    """Of the planned products that exist: those whose stock rises, or falls."""
    change = PRODUCTS.planned.c.stock_change
    query = select(func.count(), func.coalesce(func.sum(func.abs(change)), 0)).where(_moved(raised=raised))
    products, quantity = (await session.execute(query)).one()
    return StockTotal(products, int(quantity))


async def list_stock_changes(session: AsyncSession, limit: int, *, raised: bool) -> list[StockChange]:
    """The first of them, as they stand in the file."""
    planned = PRODUCTS.planned.c
    after = planned.stock + planned.stock_change
    query = (
        select(planned.id, Product.name, planned.stock, after, planned.stock_change)
        .join(Product, Product.id == planned.id)
        .where(_moved(raised=raised))
        .order_by(planned.line)
        .limit(limit)
    )
    return [StockChange(*row) for row in await session.execute(query)]


async def count_price_changes(session: AsyncSession) -> int:
    """How many of the planned products that exist get another price."""
    return await session.scalar(select(func.count()).where(_repriced())) or 0


async def list_price_changes(session: AsyncSession, limit: int) -> list[PriceChange]:
    """The first of them, as they stand in the file."""
    planned = PRODUCTS.planned.c
    query = (
        select(planned.id, Product.name, planned.price, planned.new_price)
        .join(Product, Product.id == planned.id)
        .where(_repriced())
        .order_by(planned.line)
        .limit(limit)
    )
    return [PriceChange(*row) for row in await session.execute(query)]


async def count_other_stocks(session: AsyncSession, staged: Staged) -> int:
    """How many products have another stock than the file says."""
    if STOCK not in staged.columns:
        return 0
    source = PRODUCTS.staged.c
    query = (
        select(func.count())
        .join_from(PRODUCTS.staged, Product, Product.id == source[ID])
        .where(Product.stock_quantity != source[STOCK])
    )
    return await session.scalar(query) or 0


def overwritten(staged: Staged) -> list[str]:
    """The columns whose value becomes that of the file."""
    return [name for name in staged.columns[1:] if name != STOCK]


def differs(staged: Staged, mode: StockMode) -> ColumnElement[bool]:
    """Whether a row that exists is to be changed."""
    source, target = staged.part.staged.c, staged.part.target.c
    others = [target[name].is_distinct_from(source[name]) for name in overwritten(staged)]
    moved = [_stock_change(staged, mode) != 0] if staged.part is PRODUCTS else []
    return or_(false(), *others, *moved)


def _stock_change(staged: Staged, mode: StockMode) -> ColumnElement[int]:
    """By how much the stock of a product that exists moves."""
    source, target = PRODUCTS.staged.c, PRODUCTS.target.c
    if mode is StockMode.KEEP or STOCK not in staged.columns:
        return literal(0, BigInteger)
    change: ColumnElement[int] = source[STOCK]
    return change if mode is StockMode.ADD else change - target[STOCK]


def _planned_columns(staged: Staged, mode: StockMode) -> dict[str, ColumnElement[Any]]:
    source, target = staged.part.staged.c, staged.part.target.c
    is_new = target[ID].is_(None)
    columns: dict[str, ColumnElement[Any]] = {ID: source[ID], LINE: source[LINE], "is_new": is_new}
    if staged.part is PRODUCTS:
        columns["stock"] = func.coalesce(target[STOCK], 0)
        columns["stock_change"] = case((is_new, source[STOCK]), else_=_stock_change(staged, mode))
        columns["price"] = target.price
        columns["new_price"] = source.price if "price" in staged.columns else target.price
    return columns


def _moved(*, raised: bool) -> ColumnElement[bool]:
    planned = PRODUCTS.planned.c
    return and_(~planned.is_new, planned.stock_change > 0 if raised else planned.stock_change < 0)


def _repriced() -> ColumnElement[bool]:
    planned = PRODUCTS.planned.c
    return and_(~planned.is_new, planned.price != planned.new_price)
