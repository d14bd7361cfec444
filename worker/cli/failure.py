"""What ends a command: one line for a person, or with --json one document, on standard error."""

import json
import sys
import traceback
from typing import Any, Final

import typer

from worker import DOCUMENT_VERSION
from worker.errors import CommandError, UsageError
from worker.standard_streams import EXIT_CLOSED_PIPE, OutputError, give_up, visible, write_error

# typer keeps the errors of its parser in a private place: their base class is reached through a public one.
_ParserError: Final[Any] = typer.BadParameter.__mro__[2]


def exit_code_of(error: Exception) -> int:
    """Print why the command failed, unless the reader of the output is gone; returns the exit code."""
    error = first_of(error)
    if isinstance(error, OutputError):
        give_up()
        if error.reader_is_gone:
            return EXIT_CLOSED_PIPE
    if type(error).__name__ == "NoArgsIsHelpError":
        return UsageError.exit_code  # the help has been shown
    known = as_command_error(error)
    if known is None:
        _report_unexpected(error)
        return CommandError.exit_code
    write_error(document_text(known) if _is_json_wanted() else f"error: {one_line(str(known))}")
    return known.exit_code


def document_text(error: CommandError, **more: str) -> str:
    """The failure for a script, on one line; docs/json/error.json."""
    said = {"code": error.code, "message": one_line(error.what), "next": error.next_step, **more}
    return json.dumps({"version": DOCUMENT_VERSION, "error": said}, ensure_ascii=False)


def one_line(text: str) -> str:
    """No line ends, and nothing that a terminal would obey."""
    return visible(" ".join(text.split()))


def first_of(error: Exception) -> Exception:
    """Of a group of tasks that failed together, what failed first."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def as_command_error(error: Exception) -> CommandError | None:
    """What a person can put right; None: nobody foresaw it."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, OutputError):
        return CommandError(f"cannot write to standard output ({error})", code="output")
    if isinstance(error, _ParserError):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "order-worker"
        return UsageError(error.format_message().rstrip("."), f"see `{path} --help`")
    return _outage(error)


def _outage(error: Exception) -> CommandError | None:
    """What is none of our doing, although no command has put it into words; None: it is."""
    from worker.failures import outage_text  # heavy, and most commands that fail have loaded it

    text = outage_text(error)
    return CommandError(text, "run it again", code="outage") if text else None


def _report_unexpected(error: Exception) -> None:
    lines = "".join(traceback.format_exception(error))
    if not _is_json_wanted():
        write_error(lines.rstrip("\n"))
        return
    said = CommandError(
        f"{type(error).__name__}: {error}", "report it, with the traceback", code="unexpected"
    )
    write_error(document_text(said, traceback=lines))


def _is_json_wanted() -> bool:
    """Asked of what was typed: a call that cannot be parsed has no options."""
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None]
