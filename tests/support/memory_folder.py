"""Temporary folders in memory, where there is enough of it: those of the servers are most of them.

A test's topics are some hundred files and its database three hundred, made and removed again: on a disk half
of what Kafka uses for that, and a third of what PostgreSQL does, is the file system's. No test has less to
find by this: a crash here is that of a process, which files in memory outlive as others do.
"""

import os
import tempfile
from pathlib import Path

import psutil

_FOLDER = Path("/dev/shm")
_ROOM_BYTES = 8 * 2**30  # for each of five, up to a gigabyte of PostgreSQL's log, and half of one of the rest
_AVAILABLE_BYTES = 14 * 2**30  # the room, and what the processes themselves take


def keep_temporary_folders_in_memory() -> None:
    """Those that are made from now on, here and by what is started; as before where TMPDIR is chosen."""
    if "TMPDIR" not in os.environ and _is_large_enough():
        tempfile.tempdir = os.environ["TMPDIR"] = str(_FOLDER)


def _is_large_enough() -> bool:
    if not _FOLDER.is_dir():
        return False
    found = os.statvfs(_FOLDER)
    # Kafka unpacks the libraries that it compresses with into its folder, and runs them there.
    runs_programs = not found.f_flag & os.ST_NOEXEC
    room = found.f_bavail * found.f_frsize
    return runs_programs and room >= _ROOM_BYTES and psutil.virtual_memory().available >= _AVAILABLE_BYTES
