"""`place` and `check`: publish orders from a file or random ones; or only check a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import AsJson, example, finite, group
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.operations.check.verdicts import CheckFinding

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
        float | None,
        typer.Option(
            min=0.001, callback=finite, help="Records a second; default: as fast as Kafka takes them."
        ),
    ] = None,
    duplicates: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Share of the orders that is sent twice.")
    ] = 0.0,
    seed: Annotated[
        int | None,
        typer.Option(help="With --random: the same seed and catalogue give the same orders, ids included."),
    ] = None,
    items: Annotated[
        int, typer.Option(min=1, max=1_000, help="With --random: most products of one order.")
    ] = 5,
) -> None:
    """Publish orders. Each line is sent byte for byte; if one line is bad, nothing is sent."""
    if (file is None) == (random is None):
        raise UsageError("give either a file or --random N")
    from worker.operations.place.place import PlacingPace, place_file, place_random
    from worker.operations.place.terminal import placed_text
    from worker.settings import read_settings

    settings, pace = read_settings(), PlacingPace(rate, duplicates, seed)
    if random is not None:
        placed = interruption.run(place_random(settings, random, max_items=items, pace=pace))
    else:
        assert file is not None
        placed = interruption.run(place_file(settings, file, pace=pace))
    typer.echo(placed_text(placed, settings))


@commands.command(
    epilog=example(
        "order-worker check orders.jsonl",
        "order-worker check --contract-only --json orders.jsonl",
    )
)
def check(
    file: Annotated[
        Path,
        typer.Argument(
            help='JSON lines, each an order-placed value; "-" for standard input.', allow_dash=True
        ),
    ],
    contract_only: Annotated[
        bool, typer.Option("--contract-only", help="Check only the values, without any server.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the workers would decide for the orders of a file if they were placed now. Changes nothing.

    They are checked in order, as workers decide: stock that one order takes is gone for those after it.

    Exit 0 if every order would be confirmed or is a duplicate, else 1.
    """
    from worker.operations import screen
    from worker.operations.check.check import check_file, finding_text, summary_text
    from worker.operations.place.order_file import file_name
    from worker.settings import read_settings

    name, document = file_name(file), screen.JsonStream("findings")

    def report(finding: "CheckFinding") -> None:
        if as_json:
            document.add(finding)
        else:
            typer.echo(finding_text(name, finding))

    summary = interruption.run(check_file(read_settings(), file, report, contract_only=contract_only))
    if as_json:
        document.end("summary", summary)
    else:
        typer.echo(summary_text(summary))
    if not summary.is_good:
        raise typer.Exit(1)
