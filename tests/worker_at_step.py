"""Runs a worker that does something to itself at a named step: python -m tests.worker_at_step STEP SIGNAL [TIMES].

The signal is sent to the worker itself, the first TIMES times it reaches the step (default: once).
"""

import os
import signal
import sys

from worker.app import run
from worker.settings import read_settings
from worker.steps import Step


def main() -> int:
    step, number = Step(sys.argv[1]), signal.Signals[sys.argv[2]]
    left = [int(sys.argv[3]) if len(sys.argv) > 3 else 1]

    def reached(at: Step) -> None:
        if at is step and left[0]:
            left[0] -= 1
            sys.stderr.write(f"{number.name} at {step}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), number)

    return run(read_settings(), reached)


if __name__ == "__main__":
    sys.exit(main())
