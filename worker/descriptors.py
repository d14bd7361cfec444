"""File descriptors: a worker with many partitions needs more than the usual 1,024.

A partition takes three connections to Kafka: its producer's to its leader, to the coordinator of its
transactions and to that of the group (500 partitions, seen with `/proc/PID/fd`).
"""

import os
import resource

from aiokafka.errors import KafkaError


class OutOfDescriptorsError(KafkaError):  # type: ignore[misc]
    """The process may open no further connection."""


def raise_limit() -> None:
    """Let this process open as many files as the system allows it, and not the soft limit only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS has no limit that it would accept as one.
        wanted = 10_240 if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def require_descriptors() -> None:
    """Raise OutOfDescriptorsError where no further file can be opened.

    Asked after a connection failed: aiokafka says then that it could not connect, and not why.
    """
    try:
        os.close(os.dup(2))
    except OSError as error:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise OutOfDescriptorsError(
            f"all {limit} file descriptors of this process are in use, and each partition takes about three:"
            " raise the hard limit (`ulimit -Hn`), or start more workers"
        ) from error
