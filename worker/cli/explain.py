"""`explain`: one order, from its record to its outcome."""

from typing import Annotated, Literal

import typer

from worker import interruption
from worker.cli.options import AsJson, example, group
from worker.errors import CommandError

commands = group()


@commands.command(
    epilog=example(
        "order-worker explain 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f",
        "order-worker explain --scan all --json 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f",
    )
)
def explain(
    order_id: Annotated[str, typer.Argument(help="The order's id, a UUID.")],
    scan: Annotated[
        Literal["near", "all"],
        typer.Option(
            help="near: read where its records should be, and say what was left out. all: everything."
        ),
    ] = "near",
    as_json: AsJson = False,
) -> None:
    """Show everything about one order: its records, the decision, the rows, the publications. Reads only.

    Exit 1 if nothing is known of it.
    """
    from worker.kafka.offsets import read_order_id
    from worker.operations import screen
    from worker.operations.explain.collect import explain_order
    from worker.operations.explain.order_facts import State
    from worker.operations.explain.search import Scan
    from worker.operations.explain.terminal import explanation_screen
    from worker.settings import read_settings

    wanted = read_order_id(order_id)
    explanation = interruption.run(explain_order(read_settings(), wanted, Scan(scan)))
    if as_json:
        screen.print_json(explanation)
    if explanation.state is State.NOT_FOUND:
        further = "; `--scan all` reads everything" if explanation.facts.unread else ""
        said = explanation.summary.rstrip(".")
        raise CommandError(f"{wanted}: {said[0].lower()}{said[1:]}{further}")
    if not as_json:
        screen.output().print(explanation_screen(explanation))
