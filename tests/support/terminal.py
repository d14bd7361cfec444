"""A command on a terminal of a given width."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Sequence

from tests.support.order_worker import OrderWorker, ended

_STYLES = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


def shown_at(order_worker: OrderWorker, columns: int, arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code, and what a person sees: all lines that were written, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = order_worker.start(*arguments, terminal=theirs, COLUMNS=str(columns), TERM="xterm")
    os.close(theirs)
    text = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while piece := _read(terminal.fileno()):
            text += piece
    return ended(process).code, _STYLES.sub("", text.decode()).replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # what Linux says at the end
        return b""
