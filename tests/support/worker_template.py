"""Workers and commands forked from a process that has imported all they need, for tests that start many.

A worker needs a second of a processor for its imports, and a command most of one: that was a third of what
the whole suite took. What is forked is a process like any other: it has streams, a session and signals of its
own, it is killed and frozen for real, and it dies with its parent. The tests of `run`, `test_signals.py`
and `test_command_line.py` start them by the command, as users do.

Run as a program, this is the template: it has one thread, forks for each request on its socket, and answers
with the process id. How each process ended is a file.
"""

import atexit
import ctypes
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from tests.support.forked_process import ForkedProcess
from worker.sandbox.servers.processes import start_process

_ROOT = Path(__file__).parent.parent.parent
_POLL_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1  # as `worker.sandbox.servers.guard` does it for what is executed
_MODULES = ("worker", "tests.support.worker_at_step", "tests.support.redrive_killed")
_OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG")  # it reads them at its start, which is over in what is forked
_LEFT_OUT = ("db.migrations", "worker.sandbox")  # no worker or command that is forked here needs them
_NOT_FLUSHED = 120  # the interpreter's exit code where nobody reads any more what it has to say
_REQUEST = struct.Struct("!Q")  # the length of what follows; with it come standard input, output and error


class WorkerTemplate:
    """Forks workers and commands. It is started when the first is asked for."""

    def __init__(self, folder: Path) -> None:
        """`folder` has its log, and a file with the end of each process."""
        self._folder = folder
        self._numbers = count()
        self._one_at_a_time = threading.Lock()
        self._running: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    @staticmethod
    def can_start(command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether it is `python -m` of a module that the template imports, with our settings of Python."""
        return (
            tuple(command[:2]) == (sys.executable, "-m")
            and command[2] in _MODULES
            and _of_the_interpreter(environment) == _of_the_interpreter(os.environ)
        )

    def start(
        self, module: Sequence[str], environment: Mapping[str, str], folder: Path, streams: Sequence[int]
    ) -> ForkedProcess:
        """`python -m` with these arguments in `folder`, with this environment and nothing else.

        `streams`: the descriptors of its standard input, output and error.
        """
        ended = self._folder / f"ended-{next(self._numbers)}"
        request = {
            "module": list(module),
            "environment": dict(environment),
            "folder": str(folder),
            "ended": str(ended),
        }
        body = json.dumps(request).encode()
        with self._one_at_a_time:
            try:
                self._running = self._running or self._start()
                connection = self._running[1]
                socket.send_fds(connection, [_REQUEST.pack(len(body))], streams)
                connection.sendall(body)
                answer = connection.recv(64)
                assert answer, self._log_path.read_text()
            except BaseException:
                self.close()  # a test timed out here: the next one must not get its answer
                raise
        return ForkedProcess(int(answer), ended)

    def start_piped(
        self,
        module: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        terminal: int = subprocess.PIPE,
    ) -> ForkedProcess:
        """As `start`, with pipes to write to it and to read what it says, which it may say to a terminal."""
        to_it = os.pipe()
        of_it = [os.pipe(), os.pipe()] if terminal == subprocess.PIPE else []
        theirs = [to_it[0], *(end for _, end in of_it)]
        try:
            streams = theirs if of_it else [*theirs, terminal, terminal]
            process = self.start(module, environment, folder, streams)
        finally:
            for end in theirs:
                os.close(end)
        process.stdin = os.fdopen(to_it[1], "wb")
        if of_it:
            process.stdout, process.stderr = (os.fdopen(end, "rb") for end, _ in of_it)
        return process

    def close(self) -> None:
        """End it, and with it every process that it forked."""
        if self._running is not None:
            process, connection = self._running
            connection.close()
            process.kill()
            process.wait()
        self._running = None

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        self._folder.mkdir(exist_ok=True)
        # A socket's path may have some hundred characters: in `folder` it would have more, here and there.
        with TemporaryDirectory(prefix="template-") as folder:
            address = Path(folder) / "socket"
            process = start_process(
                [sys.executable, "-m", "tests.support.worker_template", address],
                log_path=self._log_path,
                folder=_ROOT,
                environment=os.environ,
            )
            connection = socket.socket(socket.AF_UNIX)
            while connection.connect_ex(str(address)):
                assert process.poll() is None, self._log_path.read_text()
                time.sleep(_POLL_SECONDS)
        return process, connection

    @property
    def _log_path(self) -> Path:
        return self._folder / "template.log"


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OF_THE_INTERPRETER)}


def _import_everything() -> None:
    """Import everything that workers and commands import. No import connects or starts a thread."""
    for package in ("contracts", "db", "worker"):
        for module in pkgutil.walk_packages([str(_ROOT / package)], f"{package}."):
            if module.name.rpartition(".")[2] != "__main__" and not module.name.startswith(_LEFT_OUT):
                import_module(module.name)


def _serve(requests: socket.socket) -> None:
    """Fork for each request until their end. In a forked process this raises SystemExit: its own."""
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
        head, streams, _, _ = socket.recv_fds(requests, _REQUEST.size, 3)
        if not head:
            return
        (length,) = _REQUEST.unpack(head)
        request = json.loads(requests.recv(length, socket.MSG_WAITALL))
        template = os.getpid()
        pid = os.fork()
        if pid == 0:
            for unused in (wake_read, wake_write):
                os.close(unused)
            requests.close()
            _become(request, streams, template)
        for stream in streams:
            os.close(stream)
        ended_of[pid] = Path(request["ended"])
        requests.sendall(str(pid).encode())


def _reap(ended_of: dict[int, Path]) -> None:
    while ended_of:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        path = ended_of.pop(pid)
        part = path.with_suffix(".part")
        part.write_text(str(os.waitstatus_to_exitcode(status)))
        part.rename(path)


def _become(request: Mapping[str, Any], streams: Sequence[int], template: int) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != template:
        sys.exit("the template died before what it forked was ready")
    _use(streams)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module, *arguments = request["module"]
    sys.argv = [module, *arguments]
    _end_with(_exit_code_of(module))


def _exit_code_of(module: str) -> int:
    """As the interpreter does for a program: a code that is no number is printed, and becomes 1."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exited:
        if exited.code is None or isinstance(exited.code, int):
            return exited.code or 0
        print(exited.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end_with(code: int) -> NoReturn:
    """End as the interpreter does, but for freeing what the template imported.

    Freeing would write to each of its memory pages, and so copy them all.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = _NOT_FLUSHED
    os._exit(code & 0xFF)


def _use(streams: Sequence[int]) -> None:
    """As the interpreter does at its start."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    encoding = sys.stdout.encoding
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    _import_everything()
    gc.freeze()
    assert threading.active_count() == 1, "what is forked has the thread that forks, and no other"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        connection = listening.accept()[0]
    with connection:
        _serve(connection)
