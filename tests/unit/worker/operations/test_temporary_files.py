"""A command whose temporary files do not fit says so, and no server is taken for the cause."""

import errno
import sqlite3

import pytest

from worker.errors import CommandError
from worker.operations.temporary_files import temporary_files


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "no usable"),
    ],
    ids=["sqlite", "full", "none"],
)
def test_files_that_cannot_be_written_are_one_line_with_what_to_do(error: Exception, why: str):
    with (
        pytest.raises(CommandError, match="set TMPDIR to a folder that has some") as refused,
        temporary_files(),
    ):
        raise error
    assert str(refused.value).startswith(f"cannot write a temporary file ({why}")


def test_an_error_of_a_connection_is_none_of_files():
    with pytest.raises(ConnectionResetError), temporary_files():
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
