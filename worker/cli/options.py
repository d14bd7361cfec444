"""What all commands share: options, examples below the help, and groups of commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Annotated, Final

import typer

from worker.errors import CommandError, UsageError

MOST_OFFSET: Final = 2**63 - 1
CONTEXT: Final = {"help_option_names": ["-h", "--help"]}

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document, for scripts.")]
Execute = Annotated[
    bool, typer.Option("--execute", help="Do it. Without: show what would be done, and change nothing.")
]


def finite(param: typer.CallbackParam, value: float | None) -> float | None:
    """For each option that is a fraction: a bound lets nan through, and nothing is more or less than that."""
    if value is not None and not isfinite(value):
        raise UsageError(f"{param.opts[0]} {value}: write a number")
    return value


By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who asks for it; default: the user logged in.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file of --out.")]
# Of the commands that send records in growing steps, and wait for the workers after each.
MaxFailures = Annotated[
    float,
    typer.Option(
        "--max-failures",
        min=0,
        max=1,
        callback=finite,
        help="Stop if a larger share of those sent has failed.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option("--rate", min=0.001, callback=finite, help="Records a second, at most; default: no limit."),
]
Patience = Annotated[
    float,
    typer.Option(
        "--patience",
        min=1,
        callback=finite,
        help="Give up after so many seconds without progress of the workers.",
    ),
]


@contextmanager
def errors_in_json(as_json: bool) -> Iterator[None]:
    """With --json, print an error that ends the command as `{"error": …}`, besides the line for people."""
    try:
        yield
    except CommandError as error:
        if as_json:
            from worker.cli.failure import one_line
            from worker.operations.screen import print_json

            print_json({"error": one_line(str(error))})  # as on standard error
        raise


def example(*lines: str) -> str:
    """An epilog, a line each."""
    # One paragraph a line: rich joins the lines of a paragraph.
    return "\n\n".join(("[bold]Example[/bold]", *(f"[cyan]{line}[/cyan]" for line in lines)))


def group(text: str | None = None) -> typer.Typer:
    """Commands that belong together."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich", context_settings=CONTEXT)


def operator_name(by: str | None) -> str:
    """The name that was given, or that of the user who is logged in. UsageError for one of no use."""
    from getpass import getuser

    from worker.operations.skip.plan import LONGEST_NAME, require_text

    if by is not None and not by.strip():
        raise UsageError("--by is empty: write a name, or leave it out")
    try:
        name = by or getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
    return require_text("--by", name.encode(errors="replace").decode(), LONGEST_NAME)
