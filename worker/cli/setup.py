"""`db`, `topics` and `catalog`: what has to be there before the worker runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from worker import interruption
from worker.cli.options import AsJson, Execute, example, finite, group
from worker.errors import UsageError

db = group("The tables.")
topics = group("The topics.")
catalog = group("Users, categories and products.")


LockTimeout = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=3600,
        callback=finite,
        metavar="SECONDS",
        help="To wait for one lock, while others wait behind.",
    ),
]
Tries = Annotated[int, typer.Option(min=1, max=10_000, help="Of one revision that gets no lock.")]


@db.command(
    "upgrade", epilog=example("order-worker db upgrade", "order-worker db upgrade --lock-timeout 0.5")
)
def db_upgrade(
    lock_timeout: LockTimeout = 2.0,
    tries: Tries = 30,
) -> None:
    """Create the tables, or bring them to this version, while workers run. A second call does nothing.

    Each revision is a transaction of its own. Indexes are built while others read and write.

    Interrupted or failed, it continues where it was when it is run again.
    """
    from db.migrate import LockWaits
    from worker.operations.screen import say
    from worker.operations.setup.tables import upgrade_report, upgrade_tables
    from worker.settings import read_settings

    waits = LockWaits(lock_timeout, tries)
    upgraded = interruption.run(upgrade_tables(read_settings(), waits, say))
    typer.echo("\n".join(upgrade_report(upgraded)))


@db.command(
    "downgrade", epilog=example("order-worker db downgrade 0007", "order-worker db downgrade 0007 --execute")
)
def db_downgrade(
    revision: Annotated[str, typer.Argument(help="Of the older version: its `db upgrade` names it.")],
    lock_timeout: LockTimeout = 2.0,
    tries: Tries = 30,
    execute: Execute = False,
) -> None:
    """Bring the tables back to an earlier revision, for an older version. Without --execute: the statements.

    What they drop is gone: make a backup. Stop the workers first, and start those of the older version after.
    """
    from db.migrate import LockWaits
    from worker.operations.screen import repeated_command_line
    from worker.operations.setup.tables import downgrade_tables
    from worker.settings import read_settings

    waits = LockWaits(lock_timeout, tries)
    lines = interruption.run(downgrade_tables(read_settings(), revision, waits, execute=execute))
    if not execute:
        lines += ["", f"nothing is changed yet: {repeated_command_line()}"]
    typer.echo("\n".join(lines))


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
    "import",
    epilog=example(
        "order-worker catalog import shop/",
        "order-worker catalog import products.csv --execute",
        "order-worker catalog import delivery/products.csv --stock add --execute",
    ),
)
def catalog_import(
    path: Annotated[
        Path,
        typer.Argument(help="Folder with users.csv, categories.csv and products.csv, or one of these files."),
    ],
    stock: Annotated[
        Literal["keep", "add", "set"],
        typer.Option(
            help="What stock_quantity does to products that exist: nothing (keep), it is added (add; may be"
            " negative), or it becomes the stock (set). New products have it in any case."
        ),
    ] = "keep",
    execute: Execute = False,
    as_json: AsJson = False,
    limit: Annotated[
        int, typer.Option(min=0, max=100_000, help="Stocks raised, stocks lowered and prices shown, of each.")
    ] = 20,
) -> None:
    """Add or change users, categories and products by id: all rows or, after any error, none.

    Where there are no products yet it acts at once. Else without --execute: a rehearsal.

    users.csv: id,email,full_name

    categories.csv: id,name,description

    products.csv: id,name,description,price,stock_quantity,category_id

    A column that is left out stays as it is: id,price changes prices alone.

    A new row needs all columns but the description.

    An empty cell is an empty description, and in any other column an error.

    Workers may run. An order that names the old price is rejected from then on.
    """
    from db.bulk.catalog_plan import StockMode
    from worker.operations import screen
    from worker.operations.setup.catalog import ImportRequest, import_catalog
    from worker.operations.setup.catalog_report import document, show
    from worker.settings import read_settings

    asked = ImportRequest(path, StockMode(stock), execute, limit, quiet=as_json)
    report = interruption.run(import_catalog(read_settings(), asked))
    if as_json:
        screen.print_json(document(report))
    else:
        show(screen.output(), report, screen.repeated_command_line())
