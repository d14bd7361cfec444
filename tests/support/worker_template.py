"""Worker processes forked from one that has imported all it needs, for tests that start many.

A worker needs a second of a processor for its imports, and that was a quarter of what the whole suite took.
What is forked is a process like any other: it has a log, a session and signals of its own, it is killed and
frozen for real, and it dies with whoever started it. `test_run.py` starts them by the command, as users do.

Run as a program, this is the template: it has one thread, forks for each line on its standard input, and
answers with the process id. How each process ended is a file beside its log.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from worker.sandbox.servers.processes import start_process

_ROOT = Path(__file__).parent.parent.parent
_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1  # as `worker.sandbox.servers.guard` does it for what is executed
_MODULES = ("worker", "tests.support.worker_at_step")


class ForkedWorker:
    """One forked process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, ended: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        if self.returncode is None and self._ended.exists():
            self.returncode = int(self._ended.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and timeout is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """One that has just ended takes it in silence, as one that nobody has waited for yet would."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WorkerTemplate:
    """Forks workers. It is started when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        self._log_path = folder / "template.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._requests, self._answers = folder / "requests", folder / "answers"
        self._pipes: tuple[IO[str], IO[str]] | None = None
        self._one_at_a_time = threading.Lock()

    @staticmethod
    def can_start(command: Sequence[str]) -> bool:
        """Whether it is `python -m` with a module that may be imported beforehand."""
        return tuple(command[:2]) == (sys.executable, "-m") and command[2] in _MODULES

    def start(
        self, module: Sequence[str], environment: Mapping[str, str], log_path: Path, folder: Path
    ) -> ForkedWorker:
        """`python -m` with these arguments in `folder`, with this environment and nothing else."""
        ended = log_path.with_suffix(".ended")
        request = {
            "module": list(module),
            "environment": dict(environment),
            "log": str(log_path),
            "folder": str(folder),
            "ended": str(ended),
        }
        log_path.touch()
        with self._one_at_a_time:
            requests, answers = self._pipes = self._pipes or self._start()
            print(json.dumps(request), file=requests, flush=True)
            answer = answers.readline()
        assert answer, self._log_path.read_text()
        return ForkedWorker(int(answer), ended)

    def _start(self) -> tuple[IO[str], IO[str]]:
        self._requests.parent.mkdir(exist_ok=True)
        ready = self._requests.with_name("ready")
        # What the start of another test has left, where that one was given up on the way.
        self.close()
        for path in (self._requests, self._answers, ready):
            path.unlink(missing_ok=True)
        os.mkfifo(self._requests)
        os.mkfifo(self._answers)
        self._process = start_process(
            [sys.executable, "-m", "tests.support.worker_template", self._requests, self._answers],
            log_path=self._log_path,
            folder=_ROOT,
            environment=os.environ,
        )
        while not ready.exists():
            assert self._process.poll() is None, self._log_path.read_text()
            time.sleep(_POLL_SECONDS)
        return self._requests.open("w"), self._answers.open()

    def close(self) -> None:
        """End it, and with it every process that it forked."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pipe in self._pipes or ():
            pipe.close()
        self._process = self._pipes = None


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Fork for each request until their end. In a forked process this raises SystemExit: the worker's own."""
    ended_of: dict[int, Path] = {}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    awaited: list[Any] = [requests, wake_read]
    while True:
        ready, _, _ = select.select(awaited, [], [])
        if wake_read in ready:
            os.read(wake_read, 1_024)
            _reap(ended_of)
        if requests not in ready:
            continue
        line = requests.readline()
        if not line:
            return
        request = json.loads(line)
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            for unused in (wake_read, wake_write):
                os.close(unused)
            requests.close()
            answers.close()
            _become_worker(request, template)
        ended_of[pid] = Path(request["ended"])
        print(pid, file=answers, flush=True)


def _reap(ended_of: dict[int, Path]) -> None:
    while ended_of:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        path = ended_of.pop(pid)
        part = path.with_suffix(".part")
        part.write_text(str(os.waitstatus_to_exitcode(status)))
        part.rename(path)


def _become_worker(request: Mapping[str, Any], template: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != template:
        sys.exit("the template died before its worker was ready")
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for target in (1, 2):
        os.dup2(log, target)
    os.close(log)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module, *arguments = request["module"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    import worker.app
    import worker.cli
    import worker.runtime.process  # noqa: F401

    gc.freeze()
    assert threading.active_count() == 1, "what is forked has the thread that forks, and no other"
    Path(sys.argv[1]).with_name("ready").touch()
    with Path(sys.argv[1]).open() as requests, Path(sys.argv[2]).open("w") as answers:
        _serve(requests, answers)
