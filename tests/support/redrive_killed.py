"""Runs a command that kills itself: python -m tests.support.redrive_killed STEP NUMBER dead-letters redrive …

Or `orders reopen …`, which goes through the same steps.

STEP is `claimed` (the set is written down), `sent` (in an open transaction), `committed` (Kafka knows, and
PostgreSQL does not) or `marked` (both know); NUMBER says at which time it comes there. At `doubted` it lives
on: Kafka has committed, and its answer is lost. At `recovered` it stops until SIGCONT: it has looked for what
an earlier run has sent, and not released the rest. It waits no more than a second for another one's turn.
"""

import os
import signal
import sys
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from worker import cli
from worker.operations import turn
from worker.operations.orders import reopen
from worker.operations.orders import send as reopening
from worker.operations.redrive import recover, redrive


def steps(run: Any, look: str, recovering: Any) -> dict[str, tuple[Any, str]]:
    return {
        "recovered": (recovering, "look_behind"),
        "claimed": (run, "_step"),
        "sent": (AIOKafkaProducer, "commit_transaction"),
        "committed": (run, "_mark"),
        "doubted": (AIOKafkaProducer, "commit_transaction"),
        "marked": (run, look),
    }


STEPS = {
    "dead-letters": steps(redrive._SteppedRun, "_record_results", recover),
    "orders": steps(reopen._SteppedRun, "_look", reopening),
}


def main() -> None:
    owner, name = STEPS[sys.argv[3]][sys.argv[1]]
    times_left = int(sys.argv[2])
    real = getattr(owner, name)
    turn.PATIENCE_SECONDS = 1.0  # type: ignore[misc]

    async def killed(*arguments: Any) -> Any:
        nonlocal times_left
        times_left -= 1
        if not times_left and sys.argv[0] == "doubted":
            await real(*arguments)
            raise KafkaTimeoutError
        if not times_left and sys.argv[0] == "recovered":
            found = await real(*arguments)
            os.kill(os.getpid(), signal.SIGSTOP)
            return found
        if not times_left:
            os.kill(os.getpid(), signal.SIGKILL)
        return await real(*arguments)

    setattr(owner, name, killed)
    sys.argv = [sys.argv[1], *sys.argv[3:]]
    cli.main()


if __name__ == "__main__":
    main()
