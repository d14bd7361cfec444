"""`place`: orders into Kafka."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from worker.commands.style import example, group
from worker.errors import UsageError

commands = group()


@commands.command(
    epilog=example(
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
