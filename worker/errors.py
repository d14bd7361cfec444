"""Errors that end a command with one line for a person, and one document for a script.

CommandError                    exit 1: what went wrong and what to do next
├── UsageError                  exit 2: the call itself is wrong
├── RefusedCredentialsError     exit 1: a server refuses our credentials
└── LoginRefusedError           exit 4: the same for `run`, at its start or for too long
"""

from typing import Literal

ErrorCode = Literal[
    "failed",  # what the message says; nothing below fits
    "usage",
    "settings",  # a variable or .env: wrong, or no setting at all
    "kafka_unreachable",
    "database_unreachable",
    "database_refuses",  # it answers, and does not let us in
    "topics_missing",
    "tables_missing",
    "outage",  # a server went away, or refused, on the way
    "output",  # standard output cannot be written
    "unexpected",  # unforeseen: a bug of the program
]


class CommandError(Exception):
    """One sentence with what is wrong and what to do; shown without a traceback.

    `next_step`: what to do, if that is a separate part of the sentence.
    """

    exit_code = 1
    default_code: ErrorCode = "failed"

    def __init__(self, what: str, next_step: str | None = None, *, code: ErrorCode | None = None) -> None:
        super().__init__(what if next_step is None else f"{what}: {next_step}")
        self.what = what
        self.next_step = next_step
        self.code: ErrorCode = code or self.default_code


class UsageError(CommandError):
    """The command was called wrongly; nothing was changed."""

    exit_code = 2
    default_code: ErrorCode = "usage"


class RefusedCredentialsError(CommandError):
    """A server refused our credentials. The message names server, user, variable and file."""


class LoginRefusedError(CommandError):
    """As RefusedCredentialsError, for `run`: starting it again does not help."""

    exit_code = 4
