"""The console script `order-worker`: 0 done, 1 failed, 2 wrong usage, 128 + a signal.

`run` ends with 3 if it hangs, and with 4 if a server refuses its credentials for too long.
"""

import sys
from typing import Annotated, Final

import typer

from worker import interruption
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
from worker.cli.failure import exit_code_of
from worker.cli.help import long_words_folded
from worker.cli.options import CONTEXT

_INTERRUPTED: Final = 130  # typer's code after a KeyboardInterrupt, whichever signal it came of
_SETTINGS_NOTE: Final = "Settings come from the environment (ORDER_WORKER_…) and from .env."

app = typer.Typer(
    name="order-worker",
    help=f"Decides orders from Kafka against stock in PostgreSQL, exactly once. {_SETTINGS_NOTE}",
    no_args_is_help=True,
    rich_markup_mode="rich",
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


def _show_version(asked: bool) -> None:
    if asked:
        from worker.cli.version import version_line

        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the versions, and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit: a foreseen error is shown in one line, any other with a traceback."""
    sys.exit(run_command())


def run_command() -> int:
    """Run the command that `sys.argv` names and write all its output; returns the exit code."""
    try:
        code = _called()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return interruption.exit_code()
    except Exception as error:
        return exit_code_of(error)
    return code


def _called() -> int:
    try:
        with long_words_folded():
            code = app(prog_name="order-worker", standalone_mode=False)  # also as `python -m worker`
    except SystemExit as exited:
        code = exited.code
    if code == _INTERRUPTED:
        return interruption.exit_code()
    return code if isinstance(code, int) else 0
