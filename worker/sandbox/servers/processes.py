"""Child processes that are never left behind."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from worker.sandbox.servers.errors import LocalServiceError, missing_package

_HERE = Path(__file__).parent
_POLL_SECONDS = 0.02
KERNEL_KILLS_ORPHANS = sys.platform == "linux"

# The kernel kills a child when the *thread* that started it ends. This one lives as long as the interpreter.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-services")


class Child:
    """A server process that is killed when this process dies, however it dies.

    It has a session of its own, so that Ctrl-C on the terminal does not reach it before we stop it in order.
    """

    def __init__(self, name: str, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._abandoned = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        user: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start `command` in `folder`; `user` are the options of guard.py, `environment` is all it gets."""
        with self._lock:
            if self._abandoned:
                raise LocalServiceError(f"{self.name} was stopped while it was starting")
            if self.alive:
                raise LocalServiceError(f"{self.name} is already running")
            self._process = start_process(
                command, log_path=self.log_path, folder=folder, user=user, environment=environment
            )
            if not KERNEL_KILLS_ORPHANS:
                self._watcher = _watch(self._process.pid)

    def wait_until_ready(self, condition: Callable[[], bool], deadline_seconds: float) -> None:
        """Return once `condition` holds; an early end, or the deadline, is an error that shows the log."""
        ready = wait_until(lambda: not self.alive or condition(), deadline_seconds)
        if ready and self.alive:
            return
        if self._abandoned:
            raise LocalServiceError(f"{self.name} was stopped while it was starting")
        what = "ended while starting" if ready else f"was not ready within {deadline_seconds:g} s"
        raise LocalServiceError(
            f"{self.name} {what}; its log {self.log_path} ends: {last_lines(self.log_path)}"
        )

    def abandon(self) -> None:
        """No start continues or begins after this."""
        with self._lock:
            self._abandoned = True
        self.kill()

    def stop(self, signal_number: int, deadline_seconds: float) -> None:
        """Ask with a signal, kill at the deadline; the process is gone afterwards."""
        if self._process is None:
            return
        if self.alive:
            self.thaw()
            self._process.send_signal(signal_number)
            wait_until(lambda: not self.alive, deadline_seconds)
        self.kill()

    def kill(self) -> None:
        """`kill -9` of the process and of everything it started: all are gone afterwards."""
        if self._process is None:
            return
        descendants = _descendants(self._process.pid)
        # The parent first: it would take the death of a child for a crash and begin to recover.
        self._process.kill()
        self._process.wait()
        _signal_each(descendants, signal.SIGKILL)
        wait_until(lambda: not any(_runs(process) for process in descendants), 10)
        self._dismiss_watcher()

    def freeze(self) -> None:
        """SIGSTOP for the process and everything it started: connections stay open, nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        if self._process is None or not self.alive:
            return
        self._process.send_signal(number)
        _signal_each(_descendants(self._process.pid), number)

    def _dismiss_watcher(self) -> None:
        if self._watcher:
            self._watcher.communicate(b"stopped in order")
            self._watcher = None


def start_process(
    command: Sequence[str | Path],
    *,
    log_path: Path,
    folder: Path,
    user: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that dies with this one where the kernel can see to that."""
    if KERNEL_KILLS_ORPHANS or user:
        command = guarded(command, user)

    def start() -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=_environment() if environment is None else environment,
                start_new_session=True,
            )

    return _spawner.submit(start).result()


def guarded(command: Sequence[str | Path], user: Sequence[str]) -> list[str | Path]:
    """The command line that runs `command` by way of guard.py."""
    return [sys.executable, "-I", "-S", _HERE / "guard.py", str(os.getpid()), *user, "--", *command]


def run_to_end(
    name: str, command: Sequence[str | Path], *, log_path: Path, folder: Path, user: Sequence[str] = ()
) -> None:
    """Run `command`; anything but success is an error that shows the end of its log."""
    process = start_process(command, log_path=log_path, folder=folder, user=user)
    try:
        code = process.wait(timeout=60)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise LocalServiceError(f"{name} failed with code {code}: {last_lines(log_path)}")


def wait_until(condition: Callable[[], bool], deadline_seconds: float) -> bool:
    """Whether `condition` came true before the deadline."""
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def last_lines(path: Path) -> str:
    """The end of a log, on one line."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return (
        " | ".join(line.strip() for line in lines if line.strip() and not line.startswith("\tat "))[-1_000:]
        or "(empty)"
    )


def _descendants(pid: int) -> list[Any]:
    # By the tree, not by the process group: PostgreSQL gives each of its processes a group of its own.
    psutil = _psutil()
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _signal_each(processes: Sequence[Any], number: int) -> None:
    for process in processes:
        with contextlib.suppress(_psutil().NoSuchProcess):
            process.send_signal(number)


def _runs(process: Any) -> bool:
    psutil = _psutil()
    try:
        # A zombie is gone for us; the process that adopted it may reap it late.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _psutil() -> Any:
    try:
        return importlib.import_module("psutil")
    except ImportError as error:
        raise missing_package(error) from error


def _watch(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", _HERE / "watch.py", str(pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    # PGPORT, PGDATA, PGOPTIONS and the like are meant for somebody else's server.
    given = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # Java finds no file below a folder whose name the locale cannot write, as a home of somebody called José.
    return given | {"LC_ALL": "C.UTF-8"}
