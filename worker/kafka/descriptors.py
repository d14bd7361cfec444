"""File descriptors: raises the soft limit to the hard one, and reports a limit that is too low.

A worker has some 20 files open, whatever the number of its partitions (17 with 500, seen in `/proc/PID/fd`),
and three more for each producer of another worker that it has to fence, of which 16 are started at a time.
"""

import os
import resource
from typing import Final

from aiokafka.errors import KafkaError

# A take-over opens so many connections at least, and the page and its probes a few.
LEAST_LEFT: Final = 8


class OutOfDescriptorsError(KafkaError):  # type: ignore[misc]
    """The process may open no further connection."""


def raise_limit() -> None:
    """Raise this process's soft limit of open files to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS has no limit that it would accept as one.
        wanted = 10_240 if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def require_descriptors() -> None:
    """Raise OutOfDescriptorsError if hardly any file can be opened.

    Called after a connection failed: aiokafka then reports that it could not connect, but not why.
    """
    if shortage := descriptor_shortage():
        raise OutOfDescriptorsError(shortage)


def descriptor_shortage() -> str | None:
    """The message if this process can open hardly any further file. None: there are enough."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        in_use = len(os.listdir("/dev/fd"))
    except OSError:
        in_use = limit  # not even that
    if limit - in_use > LEAST_LEFT:
        return None
    return (
        f"{in_use} of at most {limit} files of this process are open, and a take-over may need 50 more:"
        " raise the hard limit (`ulimit -Hn`)"
    )
