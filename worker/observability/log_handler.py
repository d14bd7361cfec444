"""Writes the log to standard error; a reader that has stopped reading must not stop the orders."""

import io
import logging
import os
import select
import stat
import sys
from typing import Final, TextIO

from worker.observability.events import Event, about

# Once, for a reader that is only slow. The batch in flight, heartbeats and probes wait as well.
PATIENCE_SECONDS: Final = 1.0


class LogHandler(logging.Handler):
    """Drops lines while standard error takes none. The next line that it takes comes with their number.

    A pipe that nobody reads is full after 64 KiB. Writing to it waits without end: the event loop would stand
    still, and the watchdog with it as soon as it has something to say.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """`stream`: has a file descriptor; None where it was closed from the start."""
        super().__init__()
        self._descriptor = stream.fileno() if stream else os.open(os.devnull, os.O_WRONLY)
        self._encoding = stream.encoding if stream else "utf-8"
        self._dropped = 0
        self._is_cut = False
        # A file takes a line in one piece, so that those of several workers do not mix. A pipe that takes
        # something takes this much without waiting.
        is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._piece_bytes = sys.maxsize if is_file else select.PIPE_BUF

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = [self.format(record), ""]
            if self._dropped:
                lines.insert(0, self.format(_missing(self._dropped)))
            if self._is_cut:
                lines.insert(0, "")
            self._dropped = 0 if self._write("\n".join(lines)) else self._dropped + 1
        except Exception:
            self.handleError(record)

    def _write(self, text: str) -> bool:
        left = text.encode(self._encoding, "backslashreplace")
        try:
            while left and self._takes_more():
                written = os.write(self._descriptor, left[: self._piece_bytes])
                left = left[written:]
                self._is_cut = bool(left)
        except OSError:  # a full disk, or the reader has gone
            return False
        return not left

    def _takes_more(self) -> bool:
        patience_seconds = 0.0 if self._dropped else PATIENCE_SECONDS
        return bool(select.select([], [self._descriptor], [], patience_seconds)[1])


def handler_of(stream: TextIO | None) -> logging.Handler:
    """A LogHandler; the usual one for a stream that is no file, which somebody has put in its place."""
    try:
        return LogHandler(stream)
    except io.UnsupportedOperation:
        return logging.StreamHandler(stream)


def _missing(count: int) -> logging.LogRecord:
    message = "lines of the log that are missing here, because standard error did not take them: %d"
    said = logging.LogRecord(__name__, logging.WARNING, "", 0, message, (count,), None)
    vars(said).update(about(Event.LOG_LINES_DROPPED, count=count))
    return said
