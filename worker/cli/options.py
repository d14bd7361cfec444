"""How all commands look: examples below the help, groups of commands, and options they share."""

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


@contextmanager
def errors_in_json(as_json: bool) -> Iterator[None]:
    """With --json, what ends the command is a document as well: `{"error": …}`, and the line for a person."""
    try:
        yield
    except CommandError as error:
        if as_json:
            from worker.operations.screen import print_json

            print_json({"error": str(error)})
        raise


def example(*lines: str) -> str:
    """An epilog, a line each."""
    # One paragraph a line: rich joins the lines of a paragraph.
    return "\n\n".join(("[bold]Example[/bold]", *(f"[cyan]{line}[/cyan]" for line in lines)))


def group(text: str | None = None) -> typer.Typer:
    """Commands that belong together."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich", context_settings=CONTEXT)


def finite(param: typer.CallbackParam, value: float | None) -> float | None:
    """For each option that is a fraction: a bound lets nan through, and nothing is more or less than that."""
    if value is not None and not isfinite(value):
        raise UsageError(f"{param.opts[0]} {value}: write a number")
    return value


def who(by: str | None) -> str:
    """The name that was given, or that of the user who is logged in. UsageError for an empty one."""
    from getpass import getuser

    if by is not None and not by.strip():
        raise UsageError("--by is empty: write a name, or leave it out")
    try:
        name = by or getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
    return name.encode(errors="replace").decode()
