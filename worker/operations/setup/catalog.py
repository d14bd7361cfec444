"""`catalog import`: users, categories and products from CSV files, all of it or nothing."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from db.bulk import catalog_import
from db.engine import session_factory
from worker.database import database_engine, require_database
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS, reason_of
from worker.operations.screen import Bar, progress
from worker.operations.setup import catalog_csv
from worker.operations.setup.catalog_csv import Layout, at
from worker.settings import Settings

# In the order of their foreign keys, which is the order they are written in.
_LAYOUTS: Final = {
    catalog_import.USERS: catalog_csv.USERS,
    catalog_import.CATEGORIES: catalog_csv.CATEGORIES,
    catalog_import.PRODUCTS: catalog_csv.PRODUCTS,
}
_ROWS_PER_STEP: Final = 1_000  # between two looks at Ctrl-C and the progress bar


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One file and the part of the catalogue it holds."""

    path: Path
    part: catalog_import.Part
    layout: Layout


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did to one table."""

    table: str
    rows: int
    added: int
    changed: int

    @property
    def unchanged(self) -> int:
        return self.rows - self.added - self.changed


async def import_catalog(settings: Settings, path: Path, *, quiet: bool = False) -> list[Imported]:
    """Import the folder or file in one transaction: after any error the database is as it was before."""
    files = find_files(path)
    async with database_engine(settings, "order-worker catalog import") as engine:
        await require_database(engine, settings)
        try:
            with progress("reading", _size_bytes(files), quiet=quiet) as bar:
                async with session_factory(engine)() as session, session.begin():
                    return await _import(session, files, bar)
        except (*DATABASE_ERRORS, OSError) as error:
            # Everything that is wrong with the files was found before: this is the server, or somebody
            # who changed the same rows at this moment.
            raise CommandError(f"the import failed and can be run again: {_first_reason(error)}") from error


def find_files(path: Path) -> list[CatalogFile]:
    """The three files of a folder, or the one file, in the order they must be written in."""
    known = [CatalogFile(path / layout.file_name, part, layout) for part, layout in _LAYOUTS.items()]
    names = ", ".join(layout.file_name for layout in _LAYOUTS.values())
    if path.is_dir():
        missing = [file.layout.file_name for file in known if not file.path.is_file()]
        if missing:
            raise UsageError(
                f"{path} has no {' and no '.join(missing)}: give a folder with {names}, or one such file"
            )
        return known
    for file in known:
        if path.name == file.layout.file_name and path.is_file():
            return [CatalogFile(path, file.part, file.layout)]
    raise UsageError(f"{path} is neither a folder with {names} nor one such file")


def summary(imported: Sequence[Imported]) -> str:
    """A table with a line for each part."""
    lines = [f"{'table':<10} {'rows':>13} {'added':>13} {'changed':>13} {'unchanged':>13}"]
    lines += [
        f"{i.table:<10} {i.rows:>13,} {i.added:>13,} {i.changed:>13,} {i.unchanged:>13,}" for i in imported
    ]
    return "\n".join(lines)


async def _import(session: AsyncSession, files: Sequence[CatalogFile], bar: Bar) -> list[Imported]:
    counts = [await _stage(session, file, bar) for file in files]
    bar.says("checking and writing")
    for file in files:
        await _check(session, file)
    # Written last and in one go: from here on rows are locked until the commit.
    written = [await _write(session, file) for file in files]
    return [
        Imported(file.part.name, rows, result.added, result.changed)
        for file, rows, result in zip(files, counts, written, strict=True)
    ]


async def _stage(session: AsyncSession, file: CatalogFile, bar: Bar) -> int:
    count, shown_to = 0, 0

    def show(position: int) -> None:
        nonlocal shown_to
        bar.advance(position - shown_to)
        shown_to = position

    async def rows() -> AsyncIterator[tuple[Any, ...]]:
        nonlocal count
        with file.path.open("rb") as opened:
            for row in catalog_csv.read_rows(file.path, opened, file.layout):
                yield row
                count += 1
                if count % _ROWS_PER_STEP == 0:
                    show(opened.tell())
                    # The driver waits only when the server is slower than we are.
                    await asyncio.sleep(0)
            show(opened.tell())

    await catalog_import.stage(session, file.part, rows())
    return count


async def _check(session: AsyncSession, file: CatalogFile) -> None:
    part, unique = file.part, file.part.unique
    for column in ("id", unique) if unique else ("id",):
        if twice := await catalog_import.find_repeated(session, part, column):
            raise CommandError(
                f"{at(file.path, twice.line, column)}: {twice.value} is on line {twice.first_line} already"
            )
    if unique and (taken := await catalog_import.find_taken(session, part)):
        raise CommandError(
            f"{at(file.path, taken.line, unique)}: {taken.value} belongs to id {taken.owner_id}"
            f" in the table {part.name} already"
        )


async def _write(session: AsyncSession, file: CatalogFile) -> catalog_import.Written:
    if file.part is catalog_import.PRODUCTS and (
        unknown := await catalog_import.find_unknown_category(session)
    ):
        raise CommandError(
            f"{at(file.path, unknown.line, 'category_id')}: there is no category {unknown.category_id}"
        )
    return await catalog_import.write_staged(session, file.part)


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
