"""`orders`: list decided orders, and place rejected ones again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import interruption
from worker.cli.options import (
    AsJson,
    By,
    Execute,
    Force,
    MaxFailures,
    Patience,
    Rate,
    example,
    group,
    operator_name,
)
from worker.cli.order_filters import (
    From,
    OutcomeChoice,
    OutcomeOption,
    Product,
    Reason,
    To,
    User,
    order_choice,
    order_filter,
)
from worker.errors import CommandError, UsageError

if TYPE_CHECKING:
    from db.worker.decided_orders import OrderFilter
    from worker.operations.orders.listing import ListedOrder
    from worker.operations.orders.reopen import ReopenRequest
    from worker.settings import Settings

commands = group("Decided orders: list them, and place rejected ones again.")

DEFAULT_LIMIT = 1_000
MOST_ON_A_SCREEN = 10_000


@commands.command(
    "list",
    epilog=example(
        "order-worker orders list --reason price_changed --from 2026-11-23T10:00:00Z",
        "order-worker orders list --outcome rejected --product 17 --json",
        "order-worker orders list --reason price_changed --out rejected.jsonl",
    ),
)
def list_(
    outcome: OutcomeOption = None,
    reason: Reason = None,
    product: Product = None,
    user: User = None,
    start: From = None,
    end: To = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help=f"At most so many; default {DEFAULT_LIMIT:,}, with --out all."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help='Write them as `place` and `check` read them, a JSON line each; "-": standard output.',
            allow_dash=True,
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """List decided orders by their ids: outcome, reasons, user, time. An order has to match all filters.

    It says so if there are more than the limit. --json has them under "orders", with each reason in full, the
    source and the id under which it was placed again; then "summary": how many, and whether there are more.

    --out copies the orders from the input topic, as upstream wrote them, and names those that are gone there.
    """
    if out is not None and as_json:
        raise UsageError("--out writes lines and no document: leave out --json")
    if force and out is None:
        raise UsageError("--force is for --out")
    if limit and limit > MOST_ON_A_SCREEN and out is None and not as_json:
        raise UsageError(
            f"--limit {limit}: a screen has {MOST_ON_A_SCREEN:,} at most; use --json or --out for more"
        )
    from worker.settings import read_settings

    settings, wanted = read_settings(), order_filter(outcome, reason, product, user, start, end)
    if out is not None:
        _write(settings, wanted, limit, out, force)
    elif as_json:
        _print_document(settings, wanted, limit or DEFAULT_LIMIT)
    else:
        _print_table(settings, wanted, limit or DEFAULT_LIMIT)


def _write(settings: "Settings", wanted: "OrderFilter", limit: int | None, out: Path, force: bool) -> None:
    from worker.operations.orders.listing import write_orders

    def say(sentence: str) -> None:
        typer.echo(f"not written: {sentence}", err=True)

    count = interruption.run(write_orders(settings, wanted, limit, out, say, force=force))
    where = "" if str(out) == "-" else f" to {out}"
    typer.echo(f"{count:,} order{'' if count == 1 else 's'} written{where}", err=True)


def _print_document(settings: "Settings", wanted: "OrderFilter", limit: int) -> None:
    from worker.operations.orders.listing import list_orders
    from worker.operations.screen import JsonStream

    document = JsonStream("orders")

    def add(orders: "list[ListedOrder]") -> None:
        for order in orders:
            document.add(order)

    document.end("summary", interruption.run(list_orders(settings, wanted, limit, add)))


def _print_table(settings: "Settings", wanted: "OrderFilter", limit: int) -> None:
    from worker.operations.orders.listing import NOTHING, list_orders
    from worker.operations.orders.terminal import orders_table
    from worker.operations.screen import output

    listed: list[ListedOrder] = []
    summary = interruption.run(list_orders(settings, wanted, limit, listed.extend))
    if not listed:
        typer.echo(NOTHING)
        return
    output().print(orders_table(listed))
    typer.echo(
        f"The first {summary.orders:,} by their ids; there are more: --limit shows more of them, and --out or"
        " --json takes any number."
        if summary.more
        else f"{summary.orders:,} order{'' if summary.orders == 1 else 's'}."
    )


@commands.command(
    epilog=example(
        "order-worker orders reopen --reason price_changed --from 2026-11-23T10:00:00Z --drop-prices",
        "order-worker orders reopen --order-id 0b6f5c1e-5d0e-4c1e-9d0c-6a4a0c1d2e3f --execute",
        "order-worker orders reopen --from-file rejected.jsonl --rate 50 --execute",
    )
)
def reopen(
    order_id: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="This rejected order; may be given several times."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            help='The orders of a file: an id a line, or the orders as for `place`; "-": standard input.',
            allow_dash=True,
        ),
    ] = None,
    outcome: OutcomeOption = None,
    reason: Reason = None,
    product: Product = None,
    user: User = None,
    start: From = None,
    end: To = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    drop_prices: Annotated[
        bool,
        typer.Option(
            "--drop-prices", help="Without the prices that the buyers saw: they pay what is in force."
        ),
    ] = False,
    max_failures: MaxFailures = 0.1,
    rate: Rate = None,
    by: By = None,
    patience: Patience = 60.0,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Place rejected orders again, each only once, under a new id. Steps of 1, 2, 5, 10, … with a check each.

    Without --execute it shows what the workers would decide for each today.

    The new id is derived from the old one. The header "supersedes" of the new order and of its outcome has
    the old one.

    An order that is rejected again can be reopened under its new id.

    If a run is stopped or killed, the next one finds out what was sent, and sends nothing twice.
    """
    if outcome is OutcomeChoice.CONFIRMED:
        raise UsageError("--outcome confirmed: only rejected orders can be placed again")
    from worker.operations.orders.reopen import ReopenRequest
    from worker.settings import read_settings

    settings = read_settings()
    filters = outcome, reason, product, user, start, end
    request = ReopenRequest(
        choice=order_choice(settings, filters, order_id or [], from_file, limit),
        drop_prices=drop_prices,
        max_failures=max_failures,
        rate=rate,
        by=operator_name(by),
        patience_seconds=patience,
        quiet=as_json,
    )
    _execute(settings, request, as_json) if execute else _rehearse(settings, request, as_json)


def _rehearse(settings: "Settings", request: "ReopenRequest", as_json: bool) -> None:
    from worker.operations.orders.rehearse import rehearse
    from worker.operations.orders.terminal import rehearsal_screen
    from worker.operations.screen import output, print_json, repeated_command_line

    rehearsal = interruption.run(
        rehearse(settings, request.choice, drop_prices=request.drop_prices, quiet=request.quiet)
    )
    if as_json:
        print_json(rehearsal)
    else:
        output().print(rehearsal_screen(rehearsal, request))
        # Never folded: it is there to be copied.
        typer.echo(repeated_command_line())


def _execute(settings: "Settings", request: "ReopenRequest", as_json: bool) -> None:
    from worker.operations.orders.reopen import failure_text, reopen
    from worker.operations.orders.terminal import report_screen
    from worker.operations.screen import output, print_json

    report = interruption.run(reopen(settings, request))
    failure = failure_text(report)
    if as_json:
        print_json(report)
    else:
        output().print(report_screen(report))
    if failure:
        raise CommandError(failure)
