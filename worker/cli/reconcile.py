"""`reconcile`: proves that nothing is missing."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import AsJson, Execute, errors_in_json, example, group
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.operations.reconcile.reconcile import ReconcileRequest
    from worker.settings import Settings

commands = group()


@commands.command(
    epilog=example(
        "order-worker reconcile",
        "order-worker reconcile --from 2026-11-23T00:00:00Z --to 2026-11-24T00:00:00Z --json",
        "order-worker reconcile --repair --execute",
    )
)
def reconcile(
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Records from this time on; default: the first."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="Records before it; default: up to the committed offsets."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Publish outcomes that were decided and never published.")
    ] = False,
    execute: Execute = False,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=0, help="Discrepancies shown; --json has all of them.")] = 20,
) -> None:
    """Prove that each record has exactly one result, and each decision its outcome, order and items.

    Compares the input, up to the committed offsets, with the ledger, orders,
    items, outcome topics and dead letters, and what was received and sold with
    the stock. Workers may run meanwhile. Lists each discrepancy with its fix.

    Exit code 0: nothing is wrong, or all that was is repaired. 1: something is.

    What is compared is copied into temporary tables of PostgreSQL while this
    runs. The stock is always that of all orders, whatever the window.
    """
    with errors_in_json(as_json):
        if execute and not repair:
            raise UsageError("--execute needs --repair: without it nothing is changed")
        from worker.kafka.offsets import parse_time
        from worker.operations.reconcile.reconcile import ReconcileRequest
        from worker.settings import read_settings

        asked = ReconcileRequest(
            start=parse_time(start, "--from") if start is not None else None,
            end=parse_time(end, "--to") if end is not None else None,
            repair=repair,
            execute=execute,
            quiet=as_json,
        )
        left = interruption.run(_run(read_settings(), asked, as_json, limit))
    raise typer.Exit(1 if left else 0)


async def _run(settings: "Settings", asked: "ReconcileRequest", as_json: bool, limit: int) -> int:
    from worker.operations.reconcile.reconcile import reconciled
    from worker.operations.reconcile.terminal import show, write_json

    async with reconciled(settings, asked, say=lambda sentence: typer.echo(sentence, err=True)) as found:
        if as_json:
            await write_json(found)
        else:
            await show(found, limit, asked_to_repair=asked.repair)
        return found.summary.left
