"""Errors that end a command with one line for a person.

CommandError                    exit 1: what went wrong and what to do next
├── UsageError                  exit 2: the call itself is wrong
├── RefusedCredentialsError     exit 1: a server takes our credentials for wrong
└── LoginRefusedError           exit 4: so for `run`, at its start or for too long
"""


class CommandError(Exception):
    """One sentence that says what is wrong and what to do; shown without a traceback."""

    exit_code = 1


class UsageError(CommandError):
    """The command was called wrongly; nothing was changed."""

    exit_code = 2


class RefusedCredentialsError(CommandError):
    """A server took our credentials for wrong. The message names server, user, variable and file."""


class LoginRefusedError(CommandError):
    """As RefusedCredentialsError, for `run`: starting it again does not help."""

    exit_code = 4
