"""A process that `tests.support.worker_template` has forked, with what tests use of `subprocess.Popen`."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO

_POLL_SECONDS = 0.01


class ForkedProcess:
    """Its exit code will be in the file `ended`."""

    def __init__(self, pid: int, ended: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        """our ends of its pipes, where it has any"""
        self._ended = ended

    def poll(self) -> int | None:
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and timeout is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(_POLL_SECONDS)
        return code

    def communicate(self, given: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """What it writes until its end, "" for a stream that is no pipe. It can read `given`, and no more."""
        said = {1: b"", 2: b""}

        def read(number: int, stream: IO[bytes]) -> None:
            with stream:
                said[number] = stream.read()

        beside = [
            Thread(target=read, args=(number, stream), daemon=True)
            for number, stream in ((1, self.stdout), (2, self.stderr))
            if stream and not stream.closed
        ]
        if self.stdin and not self.stdin.closed:
            beside.append(Thread(target=_give, args=(self.stdin, given), daemon=True))
        for thread in beside:
            thread.start()
        self.wait(timeout)
        for thread in beside:
            thread.join(timeout)  # somebody whom it has started may hold the other end
            if thread.is_alive():
                raise subprocess.TimeoutExpired(f"the output of process {self.pid}", timeout or 0)
        return said[1], said[2]

    def send_signal(self, number: int) -> None:
        """A process that has just ended ignores it, as one that nobody has waited for yet would."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _give(stream: IO[bytes], given: bytes) -> None:
    with suppress(BrokenPipeError), stream:  # it need not read what it is given
        stream.write(given)
