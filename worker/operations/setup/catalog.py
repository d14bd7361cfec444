"""`catalog import`: users, categories and products from CSV files, all of it or nothing."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk import catalog_import, catalog_plan, catalog_staging
from db.bulk.catalog_plan import StockMode
from db.bulk.catalog_staging import PRODUCTS, Part, Staged
from db.engine import session_factory
from db.values import MAX_STOCK
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS
from worker.operations.screen import Bar, progress
from worker.operations.setup import catalog_csv
from worker.operations.setup.catalog_csv import Layout, at
from worker.operations.setup.catalog_report import CatalogReport, Imported, ProductChanges, StockMoves
from worker.settings import Settings

# In the order of their foreign keys, which is the order they are written in.
_LAYOUTS: Final = {
    catalog_staging.USERS: catalog_csv.USERS,
    catalog_staging.CATEGORIES: catalog_csv.CATEGORIES,
    PRODUCTS: catalog_csv.PRODUCTS,
}
_ROWS_PER_STEP: Final = 1_000  # between two looks at Ctrl-C and the progress bar


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What is asked for. `limit`: how many stocks raised, stocks lowered and prices are listed, of each."""

    path: Path
    stock: StockMode = StockMode.KEEP
    execute: bool = False
    limit: int = 20
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One file and the part of the catalogue it holds."""

    path: Path
    part: Part
    layout: Layout


async def import_catalog(settings: Settings, asked: ImportRequest) -> CatalogReport:
    """Import in one transaction: after any error the database is as it was before.

    Where there are products already, and without `execute`, nothing is changed.
    """
    files = find_files(asked.path, asked.stock)
    async with database_engine(settings, "order-worker catalog import") as engine:
        await require_database(engine, settings)
        try:
            with progress("reading", _size_bytes(files), quiet=asked.quiet) as bar:
                async with session_factory(engine)() as session, session.begin():
                    return await _import(session, files, asked, bar)
        except (*DATABASE_ERRORS, OSError) as error:
            # The files were checked before, so the cause is the server, or a transaction that has just
            # changed the same rows.
            raise CommandError(f"the import failed and can be run again: {_first_reason(error)}") from error


def find_files(path: Path, stock: StockMode = StockMode.KEEP) -> list[CatalogFile]:
    """The three files of a folder, or the one file, in the order they must be written in."""
    layouts = _LAYOUTS | ({PRODUCTS: catalog_csv.PRODUCTS_TO_ADD} if stock is StockMode.ADD else {})
    found = _find_files(path, layouts)
    if stock is not StockMode.KEEP and PRODUCTS not in {file.part for file in found}:
        raise UsageError(f"--stock {stock} is for products, and {path} holds none")
    return found


def _find_files(path: Path, layouts: Mapping[Part, Layout]) -> list[CatalogFile]:
    names = ", ".join(layout.file_name for layout in layouts.values())
    if path.is_dir():
        known = [CatalogFile(path / layout.file_name, part, layout) for part, layout in layouts.items()]
        missing = [file.layout.file_name for file in known if not file.path.is_file()]
        if missing:
            raise UsageError(
                f"{path} has no {' and no '.join(missing)}: give a folder with {names}, or one such file"
            )
        return known
    for part, layout in layouts.items():
        if path.name == layout.file_name and path.is_file():
            return [CatalogFile(path, part, layout)]
    raise UsageError(f"{path} is neither a folder with {names} nor one such file")


async def _import(
    session: AsyncSession, files: Sequence[CatalogFile], asked: ImportRequest, bar: Bar
) -> CatalogReport:
    staged = [await _stage(session, file, asked.stock, bar) for file in files]
    bar.describe("waiting for other imports")
    await catalog_import.acquire_import_lock(session)
    acts = asked.execute or not await catalog_import.has_products(session)
    bar.describe("checking and writing" if acts else "checking")
    for file, rows in zip(files, staged, strict=True):
        await _check(session, file, rows, with_categories=len(files) > 1)
    tables, products = [], None
    for file, rows in zip(files, staged, strict=True):
        if acts:
            # From here on rows are locked until the commit.
            await catalog_import.lock_changing(session, rows, asked.stock)
        planned = await catalog_plan.plan(session, rows, asked.stock)
        await _check_plan(session, file, rows)
        if acts:
            await catalog_import.write_planned(session, rows, asked.stock)
        tables.append(Imported(file.part.name, rows.count, planned.added, planned.changed))
        if file.part is PRODUCTS:
            products = await _product_changes(session, rows, asked)
    return CatalogReport(acts, asked.stock, tables, products)


async def _stage(session: AsyncSession, file: CatalogFile, stock: StockMode, bar: Bar) -> Staged:
    count, shown_to = 0, 0

    def show(position: int) -> None:
        nonlocal shown_to
        bar.advance(position - shown_to)
        shown_to = position

    with file.path.open("rb") as opened:
        read = catalog_csv.read_rows(file.path, opened, file.layout)
        if file.part is PRODUCTS and stock is not StockMode.KEEP and catalog_plan.STOCK not in read.columns:
            raise CommandError(f"{file.path} has no column {catalog_plan.STOCK}: --stock {stock} needs it")

        async def rows() -> AsyncIterator[tuple[Any, ...]]:
            nonlocal count
            for row in read:
                yield row
                count += 1
                if count % _ROWS_PER_STEP == 0:
                    show(opened.tell())
                    # The driver waits only when the server is slower than we are.
                    await asyncio.sleep(0)
            show(opened.tell())

        return await catalog_staging.stage(session, file.part, read.columns, rows())


async def _check(session: AsyncSession, file: CatalogFile, staged: Staged, *, with_categories: bool) -> None:
    """What is wrong whatever is stored of the same ids."""
    part, unique = staged.part, staged.unique
    for column in ("id", unique) if unique else ("id",):
        if twice := await catalog_staging.find_repeated(session, part, column):
            raise CommandError(
                f"{at(file.path, twice.line, column)}: {twice.value} is on line {twice.first_line} already"
            )
    if unique and (taken := await catalog_staging.find_taken(session, part)):
        raise CommandError(
            f"{at(file.path, taken.line, unique)}: {taken.value} belongs to id {taken.owner_id}"
            f" in the table {part.name} already"
        )
    if "category_id" in staged.columns and (
        unknown := await catalog_staging.find_unknown_category(session, with_categories=with_categories)
    ):
        raise CommandError(
            f"{at(file.path, unknown.line, 'category_id')}: there is no category {unknown.category_id}"
        )


async def _check_plan(session: AsyncSession, file: CatalogFile, staged: Staged) -> None:
    """What is wrong beside what is stored."""
    part = staged.part
    missing = [name for name in file.layout.columns if name in part.required and name not in staged.columns]
    if missing and (new := await catalog_plan.find_new(session, part)):
        raise CommandError(
            f"{at(file.path, new.line, missing[0])}: the file has no such column, and a new row needs it:"
            f" there is no id {new.row_id} in the table {part.name} yet"
        )
    if part is PRODUCTS and (bad := await catalog_plan.find_bad_stock(session)):
        raise CommandError(
            f"{at(file.path, bad.line, catalog_plan.STOCK)}: product {bad.product_id} would have"
            f" {bad.stock}, which is not from 0 to {MAX_STOCK}"
        )


async def _product_changes(session: AsyncSession, staged: Staged, asked: ImportRequest) -> ProductChanges:
    is_kept = asked.stock is StockMode.KEEP
    return ProductChanges(
        await _stock_moves(session, asked.limit, raised=True),
        await _stock_moves(session, asked.limit, raised=False),
        await catalog_plan.count_price_changes(session),
        await catalog_plan.list_price_changes(session, asked.limit),
        await catalog_plan.count_other_stocks(session, staged) if is_kept else 0,
    )


async def _stock_moves(session: AsyncSession, limit: int, *, raised: bool) -> StockMoves:
    total = await catalog_plan.stock_total(session, raised=raised)
    first = await catalog_plan.list_stock_changes(session, limit, raised=raised)
    return StockMoves(total.products, total.quantity, first)


def _first_reason(error: BaseException) -> str:
    """Why it failed, not why the rollback after it failed too."""
    first, context = error, error.__context__
    while context is not None:
        if isinstance(context, (asyncpg.PostgresError, OSError)):
            first = context
        context = context.__context__
    return reason_of(first)


def _size_bytes(files: Sequence[CatalogFile]) -> int:
    return sum(os.path.getsize(file.path) for file in files)
