"""`python -m bench.listings`: how long every read of `db` takes in a shop with a million orders.

A time is what the caller waits: a session of its own, its connection from the pool, BEGIN, the statements
and the objects built from their rows; not the commit. Every listing is called once before anything is
measured. Rounds are interleaved: each calls every listing once and begins with another one.

Garbage that a listing makes is collected in its time. What the process was made of before is frozen: a full
collection that looks through it takes 50 ms here, and strikes whichever listing is at work.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final, NoReturn

import asyncpg
import typer
from rich.markup import escape
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from bench import report
from bench.errors import BenchError, WrongResultError
from bench.fill import CATEGORIES, Size, filled_shop
from bench.reads import Listing, find_listings, list_reports
from bench.screen import Screen, bar
from bench.statements import counted
from db.database_url import read_url
from db.engine import CONNECT_TIMEOUT_SECONDS, session_factory
from db.models import Category
from worker.database import database_address
from worker.error_texts import reason_of
from worker.sandbox.servers import LocalServiceError
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.postgres import LocalPostgres

CLAIM_MS: Final = 50
HELP = """How long every read of db takes in a shop with a million orders, on a PostgreSQL of its own.

Checks what it has written, and that pages by skip and by key are the same: ends with 1 if not (never because
it is slow), 2 for wrong usage. In a database that is given it has a schema of its own, dropped at the end.

Examples:

    python -m bench.listings                    some minutes

    python -m bench.listings --orders 20000 --users 4000 --rounds 3

    python -m bench.listings --results bench/results

    python -m bench.listings --database-url postgresql://user@host/name
"""


@dataclass(slots=True)
class Timed:
    """What a listing gave, and how long each call of it took."""

    name: str
    rows: int
    statements: int
    seconds: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return median(self.seconds) * 1_000

    @property
    def p95_ms(self) -> float:
        """By nearest rank: 95 % of the calls took no longer."""
        return sorted(self.seconds)[ceil(0.95 * len(self.seconds)) - 1] * 1_000


@dataclass(frozen=True, slots=True)
class Measured:
    """Both tables, and the version of the server."""

    listings: Sequence[Timed]
    reports: Sequence[Timed]
    postgres: str


def run(
    orders: Annotated[
        int, typer.Option(min=1_000, help="Pages are the deeper the more there are.")
    ] = 1_000_000,
    users: Annotated[int, typer.Option(min=100, help="Some of them order very often.")] = 200_000,
    products: Annotated[int, typer.Option(min=100, help=f"In {len(CATEGORIES)} categories.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Calls of each listing, interleaved.")] = 20,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A PostgreSQL that runs.  [default: one of its own]")
    ] = None,
    results: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the tables here too.")] = None,
) -> None:
    screen = Screen()
    size = Size(orders, users, products)
    if results:
        results.mkdir(parents=True, exist_ok=True)
    try:
        with _server(database_url, screen) as url:
            measured = asyncio.run(measure(url, size, rounds, screen))
    except (BenchError, LocalServiceError) as error:
        _fail(screen, f"wrong result: {error}" if isinstance(error, WrongResultError) else str(error))
    except (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        where = f" at {database_address(database_url)}" if database_url else ""
        _fail(screen, f"PostgreSQL{where}: {reason_of(error)}")
    _publish(measured, size, rounds, results)


async def measure(database_url: str, size: Size, rounds: int, screen: Screen) -> Measured:
    """Fill a schema of our own, time every read in it, and drop it. Raises WrongResultError."""
    async with filled_shop(database_url, size, screen) as engine:
        async with session_factory(engine)() as session:
            listings = await find_listings(session, size)
            version = await session.scalar(text("SHOW server_version"))
        timed = await _time(engine, listings, rounds, "reading pages")
        reports = await _time(engine, list_reports(), rounds, "reading reports")
    return Measured(timed, reports, str(version))


def page_table(timed: Sequence[Timed]) -> report.Columns:
    """One row per listing, and whether 95 % of its calls were within the claim."""
    head = ("listing", "rows", "statements", "median ms", "p95 ms", f"≤ {CLAIM_MS} ms")
    return report.Columns(head, [(*_cells(t), "yes" if t.p95_ms <= CLAIM_MS else "no") for t in timed])


def report_table(timed: Sequence[Timed]) -> report.Columns:
    """One row per report."""
    return report.Columns(("report", "rows", "statements", "median ms", "p95 ms"), [_cells(t) for t in timed])


def find_differing(pages: Sequence[tuple[str, Sequence[Any]]]) -> list[str]:
    """The pages, by name, of which not everybody saw the same rows in the same order."""
    seen = [(page, [row.id for row in rows]) for page, rows in pages if page]
    first = dict(reversed(seen))
    return sorted({page for page, ids in seen if ids != first[page]})


async def _time(engine: AsyncEngine, listings: Sequence[Listing], rounds: int, title: str) -> list[Timed]:
    # Connections that were open while the tables grew keep their old plans.
    await engine.dispose()
    timed = await _warm_up(engine, listings)
    turning = deque(zip(listings, timed, strict=True))
    with _frozen(), bar(title, rounds * len(turning)) as advance:
        for _ in range(rounds):
            for listing, times in turning:
                seconds, _ = await _call(engine, listing)
                times.seconds.append(seconds)
                advance(1)
            turning.rotate(-1)
    return timed


async def _warm_up(engine: AsyncEngine, listings: Sequence[Listing]) -> list[Timed]:
    timed, pages = [], []
    for listing in listings:
        with counted(engine) as sent:
            _, result = await _call(engine, listing)
        rows = _rows(result)
        timed.append(Timed(listing.name, len(rows), len(sent)))
        pages.append((listing.page, rows))
    if differing := find_differing(pages):
        raise WrongResultError(f"by skip and by key another page: {', '.join(differing)}")
    return timed


async def _call(engine: AsyncEngine, listing: Listing) -> tuple[float, Any]:
    began = time.perf_counter()
    async with session_factory(engine)() as session:
        result = await listing.read(session)
        return time.perf_counter() - began, result


@contextmanager
def _frozen() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _rows(result: Any) -> Sequence[Any]:
    if isinstance(result, Category):
        return result.products
    return result if isinstance(result, Sequence) else [result]


def _cells(timed: Timed) -> tuple[str, ...]:
    milliseconds = (f"{timed.median_ms:,.1f}", f"{timed.p95_ms:,.1f}")
    return (timed.name, f"{timed.rows:,}", str(timed.statements), *milliseconds)


@contextmanager
def _server(given: str | None, screen: Screen) -> Iterator[str]:
    """The URL of the PostgreSQL to measure on; one of our own is gone afterwards."""
    if given:
        asyncio.run(_require_readable(given))
        yield given
        return
    screen.say("Starting PostgreSQL as a local process")
    with data_folder() as folder:
        server = LocalPostgres(folder)
        try:
            server.start()
            yield server.url
            server.stop()
        finally:
            server.abandon()


async def _require_readable(url: str) -> None:
    try:
        connection = await asyncpg.connect(read_url(url).dsn, timeout=CONNECT_TIMEOUT_SECONDS)
    except ValueError:
        # Not in the driver's words, which may quote a piece of the password.
        raise typer.BadParameter("--database-url takes postgresql://user:password@host:port/name") from None
    await connection.close()


def _fail(screen: Screen, sentence: str) -> NoReturn:
    screen.say(f"[red]{escape(sentence)}[/red]")
    raise typer.Exit(1)


def _publish(measured: Measured, size: Size, rounds: int, folder: Path | None) -> None:
    pages, statistics = page_table(measured.listings), report_table(measured.reports)
    title = f"Listings of {size.orders:,} orders, {rounds} call{'' if rounds == 1 else 's'} each"
    products = f"{size.products:,} products in {len(CATEGORIES)} categories"
    notes = [
        f"1 to 5 items an order; {size.users:,} users; {products}",
        "time: session, connection from the pool, statements and objects; not the commit",
        f"≤ {CLAIM_MS} ms: 95 % of the calls; after n: the page of skip=n, found by the key of row n",
        "typical: a user with as many orders as the average; biggest, limit=50: the one with the most",
        report.machine(measured.postgres),
    ]
    sections = (
        report.Section("listings", title, pages, notes),
        report.Section("reports", "Reports", statistics, notes),
    )
    for section in sections:
        report.show(section)
        if folder:
            report.keep(section, [], folder)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=HELP)(run)
    app(prog_name="python -m bench.listings")
