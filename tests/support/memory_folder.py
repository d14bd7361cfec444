"""Temporary folders in memory, if there is enough. Most of them are the servers'.

A test's topics are some hundred files and its database three hundred, created and removed again. On a disk,
the file system takes half of Kafka's processor time for that, and a third of PostgreSQL's. No test becomes
weaker: it crashes processes, and files in memory outlive a process as others do.
"""

import os
import tempfile
from pathlib import Path

import psutil

_FOLDER = Path("/dev/shm")
_ROOM_BYTES = 8 * 2**30  # for each of five, up to a gigabyte of PostgreSQL's log, and half of one of the rest
_AVAILABLE_BYTES = 14 * 2**30  # the room, and what the processes themselves take


def keep_temporary_folders_in_memory() -> None:
    """For all temporary folders from now on, also of started processes; not if TMPDIR is set."""
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
