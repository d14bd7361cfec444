"""Errors that end a command with one line for a person.

CommandError            exit 1: what went wrong and what to do next
└── UsageError          exit 2: the call itself is wrong
"""


class CommandError(Exception):
    """One sentence that says what is wrong and what to do; shown without a traceback."""

    exit_code = 1


class UsageError(CommandError):
    """The command was called wrongly; nothing was changed."""

    exit_code = 2
