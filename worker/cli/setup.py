"""`db`, `topics` and `catalog`: what has to be there before the worker runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import example, group
from worker.errors import CommandError, UsageError

if TYPE_CHECKING:
    from worker.settings import Settings

db = group("The tables.")
topics = group("The topics.")
catalog = group("Users, categories and products.")


@db.command("upgrade", epilog=example("order-worker db upgrade"))
def db_upgrade() -> None:
    """Create the tables, or bring them to this version. In one transaction; a second call does nothing."""
    from worker.settings import read_settings

    typer.echo(interruption.run(_upgrade(read_settings())))


@topics.command("create", epilog=example("order-worker topics create --partitions 12 --replication 3"))
def topics_create(
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of each topic.")] = 4,
    replication: Annotated[
        int, typer.Option(min=-1, max=100, help="Copies of each partition; -1: the brokers' default.")
    ] = -1,
) -> None:
    """Create the topics that are missing. Those that exist stay as they are."""
    from worker.operations.screen import output
    from worker.operations.setup.topics import create_topics, topics_screen
    from worker.settings import read_settings

    if replication == 0:
        raise UsageError("--replication is 1 or more, or -1 for the brokers' default")
    output().print(topics_screen(interruption.run(create_topics(read_settings(), partitions, replication))))


@catalog.command(
    "import", epilog=example("order-worker catalog import shop/", "order-worker catalog import products.csv")
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
    from worker.operations.setup.catalog import import_catalog, summary
    from worker.settings import read_settings

    typer.echo(summary(interruption.run(import_catalog(read_settings(), path))))


async def _upgrade(settings: "Settings") -> str:
    from db import migrate
    from worker import database
    from worker.failures import DATABASE_ERRORS, reason_of

    schema = settings.database_schema
    async with database.database_engine(settings, "order-worker db upgrade") as engine:
        await database.require_reachable_database(engine, settings)
        before = await database.require_known_revision(engine, settings)
        try:
            await migrate.upgrade(engine, schema)
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"the upgrade failed: {reason_of(error)}") from error
        after = await migrate.current_revision(engine)
    if before == after:
        return f'schema "{schema}" is at revision {after} already'
    return f'schema "{schema}" upgraded from {before or "nothing"} to revision {after}'
