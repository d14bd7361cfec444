"""Kills the given process when standard input ends without a word: the writer died.

    python -I -S watch.py PID

For systems whose kernel does not do that by itself (`guard.py`).

Standard library only: it runs without site-packages.
"""

import contextlib
import os
import signal
import sys


def main(pid: int) -> None:
    if sys.stdin.read():
        return  # the owner stopped the process itself; its pid may belong to somebody else by now
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
