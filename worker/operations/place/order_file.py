"""A file of JSON lines, each an order-placed value: found, read line by line, and never whole in memory."""

import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from contracts.events import DeadLetterCode
from worker.core.decode import Decoded, Invalid, decode
from worker.error_texts import reason_of
from worker.errors import UsageError
from worker.operations.temporary_files import temporary_files

_OVER_LINES: Final = (
    "here begins a JSON document of several lines: write each order on a line of its own, as jq -c . does,"
    " or of an array jq -c '.[]'"
)


class FileLine(NamedTuple):
    """A line that is not blank, without its end. Of one longer than allowed, `value` is the beginning."""

    number: int
    value: bytes
    size: int


def file_name(path: Path) -> str:
    """What a message calls it."""
    return "standard input" if str(path) == "-" else str(path)


@contextmanager
def readable_twice(path: Path) -> Iterator[BinaryIO]:
    """The file itself, or a temporary copy of what can be read only once (standard input, a pipe)."""
    if str(path) == "-":
        if sys.stdin is None:
            raise UsageError("cannot read standard input: it is closed")
        with _spooled(sys.stdin.buffer) as file:
            yield file
        return
    try:
        with _interruptible():  # a pipe is opened once somebody writes to it
            opened = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from None
    with opened:
        if stat.S_ISREG(path.stat().st_mode):
            yield opened
        else:
            with _spooled(opened) as file:
                yield file


@contextmanager
def _spooled(source: BinaryIO) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        with temporary_files():
            copy = stack.enter_context(tempfile.TemporaryFile())
            with _interruptible():
                shutil.copyfileobj(source, copy)
            copy.seek(0)
        yield copy


@contextmanager
def _interruptible() -> Iterator[None]:
    """In here Ctrl-C is an exception at once: what blocks the event loop never sees that it is cancelled."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def order_lines(file: BinaryIO, max_bytes: int) -> Iterator[FileLine]:
    """The lines that are not blank, numbered from 1."""
    # Long enough for the largest value and its line end; the rest of a longer line is read and dropped.
    longest = max_bytes + 2
    number = 0
    while raw := file.readline(longest):
        number += 1
        rest = 0
        while not raw.endswith(b"\n") and (more := file.readline(longest)):
            rest += len(more.rstrip(b"\r\n"))
            if more.endswith(b"\n"):
                break
        value = raw.rstrip(b"\r\n")
        if value.strip() or rest:
            yield FileLine(number, value, len(value) + rest)


def decoded(line: FileLine, max_bytes: int) -> Decoded | Invalid:
    """As the worker would decode the record."""
    if line.size > max_bytes:
        message = f"{line.size} bytes, at most {max_bytes} are allowed"
        return Invalid(DeadLetterCode.TOO_LARGE, message, "")
    if line.value.strip() in (b"{", b"["):
        return Invalid(DeadLetterCode.NOT_JSON, _OVER_LINES, "")
    return decode(line.value, max_bytes)
