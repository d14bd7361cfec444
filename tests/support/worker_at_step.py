"""A worker that stops or kills itself: python -m tests.support.worker_at_step STEP SIGNAL [TIMES [PASSED]].

SIGNAL is a signal's name, sent to itself the first TIMES times it reaches the step (default: once), after it
has passed it PASSED times (default: none); or "hang", or "stall": a hang that ends after 15 seconds.
"""

import os
import signal
import sys
import threading
from typing import Final

from worker.core.steps import Step
from worker.runtime.process import run
from worker.settings import read_settings

STALL_SECONDS: Final = 15.0


def main() -> int:
    step, action = Step(sys.argv[1]), sys.argv[2]
    times = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    acting = iter([*[False] * first, *[True] * times])

    def reached(at: Step) -> None:
        if at is step and next(acting, False):
            sys.stderr.write(f"{action} at {step}\n")
            sys.stderr.flush()
            if action in {"hang", "stall"}:
                # The event loop is blocked meanwhile.
                threading.Event().wait(None if action == "hang" else STALL_SECONDS)
                sys.stderr.write("continuing\n")
                return
            os.kill(os.getpid(), signal.Signals[action])

    return run(read_settings(), reached)


if __name__ == "__main__":
    sys.exit(main())
