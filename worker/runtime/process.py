"""One worker process, from its first step to its exit code."""

import asyncio

from worker.core.steps import Reached, nothing_happens
from worker.kafka.predecessor import leave_for_predecessor
from worker.observability import log
from worker.settings import Settings


def run(settings: Settings, reached: Reached = nothing_happens) -> int:
    """Take the place of a killed worker of our name, then work until stopped. Returns the exit code.

    SIGTERM, SIGINT or SIGHUP: finish the batch in flight, leave the group, 0. After a second one, or after
    the shutdown timeout: exit at once; nothing is lost, because what is not committed is read again. Raises
    CommandError with the next step if a server, a topic, the tables or the port are not available;
    LoginRefusedError if a server refuses our credentials.
    """
    log.configure(settings.log_level, settings.log_format)
    # First, and before most of the worker is imported: the other workers can go on with the killed one's
    # partitions then. The imports and the checks take a second, two on busy cores.
    asyncio.run(leave_for_predecessor(settings))
    from worker.runtime.serving import serve

    return asyncio.run(serve(settings, reached))
