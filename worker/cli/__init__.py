"""The console script `order-worker`: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

`run` ends with 3 where it hangs, and with 4 where its credentials are refused for too long.
"""

import sys
from typing import Final

import typer

from worker.cli import (
    dead_letters,
    decided_orders,
    explain,
    lag,
    ledger,
    orders,
    reconcile,
    replay,
    republish,
    run,
    setup,
    skip,
)
from worker.cli.options import CONTEXT
from worker.errors import CommandError

_SETTINGS_NOTE: Final = "Settings come from the environment (ORDER_WORKER_…) and from .env."

app = typer.Typer(
    name="order-worker",
    help=f"Decides orders from Kafka against stock in PostgreSQL, exactly once. {_SETTINGS_NOTE}",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    # An unexpected error keeps Python's own traceback: no values of variables, which may be secrets.
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)
for theme in (run, orders, lag, explain, replay, republish, skip, reconcile):
    app.add_typer(theme.commands)
app.add_typer(setup.db, name="db")
app.add_typer(setup.topics, name="topics")
app.add_typer(setup.catalog, name="catalog")
app.add_typer(dead_letters.commands, name="dead-letters")
app.add_typer(ledger.commands, name="ledger")
app.add_typer(decided_orders.commands, name="orders")


def main() -> None:
    """Run the command line: what a person can put right is one line, anything else a traceback."""
    try:
        app(prog_name="order-worker")  # also as `python -m worker`
    except CommandError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
