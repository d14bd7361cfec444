"""A worker whose clock is off: python -m tests.support.worker_off_clock SECONDS, which may be negative."""

import sys
import time

_OFF_SECONDS = float(sys.argv[1])
_right = time.time
# Before anybody imports the function itself.
time.time = lambda: _right() + _OFF_SECONDS

from worker.runtime.process import run  # noqa: E402
from worker.settings import read_settings  # noqa: E402

if __name__ == "__main__":
    sys.exit(run(read_settings(), lambda _step: None))
