"""Says where a command that needs temporary files cannot write them."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from worker.errors import CommandError

_OF_FILES: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EFBIG)


@contextmanager
def temporary_files() -> Iterator[None]:
    """For a block that opens no other files. Raises CommandError where it cannot write its own."""
    try:
        yield
    except sqlite3.Error as error:
        raise _no_room(str(error)) from error
    except OSError as error:
        if error.errno not in _OF_FILES:
            raise  # of a connection
        raise _no_room(error.strerror or str(error)) from error


def _no_room(why: str) -> CommandError:
    reason = f"{why[:1].lower()}{why[1:]}"
    return CommandError(
        f"cannot write a temporary file ({reason})", "make room, or set TMPDIR to a folder that has some"
    )
