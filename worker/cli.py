"""The console script `order-worker`: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

Only typer is imported here. Each command imports what it needs when it runs, so that `--help`
answers at once.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.errors import CommandError, UsageError

if TYPE_CHECKING:
    from worker.settings import Settings

_SETTINGS_NOTE: Final = "Settings come from the environment (ORDER_WORKER_…) and from .env."


def _example(*lines: str) -> str:
    # One paragraph a line: rich joins the lines of a paragraph.
    return "\n\n".join(("[bold]Example[/bold]", *(f"[cyan]{line}[/cyan]" for line in lines)))


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich")


app = typer.Typer(
    name="order-worker",
    help=f"Decides orders from Kafka against stock in PostgreSQL, exactly once. {_SETTINGS_NOTE}",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    # An unexpected error keeps Python's own traceback: no values of variables, which may be secrets.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_db = _group("The tables.")
_topics = _group("The topics.")
_catalog = _group("Users, categories and products.")
app.add_typer(_db, name="db")
app.add_typer(_topics, name="topics")
app.add_typer(_catalog, name="catalog")


def main() -> None:
    """Run the command line: what a person can put right is one line, anything else a traceback."""
    try:
        app()
    except CommandError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command(epilog=_example("order-worker run", "order-worker run --workers 4"))
def run(
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker processes; more than one are supervised.")
    ] = 1,
) -> None:
    """Decide orders until told to stop (SIGTERM or Ctrl-C)."""
    from worker.settings import read_settings

    settings = read_settings()
    if workers == 1:
        from worker.process import run as run_worker

        sys.exit(run_worker(settings))
    from worker.supervisor import supervise

    sys.exit(supervise(settings, workers))


@_db.command("upgrade", epilog=_example("order-worker db upgrade"))
def db_upgrade() -> None:
    """Create the tables, or bring them to this version. In one transaction; a second call does nothing."""
    from worker.settings import read_settings

    typer.echo(asyncio.run(_upgrade(read_settings())))


@_topics.command("create", epilog=_example("order-worker topics create --partitions 12 --replication 3"))
def topics_create(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of each topic.")] = 4,
    replication: Annotated[
        int, typer.Option(min=-1, max=100, help="Copies of each partition; -1: the brokers' default.")
    ] = -1,
) -> None:
    """Create the topics that are missing. Those that exist stay as they are."""
    from worker.operations.create_topics import create_topics, table
    from worker.settings import read_settings

    if replication == 0:
        raise UsageError("--replication is 1 or more, or -1 for the brokers' default")
    typer.echo(table(asyncio.run(create_topics(read_settings(), partitions, replication))))


@_catalog.command(
    "import", epilog=_example("order-worker catalog import shop/", "order-worker catalog import products.csv")
)
def catalog_import(
    path: Annotated[
        Path,
        typer.Argument(help="Folder with users.csv, categories.csv and products.csv, or one of these files."),
    ],
) -> None:
    """Add or change users, categories and products by id: all rows or, after any error, none.

    users.csv: id,email,full_name

    categories.csv: id,name,description

    products.csv: id,name,description,price,stock_quantity,category_id
    """
    from worker.operations.import_catalog import import_catalog, summary
    from worker.settings import read_settings

    typer.echo(summary(asyncio.run(import_catalog(read_settings(), path))))


@app.command(
    epilog=_example(
        "order-worker place orders.jsonl",
        "order-worker place --random 10000 --rate 500 --duplicates 0.02",
    )
)
def place(
    file: Annotated[
        Path | None,
        typer.Argument(
            help='JSON lines, each an order-placed value; "-" for standard input.', allow_dash=True
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Make up N orders from the catalogue.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Records a second; default: as fast as Kafka takes them.")
    ] = None,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the orders that is sent twice.")
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(help="With --random: the same seed and catalogue give the same orders, ids included."),
    ] = None,
    items: Annotated[
        int, typer.Option(min=1, max=1_000, help="With --random: most products of one order.")
    ] = 5,
) -> None:
    """Publish orders. Of a file with one bad line nothing is sent; each line goes out byte for byte."""
    if (file is None) == (random is None):
        raise UsageError("give either a file or --random N")
    from worker.operations.place import Pace, place_file, place_random
    from worker.settings import read_settings

    settings, pace = read_settings(), Pace(rate, duplicates, seed)
    if random is not None:
        placed = asyncio.run(place_random(settings, random, max_items=items, pace=pace))
    else:
        assert file is not None
        placed = asyncio.run(place_file(settings, file, pace=pace))
    typer.echo(str(placed))


@app.command(epilog=_example("order-worker demo", "order-worker demo --keep"))
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
) -> None:
    """Show everything at work on servers of its own: nothing to set up, nothing left behind."""
    from worker.demo import run_demo

    sys.exit(run_demo(keep=keep))


async def _upgrade(settings: "Settings") -> str:
    import asyncpg
    from sqlalchemy.exc import DBAPIError

    from db import migrate
    from worker import connections

    schema = settings.database_schema
    async with connections.database_engine(settings, "order-worker db upgrade") as engine:
        await connections.require_reachable_database(engine, settings)
        before = await connections.require_known_revision(engine, settings)
        try:
            await migrate.upgrade(engine, schema)
        except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise CommandError(f"the upgrade failed: {connections.reason_of(error)}") from error
        after = await migrate.current_revision(engine)
    if before == after:
        return f'schema "{schema}" is at revision {after} already'
    return f'schema "{schema}" upgraded from {before or "nothing"} to revision {after}'
