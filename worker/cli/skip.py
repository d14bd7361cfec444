"""`skip`: skips what nobody can read, on record."""

from typing import Annotated

import typer

from worker import interruption
from worker.cli.options import MOST_OFFSET, AsJson, Execute, example, group

commands = group()


@commands.command(
    epilog=example(
        "order-worker skip order-placed:3:120",
        'order-worker skip order-placed:3:120 --by ada --note "disk 7 replaced, see 4711" --execute',
    )
)
def skip(
    place: Annotated[str, typer.Argument(metavar="TOPIC:PARTITION:OFFSET", help="As /readyz names it.")],
    through: Annotated[
        int | None,
        typer.Option(
            min=0, max=MOST_OFFSET, metavar="OFFSET", help="The last one, where Kafka itself cannot serve it."
        ),
    ] = None,
    requested_by: Annotated[str | None, typer.Option("--by", metavar="WHO", help="For the record.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why; for the record.")] = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Pass over a place of the input that nobody can unpack. Without --execute: a rehearsal.

    A wrong checksum, an unknown codec, broken compression: the partition waits there, and the orders behind.

    All of the batch is skipped. Orders in it are lost to the workers: ask upstream to send them again.

    Workers may run: the one that waits there continues by itself. `lag` and `reconcile` show the skip.

    What can be read is refused: a worker decides it, or writes a dead letter of it.
    """
    from worker.operations import screen
    from worker.operations.skip import skip as operation
    from worker.operations.skip.plan import (
        LONGEST_NAME,
        LONGEST_NOTE,
        SkipRequest,
        parse_place,
        report,
        require_text,
    )
    from worker.settings import read_settings

    missing = []
    if execute or requested_by is not None:
        requested_by = require_text("--by", requested_by, LONGEST_NAME)
    else:
        missing += ["--by", "WHO"]
    if execute or note is not None:
        note = require_text("--note", note, LONGEST_NOTE)
    else:
        missing += ["--note", "TEXT"]
    asked = SkipRequest(parse_place(place), through, requested_by, note)
    plan = interruption.run(operation.skip(read_settings(), asked, execute=execute))
    if as_json:
        screen.print_json(plan)
    else:
        console = screen.output()
        for line in report(plan, screen.repeated_command_line(*missing)):
            console.print(line, soft_wrap=True)
