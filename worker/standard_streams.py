"""Standard output that reports a failed write: its reader may be gone, or the disk full.

Python itself would report that in a traceback after the program has ended, or never.
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, Final

EXIT_CLOSED_PIPE: Final = 141
"""128 + SIGPIPE: the exit code that a shell shows for other programs whose reader has gone"""


class OutputError(Exception):
    """Standard output could not be written. Not an OSError, which would look like a server that is away."""

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
    """Make standard output raise OutputError, and show `?` for what its encoding lacks. Call it once.

    A closed one is replaced by a file that cannot be written, or output would go to the next file opened.
    """
    if not os.environ.get("COLUMNS", "1").strip("0"):
        del os.environ["COLUMNS"]  # on so many columns rich would show nothing
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
        # The system assigns the lowest free descriptor, which is this one.
        os.set_inheritable(os.open(os.devnull, mode), True)


def visible(text: str, but: str = "") -> str:
    """With a dot for what a terminal would obey, or nobody can see; `but`: characters that stay."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c in but else "·" for c in text)


def give_up() -> None:
    """Drop what could not be written: at its end Python would try again, and write a traceback."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def write_error(text: str) -> None:
    """Write a line to standard error; if that fails too, only the exit code shows the error."""
    with suppress(OSError, ValueError, AttributeError):  # None, where it was closed from the start
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
