"""`ledger`: the table of all decisions."""

from typing import Annotated

import typer

from worker import interruption
from worker.cli.options import AsJson, Execute, example, finite, group
from worker.errors import CommandError

commands = group("The ledger, where every decision is: rebuild it from the topics, and keep it small.")


@commands.command(
    epilog=example(
        "order-worker ledger restore",
        "order-worker ledger restore --from 2026-11-23T10:00:00Z --execute",
    )
)
def restore(
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Outcomes published from this time on; default: all."),
    ] = None,
    orders: Annotated[
        bool,
        typer.Option(
            "--orders/--ledger-only",
            help="Write orders and items too, and take their stock; or the ledger's rows alone.",
        ),
    ] = True,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild what was published and is no longer in PostgreSQL. Without --execute: a rehearsal.

    For a database that was restored from a backup, or lost its last
    transactions, while Kafka is ahead: the workers wait then.

    Reads the outcome topics, where each event lies byte for byte, and the input
    for what each came of. A row that is there is never changed: where it differs
    from what was published, that is listed.

    Orders are written as they were confirmed, pending, and their stock is taken.
    If products lack stock or are gone, they are listed, and nothing is written.

    With --execute the workers, which may be running, continue by themselves when
    nothing is missing any more. Killed anywhere, run it again.
    """
    from worker.kafka.offsets import parse_time
    from worker.operations import screen
    from worker.operations.restore.restore import RestoreRequest
    from worker.operations.restore.restore import restore as operation
    from worker.operations.restore.terminal import document, failure, report, show
    from worker.settings import read_settings

    settings = read_settings()
    since = parse_time(start, "--from") if start is not None else None
    asked = RestoreRequest(since, orders, execute, quiet=as_json)
    done = interruption.run(operation(settings, asked, say=lambda sentence: typer.echo(sentence, err=True)))
    found = report(settings, done)
    if as_json:
        screen.print_json(document(found))
    else:
        show(screen.output(), found)
    if why := failure(found, execute=execute):
        raise CommandError(why)


@commands.command(
    epilog=example(
        "order-worker ledger prune --before 2026-09-01T00:00:00Z",
        "order-worker ledger prune --before 2026-09-01T00:00:00Z --rate 2000 --execute",
    )
)
def prune(
    before: Annotated[
        str,
        typer.Option(metavar="TIME", help="Of orders decided before then: 2026-09-01T00:00:00Z"),
    ],
    rate: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Rows a second; 0: as fast as PostgreSQL takes it."),
    ] = 5_000,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Delete the events of old decisions, which are most of the ledger. Without --execute: a rehearsal.

    The rows stay: each order is decided once, and the same order again is a
    duplicate. Only the text of its outcome is deleted: `republish` cannot publish it
    any more, and `explain` does not show its reasons.

    An event is kept while it may be needed: its record is still in the input topic,
    the group has not committed past it for good, or its outcome is withheld.

    TIME may not be younger than the input topic's retention.

    Workers may run meanwhile. If it is stopped or killed, run it again: it continues
    with what is left.
    """
    from worker.kafka.offsets import parse_time
    from worker.operations import screen
    from worker.operations.prune.prune import PruneRequest
    from worker.operations.prune.prune import prune as operation
    from worker.operations.prune.terminal import report, show
    from worker.settings import read_settings

    asked = PruneRequest(parse_time(before, "--before"), execute, rate or None, quiet=as_json)
    settings = read_settings()
    try:
        found = report(settings, interruption.run(operation(settings, asked)))
    except KeyboardInterrupt:
        if execute:
            typer.echo("stopped: the same command continues with what is left", err=True)
        raise
    if as_json:
        screen.print_json(found)
    else:
        show(screen.output(), found)
