"""Standard output that says when it could not be written: what reads it may be gone, or a disk full.

Python alone says so in a traceback, when the program has ended, or never.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, Final

EXIT_CLOSED_PIPE: Final = 141
"""128 + SIGPIPE: what a shell says of other programs whose reader has gone"""


class OutputError(Exception):
    """Standard output could not be written. No OSError: nobody takes it for a server that is away."""

    def __init__(self, error: OSError) -> None:
        super().__init__((error.strerror or str(error)).lower())
        self.reader_is_gone = error.errno == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


def prepare() -> None:
    """Standard output raises OutputError, and shows `?` for what its encoding lacks. Done once a process.

    One that is closed is held by a file that cannot be written, or the next file opened would be written to.
    """
    _hold(0, os.O_WRONLY)
    _hold(1, os.O_RDONLY)
    _hold(2, os.O_WRONLY)
    encoding = sys.stdout.encoding if sys.stdout else "utf-8"
    is_terminal = os.isatty(1)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "wb", closefd=False)), encoding, "replace", line_buffering=is_terminal
    )


def _hold(descriptor: int, mode: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest one that is free is given out, so it is this one.
        os.set_inheritable(os.open(os.devnull, mode), True)


def give_up() -> None:
    """Drop what could not be written: at its end Python would try again, and write a traceback."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def write_error(text: str) -> None:
    """A line on standard error; where that cannot be written either, the exit code has to do."""
    with suppress(OSError, ValueError, AttributeError):  # None, where it was closed from the start
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
