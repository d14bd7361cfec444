"""Runs a worker that stops or kills itself: python -m tests.worker_at_step STEP SIGNAL [TIMES].

SIGNAL is a signal's name, sent to itself the first TIMES times it reaches the step (default: once),
or "hang".
"""

import os
import signal
import sys
import threading

from worker.process import run
from worker.settings import read_settings
from worker.steps import Step


def main() -> int:
    step, action = Step(sys.argv[1]), sys.argv[2]
    left = [int(sys.argv[3]) if len(sys.argv) > 3 else 1]

    def reached(at: Step) -> None:
        if at is step and left[0]:
            left[0] -= 1
            sys.stderr.write(f"{action} at {step}\n")
            sys.stderr.flush()
            if action == "hang":
                threading.Event().wait()  # the event loop never turns again
            os.kill(os.getpid(), signal.Signals[action])

    return run(read_settings(), reached)


if __name__ == "__main__":
    sys.exit(main())
